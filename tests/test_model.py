"""LCNet as a decision process: the four calls, what the policy sees, where gradients go, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backbones import noise, tiny_backbone
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.gates import Probe
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides, ModelSpec
from lcnet_rl.state import State
from lcnet_rl.weights import create_model

COMBINATIONS = [(decides, groups) for decides in get_args(Decides) for groups in (0, 2, 4)]


def tiny_lcnet(decides: Decides = "both", groups: int = 2, name: str = "resnet8", confidence: bool = True) -> LCNet:
    """In eval mode, gates open and neutral."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return LCNet(tiny_backbone(name), decides, groups, confidence=confidence).eval()


def undecided_lcnet(
    decides: Decides = "both", groups: int = 2, name: str = "resnet8", confidence: bool = True
) -> LCNet:
    """In eval mode, with gates that decide otherwise for other images, and scales below 1."""
    model = tiny_lcnet(decides, groups, name, confidence)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for parameter in model.policy_parameters():
            parameter.copy_(torch.randn_like(parameter))
        for parameter in model.scale_parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter) + 0.3 * (parameter.ndim == 1))
    return model


def coins(model: LCNet, count: int, seed: int = 0) -> Tensor:
    """Random decisions, (depth, count, action_size)."""
    shape = (model.depth, count, model.action_size)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6).float()


def replayed(actions: Tensor) -> Callable[[Observation], Tensor]:
    return lambda observation: actions[observation.block]


def before_block(model: LCNet, block: int, count: int = 3) -> State:
    """The state in which ``block`` comes next, everything before it kept."""
    state = model.begin(noise(count))
    for _ in range(block):
        state = model.advance(state, torch.ones(count, model.action_size))
    return state


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet18"])
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
def test_all_keeps_and_unit_scales_give_the_plain_backbones_logits_exactly(
    decides: Decides, groups: int, name: str
) -> None:
    model = tiny_lcnet(decides, groups, name)
    with torch.no_grad():
        outcome = model.run(noise(), model.keep_everything)
        assert torch.equal(outcome.logits, model.backbone(noise()))
        assert torch.equal(model.run(noise(), model.greedy()).logits, outcome.logits)  # gates start open


@torch.no_grad()
def test_bits_beyond_a_blocks_own_filters_are_ignored() -> None:
    model = undecided_lcnet("both", 0)
    assert model.action_size == 1 + 16
    mask = model.decisions.action_mask
    assert mask.sum(1).tolist() == [5, 9, 17]
    actions = coins(model, 3)
    other = torch.where(mask[:, None], actions, 1 - actions)
    a, b = model.run(noise(), replayed(actions)), model.run(noise(), replayed(other))
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.macs, b.macs)
    kept = zip(model.decisions.kept(actions), model.decisions.kept(other), strict=True)
    assert all(torch.equal(x, y) for x, y in kept)
    state = model.begin(noise())
    assert not model.keep_logits(0, model.observe(state).gate_input)[:, 5:].any()


@torch.no_grad()
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
def test_run_equals_the_four_calls_by_hand(decides: Decides, groups: int) -> None:
    model, seen = undecided_lcnet(decides, groups), []
    actions = coins(model, 3)

    def decide(observation: Observation) -> Tensor:
        seen.append(observation)
        return actions[observation.block]

    outcome = model.run(noise(), decide, price=0.7)
    state, bills = model.begin(noise(), 0.7), torch.zeros(3, dtype=torch.float64)
    for t in range(model.depth):
        observation = model.observe(state)
        assert torch.equal(observation.gate_input, seen[t].gate_input)
        bills += model.decisions.bill(actions[t], t)
        state = model.advance(state, actions[t])
    assert state.block == model.depth
    assert torch.equal(outcome.logits, model.classify(state))
    assert torch.equal(outcome.actions, actions)
    assert torch.equal(outcome.macs, bills + model.costs.stem + model.costs.head)


@torch.no_grad()
def test_an_observation_shows_features_confidence_spending_and_price() -> None:
    model = undecided_lcnet()
    state = before_block(model, 1)
    observation = model.observe(replace(state, price=torch.tensor([0.1, 0.2, 0.3])))
    assert torch.equal(observation.pooled, state.features.mean((2, 3)))
    expected = (model.probes[1](state.pooled)).softmax(1)
    torch.testing.assert_close(observation.confidence[:, 0], expected.amax(1))
    torch.testing.assert_close(observation.spent.double() * model.costs.dense, state.spent, rtol=1e-6, atol=0)
    assert torch.equal(
        observation.gate_input,
        torch.cat((observation.pooled, observation.confidence, observation.spent[:, None], state.price[:, None] * 0), 1)
        + F.pad(observation.price[:, None], (model.backbone.blocks[1].in_channels + 3, 0)),
    )


