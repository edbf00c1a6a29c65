"""Processes that train as one: each quantity of a step, and whole runs, against what one process computes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from networks import lively
from processes import VARIABLES, together
from test_agents_runs import joint, noise, stop_after
from test_pretrain import CPU, fresh, setup_in
from test_rivals import agent as rival_agent
from test_rivals import rival_model
from torch import Tensor, nn

from agents import centering
from agents.deciders import random_keeps
from agents.estimators import batch_mean, decision_information, policy_entropy
from agents.reinforce import Reinforce
from agents.rollout import Rollout
from lcnet_rl.batchnorm import GlobalBatchNorm2d, prepare
from lcnet_rl.budget import Measurement
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.data.sampler import TrainingBatches
from lcnet_rl.distributed import alone, average_gradients, mean_scalars, my_rows, rand_rows, shards
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import evaluate
from lcnet_rl.gates import Standardize
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.job import any_process, by_main, from_main, is_main, joined, rank
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.observation import Observation
from lcnet_rl.policies import PolicyName
from lcnet_rl.pretrain import DenseTraining
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import MODEL, PROGRESS
from lcnet_rl.tree import load_tree, save_tree


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def compare_draws() -> None:
    """A row's random numbers are those that one process would have drawn for it."""
    rows = my_rows(8)
    copies = rand_rows((3 * 4, 5), seeded(), CPU, copies=3)
    assert copies.unflatten(0, (3, 4)).equal(torch.rand((3, 8, 5), generator=seeded())[:, rows])
    ours, generator = random_keeps(0.3, seeded()), seeded()
    whole = random_keeps(0.3, generator)
    for block in range(2):
        seen = cast(Observation, SimpleNamespace(block=block))
        with alone():
            expected = whole(torch.zeros(8, 5), seen)
        assert ours(torch.zeros(4, 5), seen).equal(expected[rows])
    with alone():
        images, labels = TrainingBatches(noise(32, "train"), 8, 3)(5)
    mine = TrainingBatches(noise(32, "train"), 8, 3)(5)
    assert mine[0].equal(images[rows])
    assert mine[1].equal(labels[rows])


def compare_batchnorm(momentum: float | None, dtype: torch.dtype) -> None:
    """Outputs, running statistics and all gradients of a BatchNorm are those of the global batch."""
    x, target = torch.randn((2, 8, 6, 4, 4), generator=seeded())
    x = (3 + x).to(dtype).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(1)
    theirs = nn.BatchNorm2d(6, momentum=momentum)
    nn.init.normal_(theirs.weight)
    ours = nn.Sequential(nn.BatchNorm2d(6, momentum=momentum))
    ours[0].load_state_dict(theirs.state_dict())
    prepare(ours)
    assert type(ours[0]) is GlobalBatchNorm2d
    rows, tolerance = my_rows(8), 1e-5 if dtype == torch.float32 else 0.03
    for _ in range(2):
        whole, mine = x.clone().requires_grad_(), x[rows].clone().requires_grad_()
        expected, got = theirs(whole), ours(mine)
        assert got.dtype == dtype
        close(got, expected[rows], tolerance)
        theirs.zero_grad()
        ours.zero_grad()
        (expected * target).sum().backward()
        (got * target[rows]).sum().backward()
        assert mine.grad is not None
        assert whole.grad is not None
        assert mine.grad.is_contiguous(memory_format=torch.channels_last)
        close(mine.grad, whole.grad[rows], tolerance)
    average_gradients(ours.parameters())
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(2 * cast(Tensor, own.grad), cast(Tensor, other.grad), tolerance)
    for key, value in theirs.state_dict().items():
        close(ours[0].state_dict()[key], value)


def compare_estimators() -> None:
    """Entropy, information and the batch baseline are not means over images, and yet those of the global batch."""
    rows = my_rows(8)
    logits = nn.Parameter(torch.randn((3, 2, 8, 5), generator=seeded()))
    asked = (torch.rand(logits.shape, generator=seeded(1)) < torch.linspace(0, 0.6, 8)[:, None]).float()

    def rollout(rows: slice) -> Rollout:
        values = {"probabilities": logits.sigmoid()[:, :, rows], "consulted": asked[:, :, rows]}
        return cast(Rollout, SimpleNamespace(**values))

    for estimate in (policy_entropy, decision_information):
        with alone():
            expected = estimate(rollout(slice(None)))
            (gradient,) = torch.autograd.grad(expected, logits)
        logits.grad = None
        value = estimate(rollout(rows))
        value.backward()
        average_gradients([logits])
        close(value, expected)
        assert gradient.abs().max() > 1e-4
        close(cast(Tensor, logits.grad), gradient, 1e-7)
    returns = torch.randn((3, 2, 8), generator=seeded())
    with alone():
        advantages = batch_mean(returns)
    close(batch_mean(returns[..., rows]), advantages[..., rows])


