"""Every estimator that claims to be unbiased, against the exact gradient of a network small enough to enumerate.

Three blocks of three bits give 512 decision strings. One pass over all of them gives the exact gradient of the
expected reward; the estimators see strings drawn from the policy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

from agents.deciders import drawn, greedy_keeps
from agents.estimators import (
    batch_mean,
    bernoulli_entropy,
    decision_information,
    leave_one_out,
    policy_entropy,
    policy_loss,
    returns_to_go,
    to_come,
)
from agents.rollout import MeanField, Rollout, mean_field, repeat_state, sample
from lcnet_rl.backbones import create_backbone
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import Reward, create_reward, judge, smoothed

PRICE = 0.7
BOUND = 0.02
BATCHES, IMAGES, ROLLOUTS = 40, 2048, 2


@dataclass
class Toy:
    model: LCNet
    images: Tensor
    labels: Tensor
    rollout: Rollout
    """Every decision string once, (T, 1, 512, A)."""
    weights: Tensor
    """(512,), their probabilities, with gradients."""

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.model.policy_parameters())

    def flat(self, value: Tensor) -> Tensor:
        gradients = torch.autograd.grad(value, self.parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                torch.zeros(p.numel()) if g is None else g.flatten()
                for p, g in zip(self.parameters, gradients, strict=True)
            ]
        )


@pytest.fixture(scope="module")
def toy() -> Toy:
    torch.manual_seed(3)
    model = LCNet(create_backbone("resnet8", 3, 4), "both", groups=2).eval()
    for gate in [*model.l_nets, *model.c_nets]:
        torch.nn.init.normal_(gate.keep.weight, std=0.6)
        torch.nn.init.normal_(gate.keep.bias, std=0.6)
    strings = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9))).view(512, 3, 3).transpose(0, 1)
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([1])
    rollout = sample(model, images.expand(512, -1, -1, -1), PRICE, 1, BOUND, lambda p, seen: strings[seen.block])
    p = rollout.probabilities[:, 0]
    weights = torch.where(strings > 0, p, 1 - p).prod(2).prod(0)
    return Toy(model, images, labels, rollout, weights)


def exact_gradient(toy: Toy, reward: Reward, price: float = PRICE) -> Tensor:
    judged = judge(toy.rollout.logits[0].detach(), toy.labels)
    earned = reward(judged, toy.rollout.shares[0], torch.full((512,), price))
    return toy.flat((toy.weights * earned).sum())


def draw(toy: Toy, generator: torch.Generator, rollouts: int = ROLLOUTS) -> Rollout:
    """Passes of one image repeated, as ``sample`` would return them, picked from the enumeration."""
    chosen = torch.multinomial(toy.weights.detach(), rollouts * IMAGES, replacement=True, generator=generator)

    def pick(name: str) -> Tensor:
        whole = getattr(toy.rollout, name)
        images_dim = 1 if name in ("logits", "shares") else 2
        return whole.index_select(images_dim, chosen).unflatten(images_dim, (rollouts, IMAGES)).squeeze(images_dim - 1)

    return Rollout(**{field.name: pick(field.name) for field in fields(Rollout)})


def estimates(toy: Toy, reward: Reward, baseline: str, cost_gradient: str, control_variate: str) -> Tensor:
    """Gradient estimates of ``BATCHES`` independent batches, (BATCHES, parameters)."""
    one = mean_field(toy.model, toy.images, toy.labels, PRICE, reward, BOUND)
    field = MeanField(
        one.slopes.expand(-1, IMAGES, -1),
        one.worth.expand(IMAGES),
        one.costs.expand(-1, IMAGES),
        one.potentials.expand(-1, IMAGES),
    )
    greedy = sample(toy.model, toy.images, PRICE, 1, 0.0, greedy_keeps)
    expanded = Rollout(
        **{
            f.name: getattr(greedy, f.name).expand(
                *[
                    IMAGES if axis == (1 if f.name in ("logits", "shares") else 2) else -1
                    for axis in range(getattr(greedy, f.name).ndim)
                ]
            )
            for f in fields(Rollout)
        }
    )
    generator = torch.Generator().manual_seed(1)
    labels = toy.labels.expand(IMAGES)
    rows = []
    for _ in range(BATCHES):
        loss = policy_loss(
            draw(toy, generator), labels, PRICE, reward, baseline, cost_gradient, field, expanded, control_variate
        )
        rows.append(-toy.flat(loss))
    return torch.stack(rows)


def test_a_cost_that_is_no_sum_over_steps_is_not_differentiated_step_by_step(toy: Toy) -> None:
    arguments = toy.rollout, toy.labels, PRICE, create_reward("quadratic"), "batch-mean"
    with pytest.raises(ValueError, match="needs cost_gradient='sampled'"):
        policy_loss(*arguments, "exact")
    assert policy_loss(*arguments, "sampled").isfinite()


COMBINATIONS = [
    (reward, baseline, cost_gradient, control_variate)
    for reward in (
        "linear",
        "confidence",
        "confidence-gain",
        "quadratic:penalty=0.5",
        "budget:target=0.4",
        "lagrangian",
    )
    for baseline in ("leave-one-out", "batch-mean", "self-critical", "mean-field")
    for cost_gradient in ("exact", "sampled")
    for control_variate in ("none", "first-order")
    if cost_gradient == "sampled" or create_reward(reward).pays_by_step
]


@pytest.mark.parametrize(("reward", "baseline", "cost_gradient", "control_variate"), COMBINATIONS)
def test_mean_estimate_equals_the_exact_gradient_within_its_standard_error(
    toy: Toy, reward: str, baseline: str, cost_gradient: str, control_variate: str
) -> None:
    shape = create_reward(reward)
    exact = exact_gradient(toy, shape)
    rows = estimates(toy, shape, baseline, cost_gradient, control_variate)
    error = rows.std(0) / BATCHES**0.5
    deviation = (rows.mean(0) - exact).abs()
    assert error.norm() < 0.1 * exact.norm(), "too noisy to tell anything"
    assert (deviation <= 4.5 * error + 1e-6).all(), f"off by {(deviation / error).max():.1f} standard errors"


@pytest.mark.parametrize("cost_gradient", ["exact", "sampled"])
def test_the_comparison_notices_a_wrong_price(toy: Toy, cost_gradient: str) -> None:
    shape = create_reward("linear")
    wrong = exact_gradient(toy, shape, price=1.5 * PRICE)
    rows = estimates(toy, shape, "leave-one-out", cost_gradient, "none")
    error = rows.std(0) / BATCHES**0.5
    assert ((rows.mean(0) - wrong).abs() > 4.5 * error).any()


def test_the_control_variate_lowers_the_variance(toy: Toy) -> None:
    shape = create_reward("confidence")

    def variance(control_variate: str) -> float:
        return float(estimates(toy, shape, "leave-one-out", "exact", control_variate).var(0).sum())

    assert variance("first-order") < 0.8 * variance("none")


@pytest.mark.parametrize("reward", ["linear", "lagrangian:target=0.7", "quadratic", "budget:target=0.2"])
def test_the_mean_field_baseline_prices_compute_as_the_reward_does(reward: str) -> None:
    torch.manual_seed(0)
    model = LCNet(create_backbone("resnet8", 3, 4), "both", groups=2, keep_bias=30.0).eval()
    images, labels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.arange(6) % 3
    shape, price = create_reward(reward), torch.full((6,), 2.0)
    # Decisions are as good as certain, so what a pass is worth is what was expected, but for correctness.
    rollout = sample(model, images, price, 1, 0.0, drawn(torch.Generator().manual_seed(0)))
    field = mean_field(model, images, labels, price, shape, 0.0)
    correct = judge(rollout.logits, labels).correct[0]
    shift = (
        shape(judge(rollout.logits, labels), rollout.shares, price)[0]
        - shape(smoothed(judge(rollout.logits, labels)), rollout.shares, price)[0]
    )
    returns = returns_to_go(rollout, labels, price, shape, exact=False)[:, 0]
    expected = field.worth - (price * to_come(field.costs, own=True) if shape.pays_by_step else 0)
    assert 0 < correct.sum() < 6
    torch.testing.assert_close(returns - expected, shift.expand_as(returns), rtol=1e-4, atol=1e-4)


def test_sampled_decisions_come_at_their_probabilities() -> None:
    torch.manual_seed(0)
    model = LCNet(create_backbone("resnet8", 3, 4), "both", groups=2, keep_bias=0.4).eval()
    images = torch.zeros(4000, 3, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        rollout = sample(model, images, 0.0, 1, 0.1, drawn(torch.Generator().manual_seed(0)))
    rate, p = rollout.actions.mean((1, 2)), rollout.probabilities[:, 0, 0]
    assert torch.allclose(p, 0.1 + 0.8 * torch.tensor(0.4).sigmoid(), atol=1e-6)
    assert ((rate - p).abs() < 4.5 * (p * (1 - p) / 4000).sqrt()).all()


def test_filters_of_a_dropped_block_are_not_consulted(toy: Toy) -> None:
    dropped = toy.rollout.actions[..., 0] == 0
    assert (toy.rollout.consulted[..., 1:][dropped] == 0).all()
    assert (toy.rollout.consulted[..., 1:][~dropped] == 1).all()
    assert (toy.rollout.consulted[..., 0] == 1).all()


def test_mean_field_slopes_match_finite_differences() -> None:
    torch.manual_seed(1)
    model = LCNet(create_backbone("resnet8", 3, 4), "layers").eval()
    images, labels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 2])
    reward = create_reward("confidence:floor=50")
    field = mean_field(model, images, labels, 0.0, reward, 0.0)
    p = torch.full((model.depth, 2, 1), float(torch.tensor(2.0).sigmoid()))

    def value(actions: Tensor) -> Tensor:
        with torch.no_grad():
            return judge(model.run(images, lambda seen: actions[seen.block]).logits, labels).log_prob

    for block in range(model.depth):
        step = torch.zeros_like(p)
        step[block] = 1e-2
        slope = (value(p + step) - value(p - step)) / 2e-2
        assert torch.allclose(field.slopes[block, :, 0], slope, rtol=0.05, atol=1e-3)


def test_mean_field_leaves_running_statistics_and_gradients_alone() -> None:
    model = LCNet(create_backbone("resnet8", 3, 4), "both", groups=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items() if "num_batches" not in key}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean_field(model, images, torch.tensor([0, 1, 2, 0]), 0.0, create_reward("linear"), 0.0)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(p.grad is None for p in model.parameters())


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    returns = torch.tensor([[1.0, 5.0], [2.0, 7.0], [6.0, 0.0]])
    expected = torch.stack([returns[k] - (returns.sum(0) - returns[k]) / 2 for k in range(3)])
    assert torch.allclose(leave_one_out(returns), expected)
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        leave_one_out(returns[:1])


def test_batch_mean_leaves_each_pass_out_of_its_own_baseline() -> None:
    returns = torch.tensor([[1.0, 5.0, 3.0]])
    expected = torch.tensor([[1 - 4.0, 5 - 2.0, 3 - 3.0]])
    assert torch.allclose(batch_mean(returns), expected)


def test_entropy_has_both_of_its_terms() -> None:
    p = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(bernoulli_entropy(p), torch.distributions.Bernoulli(p).entropy())


def test_entropy_and_information_of_known_policies(toy: Toy) -> None:
    def with_probabilities(p: Tensor) -> Rollout:
        values = {f.name: getattr(toy.rollout, f.name) for f in fields(Rollout)}
        return Rollout(**{**values, "probabilities": p, "consulted": torch.ones_like(p)})

    same = torch.full((3, 1, 512, 3), 0.3)
    assert decision_information(with_probabilities(same)).abs() < 1e-6
    split = torch.cat((torch.zeros(3, 1, 256, 3), torch.ones(3, 1, 256, 3)), 2)
    assert abs(float(decision_information(with_probabilities(split))) - torch.log(torch.tensor(2.0))) < 1e-3
    assert policy_entropy(with_probabilities(split)) < 1e-3


def test_bits_that_no_block_has_do_not_count_in_entropy_and_information(toy: Toy) -> None:
    nobody = torch.zeros(3, 1, 512, 2)
    for probability in (0.0, 0.3, 1.0):
        wider = replace(
            toy.rollout,
            probabilities=torch.cat((toy.rollout.probabilities, nobody + probability), -1),
            consulted=torch.cat((toy.rollout.consulted, nobody), -1),
        )
        for bonus in (policy_entropy, decision_information):
            assert bonus(toy.rollout) > 1e-3
            torch.testing.assert_close(bonus(wider), bonus(toy.rollout))


def test_gradients_of_rollouts_keep_the_channels_last_layout() -> None:
    model = LCNet(create_backbone("resnet8", 3, 4), "both", groups=2).train()
    layouts = []
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_full_backward_hook(
                lambda _, __, out: layouts.append(out[0].is_contiguous(memory_format=torch.channels_last))
            )
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    sample(model, images, 0.0, 2, 0.0, drawn(None, 2)).logits.square().sum().backward()
    assert layouts == [True] * 7, "in another layout a joint step takes 1.5 times as long"


def test_a_repeated_state_has_every_row_as_often_and_all_else_as_it_was() -> None:
    model = LCNet(create_backbone("resnet8", 3, 4), "layers", confidence=False, policy="skipnet").eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    state = replace(model.begin(images), block=1, images=images, excess=7)
    repeated = vars(repeat_state(state, 2))
    for name, value in vars(state).items():
        if isinstance(value, Tensor):
            assert torch.equal(repeated[name], torch.cat((value, value))), name
        else:
            assert repeated[name] == value, name