@torch.no_grad()
def test_without_confidence_the_gates_read_features_spending_and_price_only() -> None:
    model = undecided_lcnet(confidence=False)
    observation = model.observe(before_block(model, 1))
    assert observation.confidence.shape == (3, 0)
    parts = observation.pooled, observation.spent[:, None], observation.price[:, None]
    assert torch.equal(observation.gate_input, torch.cat(parts, 1))
    for gate, block in zip(model.gates(), [*model.backbone.blocks] * 2, strict=True):
        assert gate.keep.in_features == gate.scale.in_features == block.in_channels + 2


@torch.no_grad()
@pytest.mark.parametrize("kind", [lambda model: model, Engine], ids=["model", "engine"])
def test_without_confidence_no_probe_runs_until_its_logits_are_asked_for(
    kind: Callable[[LCNet], LCNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, forward = [], Probe.forward
    monkeypatch.setattr(Probe, "forward", lambda probe, pooled: runs.append(1) or forward(probe, pooled))
    for confidence in (True, False):
        runs.clear()
        model = kind(undecided_lcnet(confidence=confidence))
        model.run(noise(), model.greedy())
        assert bool(runs) == confidence
    state = model.begin(noise())
    observation = model.observe(state)
    torch.testing.assert_close(observation.probe_logits, forward(model.probes[0], state.pooled))
    assert observation.probe_logits is observation.probe_logits
    assert len(runs) == 1, "once, however often it is read"


def test_the_option_changes_neither_the_random_weights_nor_their_names() -> None:
    one, other = tiny_lcnet(), tiny_lcnet(confidence=False)
    assert list(one.state_dict()) == list(other.state_dict())
    for part in ("backbone", "probes"):
        ours, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


@torch.no_grad()
def test_the_price_is_the_one_trained_at_unless_given() -> None:
    model = tiny_lcnet()
    model.price.fill_(0.4)
    assert model.begin(noise()).price.tolist() == pytest.approx([0.4] * 3)
    assert model.begin(noise(), 0.2).price.tolist() == pytest.approx([0.2] * 3)
    assert model.begin(noise(), torch.tensor([1.0, 2.0, 3.0])).price.tolist() == [1, 2, 3]


@pytest.mark.parametrize("confidence", [True, False])
def test_policy_and_probe_carry_no_gradient_into_the_backbone(confidence: bool) -> None:
    model = undecided_lcnet(confidence=confidence)
    state = model.begin(noise())
    for t in range(model.depth):
        observation = model.observe(state)
        assert not observation.gate_input.requires_grad
        model.keep_logits(t, observation.gate_input).sum().backward()
        observation.probe_logits.square().sum().backward()
        state = model.advance(state, coins(model, 3)[t])
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.scale_parameters())
    assert all(p.grad is not None for p in [*model.policy_parameters(), *model.probes.parameters()])


def test_the_task_loss_reaches_backbone_and_scales_but_no_keep_layer() -> None:
    model = undecided_lcnet().train()
    model.run(noise(), model.keep_everything).logits.square().sum().backward()
    assert all(p.grad is not None for p in [*model.backbone.parameters(), *model.scale_parameters()])
    assert all(p.grad is None for p in [*model.policy_parameters(), *model.probes.parameters()])


@torch.no_grad()
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
def test_greedy_decisions_are_deterministic_and_follow_the_threshold(decides: Decides, groups: int) -> None:
    model = undecided_lcnet(decides, groups)
    first, second = model.run(noise(16), model.greedy(0.7)), model.run(noise(16), model.greedy(0.7))
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(first.logits, second.logits)
    state = model.begin(noise(16))
    for t in range(model.depth):
        probabilities = model.keep_logits(t, model.observe(state).gate_input).sigmoid()
        has = model.decisions.action_mask[t]
        assert torch.equal(first.actions[t][:, has], (probabilities > 0.7).float()[:, has])
        state = model.advance(state, first.actions[t])
    assert first.actions.std(1).any(), "this test needs images that are treated differently"


@torch.no_grad()
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
def test_an_image_does_not_see_the_others_of_its_batch(decides: Decides, groups: int) -> None:
    model, images = undecided_lcnet(decides, groups), noise(6)
    together = model.run(images, model.greedy())
    assert together.actions.std(1).any(), "this test needs images that are treated differently"
    for index in range(len(images)):
        alone = model.run(images[index : index + 1], model.greedy())
        assert torch.equal(alone.actions[:, 0], together.actions[:, index])
        assert alone.macs[0] == together.macs[index]
        torch.testing.assert_close(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from(COMBINATIONS))
def test_a_mean_field_pass_at_whole_numbers_equals_hard_decisions(seed: int, combination: tuple[Decides, int]) -> None:
    model = undecided_lcnet(*combination)
    hard = coins(model, 3, seed)
    soft = hard.clone().requires_grad_()
    with torch.no_grad():
        expected = model.run(noise(), replayed(hard))
    outcome = model.run(noise(), replayed(soft))
    assert torch.equal(outcome.logits, expected.logits)
    assert torch.equal(outcome.macs, expected.macs)
    outcome.logits.sum().backward()
    assert soft.grad is not None
    assert soft.grad.isfinite().all()


def test_a_mean_field_pass_differentiates_towards_every_decision() -> None:
    model = undecided_lcnet()
    actions = torch.full((model.depth, 1, model.action_size), 0.5, requires_grad=True)
    model.run(noise(1), replayed(actions)).logits.sum().backward()
    assert actions.grad is not None
    assert (actions.grad != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single_batches_are_classified(count: int) -> None:
    model = undecided_lcnet()
    outcome = model.run(noise(count), model.greedy())
    assert outcome.logits.shape == (count, 4)
    assert outcome.actions.shape == (model.depth, count, model.action_size)
    assert outcome.macs.shape == (count,)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 28, 28, dtype=torch.uint8),
    ],
)
def test_images_of_another_type_or_shape_are_refused(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"images must be uint8 \(B, 3, 32, 32\), got"):
        tiny_lcnet().begin(images)


