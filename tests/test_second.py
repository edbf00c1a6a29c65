"""A second network as one more layer: the same logits and bills everywhere, and no work for images that skip it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import BEHIND, balance, images, lively
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agents.controls import fill
from agents.deciders import drawn
from agents.rollout import mean_field, sample
from envs.observations import encode, observation_space
from envs.process import Process
from envs.rendering import text
from envs.settings import Settings
from lcnet_rl.backbones import Backbone, BackboneSpec, create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import recalibrate, replay
from lcnet_rl.export import blocked_size, dense_model, dynamic_model, layouts_here, open_session
from lcnet_rl.gates import Probe
from lcnet_rl.macs import dense_macs, linear_macs
from lcnet_rl.model import LCNet
from lcnet_rl.prune import prune
from lcnet_rl.rewards import create_reward
from lcnet_rl.second import UNSURE, start_unsure, with_second
from lcnet_rl.spec import Decides
from lcnet_rl.weights import load_backbone, load_model, save_backbone, save_model


def pair() -> tuple[Backbone, Backbone]:
    return lively("resnet8").backbone, lively("resnet11-pool").backbone


def keep_first_only(model: LCNet, count: int) -> torch.Tensor:
    actions = torch.ones(model.depth, count, model.action_size)
    actions[-1] = 0
    return actions


@pytest.mark.parametrize(
    ("decides", "second", "l_nets", "c_nets"),
    [("both", BEHIND, "11111", "11100"), ("layers", BEHIND, "11111", "00000"), ("channels", None, "000", "111")],
)
def test_every_block_has_the_gates_that_decide_about_it(
    decides: Decides, second: BackboneSpec | None, l_nets: str, c_nets: str
) -> None:
    model, gates = lively(decides=decides, second=second), []
    for found, expected in ((model.l_net, l_nets), (model.c_net, c_nets)):
        assert "".join("01"[found(t) is not None] for t in range(model.depth)) == expected
        gates += [gate for t in range(model.depth) if (gate := found(t))]
    assert gates == model.gates()


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_both_networks_together_give_the_weighted_sum_of_their_logits(weight: float) -> None:
    first, second = pair()
    both = with_second(first, second, weight).eval()
    with torch.no_grad():
        torch.testing.assert_close(both(images(3)), first(images(3)) + weight * second(images(3)), atol=1e-4, rtol=1e-4)


def test_it_costs_what_torch_counts_and_its_head_reads_both() -> None:
    first, second = pair()
    both = with_second(first, second).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        both(images(1))
    assert counter.get_total_flops() == 2 * dense_macs(both)
    assert dense_macs(both) == dense_macs(first) + dense_macs(second)
    costs = LCNet(both).costs
    assert costs.dense == dense_macs(both)
    assert costs.blocks[-1].filter == dense_macs(second) - linear_macs(second.head)


def test_an_image_that_skips_it_gets_the_logits_of_the_first_network() -> None:
    first, second = pair()
    model = LCNet(with_second(first, second)).eval()
    with torch.no_grad():
        skipped = model.run(images(3), replay(keep_first_only(model, 3)))
        # Up to the second one's bias, which the head has for all images.
        torch.testing.assert_close(skipped.logits, first(images(3)) + second.head.bias, atol=1e-4, rtol=1e-4)
        everything = model.run(images(3), model.keep_everything)
        torch.testing.assert_close(everything.logits, model.backbone(images(3)), atol=1e-4, rtol=1e-4)
    assert float(everything.macs[0] - skipped.macs[0]) == model.costs.blocks[-1].filter


def test_its_gate_starts_with_the_confidence_of_the_first_network() -> None:
    first, second = pair()
    model = LCNet(with_second(first, second)).eval()
    assert not model.l_nets[-1].keep.weight.any()
    start_unsure(model)
    state = model.begin(images(4))
    with torch.no_grad():
        for _ in range(model.depth - 1):
            state = model.advance(state, torch.ones(4, model.action_size))
        expected = Probe.confidence(first(images(4)) + second.head.bias)
        torch.testing.assert_close(model.observe(state).confidence, expected, atol=1e-4, rtol=1e-4)
        logits = model.policy_logits(model.observe(state))[:, 0]
        torch.testing.assert_close(logits, 2 + UNSURE * (expected[:, 1] - expected[:, 0]), atol=0.05, rtol=0)
    blind = LCNet(model.backbone, confidence=False)
    start_unsure(blind)
    assert not blind.l_nets[-1].keep.weight.any()


@settings(max_examples=20)
@given(
    name=st.sampled_from(["resnet8", "resnet11-pool"]),
    second=st.sampled_from(["resnet11-pool", BEHIND]),
    decides=st.sampled_from(["layers", "both"]),
    groups=st.sampled_from([0, 2, 4]),
    count=st.integers(0, 5),
    keep=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_the_engine_gives_the_models_logits(
    name: str, second: str | BackboneSpec, decides: Decides, groups: int, count: int, keep: float, seed: int
) -> None:
    model = lively(name, decides, groups, second=second)
    draws = torch.rand(model.depth, count, model.action_size, generator=torch.Generator().manual_seed(seed))
    actions = (draws < keep).float()
    with torch.no_grad():
        expected = model.run(images(count), replay(actions))
    got = Engine(model).run(images(count), replay(actions))
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(got.macs, expected.macs)


@pytest.mark.parametrize("decides", ["layers", "both"])
@pytest.mark.parametrize("second", ["resnet11-pool", BEHIND], ids=["two", "three"])
def test_the_engine_executes_what_is_billed_and_decides_as_the_model_does(
    decides: Decides, second: str | BackboneSpec
) -> None:
    model = balance(lively("resnet8", decides, second=second), images(16))
    engine = Engine(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outcome = engine.run(images(16), engine.greedy())
    assert all(0 < kept < 16 for kept in outcome.actions[3:, :, 0].sum(1)), "some images need it, and some do not"
    assert counter.get_total_flops() == 2 * outcome.macs.sum()
    with torch.no_grad():
        expected = model.run(images(16), model.greedy())
    assert torch.equal(outcome.actions, model.decisions.executed(expected.actions))


def test_the_engine_computes_both_networks_in_the_precision_asked_for() -> None:
    model = balance(lively("resnet11-pool", second="resnet11-pool"), images(16))
    engine = Engine(model, torch.bfloat16)
    convolutions = [module for module in engine.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20
    assert {module.weight.dtype for module in convolutions} == {torch.bfloat16}
    with torch.no_grad():
        expected = model.run(images(16), model.keep_everything).logits
    got = engine.run(images(16), engine.keep_everything).logits
    torch.testing.assert_close(got, expected, atol=0.1 * float(expected.abs().max()), rtol=0)


def test_it_keeps_the_statistics_that_it_was_trained_with() -> None:
    model = lively(second="resnet8")
    second = cast(Backbone, model.backbone.second)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    with torch.no_grad():
        model.train().run(images(20), model.keep_everything)
    data = Dataset("noise", "train", images(20), torch.arange(20) % 10, tuple("abcdefghij"))
    recalibrate(model, data, model.keep_everything, torch.device("cpu"))
    changed = [name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])]
    assert "stem.bn.running_mean" in changed
    assert not any(name.startswith("second.") for name in changed)
    assert model.train().backbone.training
    assert not second.training


@pytest.mark.parametrize("engine", [False, True])
def test_only_images_that_keep_it_go_through_it(engine: bool) -> None:
    model = lively(second="resnet8")
    if engine:
        model = Engine(model)
    seen: list[int] = []
    second = cast(Backbone, model.backbone.second)
    second.stem.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    actions = keep_first_only(model, 6)
    with torch.no_grad():
        model.run(images(6), replay(actions))
        assert seen == []
        actions[-1, [1, 4], 0] = 1
        model.run(images(6), replay(actions))
    assert seen == [2]


@pytest.mark.parametrize(
    ("name", "decides", "groups", "confidence"),
    [("resnet8", "both", 4, True), ("resnet8", "layers", 4, False), ("resnet11-pool", "both", 0, True)],
)
def test_exported_files_decide_and_classify_as_the_model_does(
    name: str, decides: Decides, groups: int, confidence: bool
) -> None:
    lively_one = lively(name, decides, groups, 16, confidence, second="resnet11-pool")
    model = balance(lively_one, images(16))
    with torch.no_grad():
        expected = model.run(images(16), model.greedy())
    assert 0 < expected.actions[-1, :, 0].sum() < 16
    layouts = layouts_here(model.backbone)
    assert len(layouts) == 1 + (blocked_size() in (8, 16))
    for layout in layouts:
        session = open_session(dynamic_model(model, layout))
        for index, image in enumerate(images(16).split(1)):
            logits, macs, decisions = map(torch.from_numpy, session.run(None, {"image": image.numpy()}))
            here = slice(index, index + 1)
            torch.testing.assert_close(logits, expected.logits[here], atol=1e-3, rtol=1e-3)
            assert torch.equal(macs[0], expected.macs[here])
            assert torch.equal(decisions.float()[:, None], model.decisions.executed(expected.actions)[:, here])
    dense = open_session(dense_model(model.backbone)).run(None, {"image": images(1).numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(dense), model.backbone(images(1)), atol=1e-4, rtol=1e-4)


def test_a_threshold_moves_the_decision_about_it_alone() -> None:
    model = balance(lively("resnet8", width=16, second="resnet8"), images(16))
    session = open_session(dynamic_model(model, layouts_here(model.backbone)[0]))
    with torch.no_grad():
        usual = model.decisions.executed(model.run(images(16), model.greedy()).actions)
        strict = model.decisions.executed(model.run(images(16), model.greedy(0.9)).actions)
        fast = Engine(model)
        assert torch.equal(fast.run(images(16), fast.greedy(0.9)).actions, strict)
        for index, image in enumerate(images(16).split(1)):
            inputs = {"image": image.numpy(), "threshold": np.array([[0.9]], np.float32)}
            assert torch.equal(torch.from_numpy(session.run(None, inputs)[2]).float(), strict[:, index])
        model.shift_logits(-math.log(9))
        assert torch.equal(model.decisions.executed(model.run(images(16), model.greedy()).actions), strict)
    assert torch.equal(strict[:-1], usual[:-1])
    assert 0 < strict[-1, :, 0].sum() < usual[-1, :, 0].sum()


def test_files_hold_both_networks(tmp_path: Path) -> None:
    model = lively(second="resnet11-pool")
    save_model(model, tmp_path / "model.safetensors")
    save_backbone(model.backbone, tmp_path / "backbone.safetensors")
    loaded, backbone = load_model(tmp_path / "model.safetensors"), load_backbone(str(tmp_path / "backbone.safetensors"))
    assert loaded.spec == model.spec
    assert backbone.spec == model.backbone.spec
    with torch.no_grad():
        assert torch.equal(loaded.run(images(2), loaded.greedy()).logits, model.run(images(2), model.greedy()).logits)
        assert torch.equal(backbone.eval()(images(2)), model.backbone(images(2)))


def test_training_reaches_both_networks_and_the_decision_between_them() -> None:
    model = lively(second="resnet8").train()
    for gate in model.gates():
        nn.init.zeros_(gate.keep.weight)
        nn.init.zeros_(gate.keep.bias)
    labels = torch.arange(8)
    rollout = sample(model, images(8), 0.5, 2, 0.03, drawn(torch.Generator().manual_seed(0), 2))
    assert rollout.actions.shape[0] == model.depth
    nn.functional.cross_entropy(rollout.logits.flatten(0, 1), labels.repeat(2)).backward()
    second = cast(Backbone, model.backbone.second)
    for part in (model.backbone.stem, second.stem, model.backbone.head, model.l_nets[-1].scale):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters())
    reward = create_reward("confidence")
    field = mean_field(model, images(8), labels, 0.5, reward, 0.03)
    assert field.slopes[-1, :, 0].any()
    assert not field.slopes[-1, :, 1:].any(), "it has no filters to decide about"


def test_environments_decide_about_it_last() -> None:
    model = lively(second="resnet11-pool")
    process = Process("both", Settings(dataset="shapes", split="val", model=model))
    process.begin(process.check_indices([0, 1], 2))
    space = observation_space(model)
    for t in range(model.depth):
        observed = encode(model, model.observe(process.state))
        assert all(space[key].contains(row[0]) for key, row in observed.items())
        assert observed["block"].argmax(1).tolist() == [t, t]
        action = torch.zeros(2, model.action_size)
        action[0] = 1
        _, ended, infos = process.step(action.numpy())
    assert ended
    assert infos["kept_blocks"].tolist() == [model.depth, 0]
    assert infos["macs"][0] - infos["macs"][1] > model.costs.blocks[-1].filter
    assert process.trace(0)[-1] == (True, [True])
    assert process.trace(1)[-1] == (False, [False])
    lines = text(process, 0).splitlines()
    assert lines[model.depth - 1].startswith("block ")
    assert lines[model.depth] == "network 2  [#]"


def test_a_static_path_may_keep_it() -> None:
    model = lively(second="resnet11-pool")
    priority = torch.zeros(model.depth, model.action_size)
    priority[-1, 0] = 1
    least = float(model.decisions.path_bill(torch.zeros(model.depth, 1, model.action_size)))
    assert fill(model.decisions, priority, least + model.costs.blocks[-1].filter)[-1, 0, 0] == 1
    assert fill(model.decisions, priority, least + model.costs.blocks[-1].filter - 1)[-1, 0, 0] == 0


def test_a_pair_is_named_with_the_width_of_a_second_network_that_is_not_as_usual() -> None:
    first, second = BackboneSpec("resnet20", 10, 8), BackboneSpec("resnet11-pool", 10, 32)
    assert replace(first, second=second).title == "resnet20 + resnet11-pool"
    assert replace(first, second=replace(second, width=64)).title == "resnet20 + resnet11-pool-64"


def test_what_cannot_be_is_refused() -> None:
    first, second = pair()
    both = with_second(first, second)
    with pytest.raises(UserError, match="none behind itself"):
        with_second(first, both)
    with pytest.raises(UserError, match="by a number above 0, got -1"):
        with_second(first, second, weight=-1)
    with pytest.raises(UserError, match="10 and 3 classes"):
        with_second(first, create_backbone("resnet8", 3, 8))
    with pytest.raises(UserError, match="before another one is put behind it"):
        prune(both, 0.5)
    with pytest.raises(UserError, match="use --decides both or layers, and no rival"):
        LCNet(both, "channels")
    with pytest.raises(UserError, match="use --decides both or layers, and no rival"):
        LCNet(both, "layers", confidence=False, policy="skipnet")