def compare_gate_statistics() -> None:
    x = torch.randn((8, 6), generator=seeded()) * torch.linspace(0.1, 3, 8)[:, None] + 5
    ours, theirs = Standardize(6), Standardize(6)
    for _ in range(3):
        ours.update(x[my_rows(8)])
        with alone():
            theirs.update(x)
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value)


def agree(folder: Path) -> None:
    """What a loop asks the others, and who writes."""
    assert any_process(rank() == 1)
    assert not any_process(False)
    assert from_main(lambda: folder / str(rank())) == folder / "0"
    assert mean_scalars({"rank": float(rank()), "one": 1.0}) == {"rank": 0.5, "one": 1.0}
    by_main((folder / "written").mkdir)()
    log = MetricsLog(folder)
    log.write(1, {"main": float(is_main())})
    log.close()
    torch.manual_seed(rank())
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    prepare(layer)
    torch.manual_seed(0)
    assert layer.weight.equal(nn.Conv2d(3, 4, 3).weight)
    with pytest.raises(UserError, match="batch size 9 does not divide evenly among 2 processes"):
        TrainingBatches(noise(32, "train"), 9, 0)
    with alone():
        assert shards() == 1


def agree_on_what_is_spent() -> None:
    """Of networks that differ, all processes get the main one's share of MACs, and its weights with the statistics."""
    model, data = lively(width=4), noise(32, "train")
    model.shift_logits(3.0 * rank())
    measurement = Measurement(data, data, CPU)
    own = evaluate(model, data, model.greedy(), CPU).macs_ratio
    mains = from_main(lambda: own)
    assert (own == mains) == is_main()
    assert measurement.share(model) == mains
    measurement.recalibrate(model)
    theirs = from_main(model.state_dict)
    assert all(value.equal(theirs[name]) for name, value in model.state_dict().items())


def every_quantity(folder: Path) -> None:
    compare_draws()
    for momentum in (0.1, 0.0, None):
        compare_batchnorm(momentum, torch.float32)
    compare_batchnorm(0.1, torch.bfloat16)
    compare_estimators()
    compare_gate_statistics()
    agree(folder)
    agree_on_what_is_spent()


@pytest.mark.slow
def test_every_quantity_of_a_step_is_that_of_the_global_batch(tmp_path: Path) -> None:
    together(every_quantity, tmp_path)
    assert [row["main"] for row in logged(tmp_path)] == ["1"]