def test_images_that_are_no_tensor_are_refused_as_such() -> None:
    images = np.zeros((2, 3, 32, 32), np.uint8)
    with pytest.raises(UserError, match=r"images must be a torch.Tensor, got ndarray: use torch.from_numpy"):
        tiny_lcnet().begin(images)
    tiny_lcnet().begin(torch.from_numpy(images))


@pytest.mark.parametrize("groups", [-1, 3, 8])
def test_groups_that_do_not_divide_the_filters_are_refused(groups: int) -> None:
    with pytest.raises(
        UserError, match=f"groups must divide 4 filters, or be 0, got {groups}; or decide about layers only"
    ):
        LCNet(tiny_backbone(), "both", groups)


def test_groups_do_not_matter_where_only_layers_are_decided() -> None:
    model = LCNet(tiny_backbone(), "layers", 3).eval()
    assert model.action_size == 1
    assert torch.equal(model.run(noise(), model.keep_everything).logits, model.backbone(noise()))


def test_an_unknown_kind_of_decision_is_refused() -> None:
    with pytest.raises(UserError, match="unknown decides 'layer'; did you mean layers"):
        LCNet(tiny_backbone(), "layer")


@pytest.mark.parametrize(
    ("decides", "groups", "size"),
    [("layers", 2, 1), ("channels", 2, 2), ("channels", 0, 16), ("both", 2, 3), ("both", 0, 17)],
)
def test_an_action_has_a_bit_for_every_decision(decides: Decides, groups: int, size: int) -> None:
    assert tiny_lcnet(decides, groups).action_size == size


@pytest.mark.parametrize("confidence", [True, False])
def test_every_parameter_has_exactly_one_trainer(confidence: bool) -> None:
    model = tiny_lcnet(confidence=confidence)
    parts = [
        model.backbone.parameters(),
        model.probes.parameters(),
        model.policy_parameters(),
        model.scale_parameters(),
    ]
    owners = [id(p) for part in parts for p in part]
    assert sorted(owners) == sorted(id(p) for p in model.parameters())
    assert len(set(owners)) == len(owners)


@torch.no_grad()
def test_gates_read_a_price_by_its_place_in_the_range_that_they_are_for() -> None:
    model = LCNet(tiny_backbone(), "layers", keep_bias=0.0, prices=PriceRange(0.1, 1.6)).eval()
    for gate in model.gates():
        gate.keep.weight[:, -1] = 1.0
    logits = {}
    for price in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0):
        observation = model.observe(model.begin(noise(2), price))
        logits[price] = float(model.keep_logits(0, observation.gate_input)[0, 0])
        assert float(observation.price[0]) == pytest.approx(price)
    assert logits == pytest.approx({0.0: -4, 0.1: -4, 0.2: -2, 0.4: 0, 0.8: 2, 1.6: 4, 5.0: 4}, abs=1e-5)


def test_a_model_for_one_price_reads_it_as_it_is() -> None:
    model = LCNet(tiny_backbone(), "layers", keep_bias=0.0, prices=PriceRange(0.4, 0.4)).eval()
    assert model.spec.prices is None
    model.gates()[0].keep.weight.data[:, -1] = 1.0
    observation = model.observe(model.begin(noise(2), 0.7))
    assert float(model.keep_logits(0, observation.gate_input)[0, 0].detach()) == pytest.approx(0.7)


@pytest.mark.parametrize("confidence", [True, False])
def test_a_spec_builds_its_model_again(confidence: bool) -> None:
    model = tiny_lcnet("channels", 0, "resnet18", confidence)
    again = create_model(model.spec)
    assert again.spec == model.spec == ModelSpec(model.backbone.spec, "channels", 0, confidence)
    again.load_state_dict(model.state_dict())
