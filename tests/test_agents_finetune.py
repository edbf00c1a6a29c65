"""What joint training does beside the policy: its losses by hand, and the statistics that gates' inputs get."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from networks import images, lively
from test_agents_runs import joint
from torch import Tensor
from torch.nn import functional as F

from agents.deciders import drawn
from agents.finetune import FinetuneConfig, Finetuner
from agents.rollout import Rollout, sample
from lcnet_rl.gates import Standardize
from lcnet_rl.state import State

MODEL = lively(width=4)
LABELS = torch.arange(6) % 4


def rollout() -> Rollout:
    """Three passes over six images."""
    return sample(MODEL, images(6), 0.3, 3, 0.0, drawn(torch.Generator().manual_seed(0), 3))


@pytest.mark.parametrize("distill", [0.0, 0.7, 1.0])
def test_the_task_loss_weighs_labels_and_the_teachers_probabilities(distill: float) -> None:
    passes, teacher = rollout(), lively("resnet14", width=4).backbone
    loss = Finetuner(MODEL, FinetuneConfig(distill=distill), teacher).task_loss(images(6), LABELS, passes)
    soft = teacher(images(6)).softmax(1)
    each = [(1 - distill) * F.cross_entropy(z, LABELS) + distill * F.cross_entropy(z, soft) for z in passes.logits]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_soft_labels_are_not_rounded_where_the_teacher_computes_in_bfloat16() -> None:
    passes, teacher = rollout(), lively("resnet14", width=4).backbone
    finetuner = Finetuner(MODEL, FinetuneConfig(distill=1.0), teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = finetuner.task_loss(images(6), LABELS, passes)
        soft = teacher(images(6)).double().softmax(1)
    assert loss.dtype == torch.float32
    expected = -(soft * passes.logits.double().log_softmax(2)).sum(2).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def test_the_probes_loss_is_a_sum_over_blocks_of_means() -> None:
    passes = rollout()
    loss = Finetuner(MODEL, FinetuneConfig()).probe_loss(LABELS, passes)
    each = [F.cross_entropy(logits, LABELS) for block in passes.probe_logits for logits in block]
    assert len(each) == 3 * MODEL.depth
    torch.testing.assert_close(loss, torch.stack(each).sum() / 3)


def test_kernels_and_matrices_of_the_backbone_decay_and_nothing_else_does() -> None:
    model = lively(width=4)
    finetuner = Finetuner(model, FinetuneConfig(lr=0.5, weight_decay=0.1))
    trained = {**dict(model.backbone.named_parameters()), **{str(i): p for i, p in enumerate(model.scale_parameters())}}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    finetuner.step(1.0)
    for name, parameter in trained.items():
        decays = name.endswith(("conv.weight", "conv1.weight", "conv2.weight", "head.weight"))
        # The first step of Nesterov's momentum of 0.9 is 1.9 gradients long.
        torch.testing.assert_close(parameter, before[name] * (1 - 0.5 * 0.1 * 1.9 * decays), rtol=1e-6, atol=0)


def test_gradients_are_clipped_before_they_move_anything_and_logged_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def norm_of(parts: Iterable[Tensor]) -> float:
        return float(torch.cat([part.detach().flatten() for part in parts]).norm())

    def stepped(most: float) -> tuple[list[float], list[float]]:
        """How far backbone with scales, and the policy, move at a rate of 1; the logged norms of their gradients."""
        agent = joint(tmp_path / f"{most:g}", warmup=0.0, max_grad_norm=most, weight_decay=0.0)
        model = agent.model
        parts = [[*model.backbone.parameters(), *model.scale_parameters()], model.policy_parameters()]
        # Adam's step is as long whatever the gradient's norm.
        monkeypatch.setattr(agent, "gate_optimizer", torch.optim.SGD(parts[1]))
        before = [[parameter.detach().clone() for parameter in part] for part in parts]
        scalars = agent.joint_step()
        rates = [
            optimizer.param_groups[0]["lr"] for optimizer in (agent.finetuner.weight_optimizer, agent.gate_optimizer)
        ]
        moved = [norm_of(now - was for now, was in zip(*pair, strict=True)) for pair in zip(parts, before, strict=True)]
        steps = [length / rate for length, rate in zip(moved, rates, strict=True)]
        return steps, [scalars["train/task_grad_norm"], scalars["train/policy_grad_norm"]]

    (free, norms), (held, logged) = stepped(1e9), stepped(1e-3)
    assert min(norms) > 1e-2, "both are to be clipped"
    assert logged == norms
    assert free == pytest.approx([1.9 * norms[0], norms[1]], rel=1e-3)
    assert held == pytest.approx([1.9e-3, 1e-3], rel=1e-2)


def test_a_training_step_counts_the_gates_inputs_of_its_rollouts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = joint(tmp_path, warmup=0.0, control_variate="first-order")
    model, seen = agent.model, list[Tensor]()
    advance = model.advance

    def recorded(state: State, action: Tensor) -> State:
        seen.append(model.observe(state).gate_input.detach())
        return advance(state, action)

    monkeypatch.setattr(model, "advance", recorded)
    agent.joint_step()
    assert len(seen) == 2 * model.depth, "a mean-field pass, which does not count, and rollouts"
    for standardizer, x in zip(model.standardizers, seen[model.depth :], strict=True):
        assert isinstance(standardizer, Standardize)
        assert int(standardizer.count) == 1
        inputs = x[:, :-1]  # all but the price
        torch.testing.assert_close(standardizer.mean, inputs.mean(0))
        torch.testing.assert_close(standardizer.var, inputs.var(0, correction=0))