@pytest.mark.parametrize(
    ("device", "message"), [("cuda:0", "is one GPU, but every process needs its own"), ("cuda", "process 1 has no GPU")]
)
def test_processes_without_a_gpu_of_their_own_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    for name, value in zip(VARIABLES, ("1", "1", "2", "localhost", "0"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=message), joined(device):
        pass


def logged(run: Path) -> list[dict[str, str]]:
    with (run / PROGRESS).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


PRICE = {"target": None, "price": 0.5}
JOINT: dict[str, dict[str, Any]] = {
    "leave-one-out": {"information": 0.3, "entropy": 0.1, "rollouts": 2, "baseline": "leave-one-out"},
    "first-order": {
        "information": 0.3,
        "entropy": 0.1,
        "rollouts": 1,
        "baseline": "mean-field",
        "control_variate": "first-order",
    },
    "batch-mean": {**PRICE, "rollouts": 2, "baseline": "batch-mean", "cost_gradient": "sampled"},
    "self-critical": {**PRICE, "rollouts": 2, "baseline": "self-critical", "confidence": False},
    "price-range": {**PRICE, "rollouts": 2, "price": "0.05..1.0", "reward": "confidence-gain"},
}
RIVALS: tuple[PolicyName, ...] = ("blockdrop", "skipnet", "convnet-aig")
LAYER_DROP = {"pretrain": 0.0, "pretrain-layer-drop": 0.5}
"""Dense networks, and the rate of each."""
RESUMED = "first-order"


@contextmanager
def double_precision() -> Iterator[None]:
    """Everything in float64, where the code says float too.

    In float32 a rounding flips a ReLU here and a decision there: two runs that differ by nothing else drift apart by a
    thousandth in ten steps, and the tolerance for that would hide errors.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def agent(run: Path, case: str) -> Reinforce:
    if case in RIVALS:
        return rival_agent(case, run, rival_model(case, spread=0.1), precision="fp32")
    return joint(run, precision="fp32", **JOINT[case])


def train_joint(agent: Reinforce) -> None:
    """Train, and leave each step's scalars and this process's model behind."""
    one_step, steps = agent.joint_step, []

    def step() -> dict[str, float]:
        steps.append(one_step())
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "joint_step", step)
        patch.setattr(centering, "TRIES", 1)  # in noise no threshold meets a target, however long one is looked for
        agent.train()
    save_tree({"steps": steps, "model": agent.model.state_dict()}, agent.setup.run / f"trace{rank()}")


def train_backbone(run: Path) -> None:
    """The same for a dense network, in one step an epoch, so that the log has every step's loss."""
    run.mkdir(exist_ok=True)
    augmentation = Augmentation(flips="alternating", cutout=8)
    recipe = Recipe(
        epochs=10, batch_size=24, lr=0.1, precision="fp32", augmentation=augmentation, layer_drop=LAYER_DROP[run.name]
    )
    backbone = fresh()
    DenseTraining(backbone, recipe, setup_in(run)).train()
    steps = [{"loss": float(row["train/loss"]), "accuracy": float(row["eval/accuracy"])} for row in logged(run)]
    save_tree({"steps": steps, "model": backbone.state_dict()}, run / f"trace{rank()}")


def every_run(folder: Path) -> None:
    with double_precision():
        for case in (*JOINT, *RIVALS):
            train_joint(agent(folder / case, case))
        for case in LAYER_DROP:
            train_backbone(folder / case)
    train_joint(agent(folder / "float32", "leave-one-out"))


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with the runs of one process and with those of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    every_run(one)
    together(every_run, two)
    return one, two


def same_run(ours: Path, theirs: Path, tolerance: float) -> None:
    """Every scalar of every step of ``ours``, which may have begun later, and the weights at the end."""
    mine, others = load_tree(ours), load_tree(theirs)
    for step, other in zip(mine["steps"][::-1], others["steps"][::-1], strict=False):
        assert step == pytest.approx(other, rel=tolerance, abs=tolerance)
    assert mine["model"].keys() == others["model"].keys()
    for key, value in others["model"].items():
        close(mine["model"][key], value, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*JOINT, *RIVALS, *LAYER_DROP])
def test_two_processes_follow_every_step_of_one(one_and_two: tuple[Path, Path], case: str) -> None:
    one, two = (root / case for root in one_and_two)
    assert len(load_tree(one / "trace0")["steps"]) == len(load_tree(two / "trace0")["steps"])
    # The log's six digits are all there is of pretraining's losses.
    same_run(two / "trace0", one / "trace0", 1e-5 if case in LAYER_DROP else 1e-8)
    assert [sorted(row) for row in logged(two)] == [sorted(row) for row in logged(one)]


@pytest.mark.slow
def test_two_processes_follow_the_loss_curve_of_one_in_float32(one_and_two: tuple[Path, Path]) -> None:
    one, two = (
        [step["train/task_loss"] for step in load_tree(root / "float32" / "trace0")["steps"]] for root in one_and_two
    )
    assert two == pytest.approx(one, rel=1e-2)
    assert len(one) == 24


@pytest.mark.slow
@pytest.mark.parametrize("case", [*JOINT, *RIVALS, "pretrain", "float32"])
def test_all_processes_end_with_the_same_model_bit_for_bit(one_and_two: tuple[Path, Path], case: str) -> None:
    models = [load_tree(one_and_two[1] / case / f"trace{rank}")["model"] for rank in (0, 1)]
    assert all(models[0][key].equal(models[1][key]) for key in models[0])


def stop_joint(folder: Path) -> None:
    """Ctrl-C reaches the last process only, and all stop at the end of that step."""
    with double_precision(), pytest.MonkeyPatch.context() as patch:
        first = agent(folder, RESUMED)
        if rank() == shards() - 1:
            stop_after(first, 12, patch)
        with pytest.raises(Interrupted, match="stopped at step 13 of 24"):
            first.train()


def resume_joint(folder: Path) -> None:
    with double_precision():
        second = agent(folder, RESUMED)
        second.restore()
        assert second.step == 13
        train_joint(second)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_another_number_of_processes_goes_on_with_a_run(
    one_and_two: tuple[Path, Path], tmp_path: Path, first: int
) -> None:
    for work, processes in ((stop_joint, first), (resume_joint, 3 - first)):
        if processes == 1:
            work(tmp_path)
        else:
            together(work, tmp_path)
    whole = one_and_two[0] / RESUMED
    same_run(tmp_path / "trace0", whole / "trace0", 1e-8)
    assert [row["time/total_timesteps"] for row in logged(tmp_path)] == [
        row["time/total_timesteps"] for row in logged(whole)
    ]
    assert (tmp_path / MODEL).is_file()
