"""Three networks in a row, the last of which sees every image and its mirror image."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from networks import BEHIND, balance, images, lively
from torch.utils.flop_counter import FlopCounterMode

from envs.process import Process
from envs.rendering import text
from envs.settings import Settings
from lcnet_rl.backbones import Backbone, BackboneSpec, build
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import replay
from lcnet_rl.export import dense_model, dynamic_model, layouts_here, open_session
from lcnet_rl.gates import LNet, Probe
from lcnet_rl.macs import dense_macs, linear_macs
from lcnet_rl.model import LCNet
from lcnet_rl.second import RAN, UNSURE, start_unsure, with_second
from lcnet_rl.spec import Decides
from lcnet_rl.weights import load_backbone, load_model, save_backbone, save_model


def three(decides: Decides = "layers", name: str = "resnet8", width: int = 8) -> LCNet:
    return lively(name, decides, width=width, second=BEHIND)


def parts() -> tuple[Backbone, Backbone, Backbone]:
    return lively("resnet14").backbone, lively("resnet8").backbone, lively("resnet11-pool").backbone


def settle(model: LCNet) -> None:
    """Let each combination of networks come up, and some probabilities lie between 1/2 and a high threshold."""
    last, channels = model.l_nets[-1].keep.weight.data, model.backbone.channels
    last[:, channels:-2] = 0  # what the second network adds would decide all
    last /= 2
    balance(model, images(16))


def row(first: Backbone, second: Backbone, third: Backbone) -> Backbone:
    return with_second(with_second(first, second, 2.0), third, 3.0, mirrored=True).eval()


def seen_twice(network: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    return (network(pixels) + network(pixels.flip(3))) / 2


@torch.no_grad()
def test_an_image_gets_the_logits_of_the_networks_that_it_keeps() -> None:
    first, second, third = parts()
    model, pixels = LCNet(row(first, second, third), "layers").eval(), images(4)
    actions = torch.ones(model.depth, 4, 1)
    actions[-2:, :, 0] = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 1]])
    bias = 2 * second.head.bias + 3 * third.head.bias
    by_second = 2 * (second(pixels) - second.head.bias)
    by_third = 3 * (seen_twice(third, pixels) - third.head.bias)
    expected = first(pixels) + bias + actions[-2] * by_second + actions[-1] * by_third
    for network in (model, Engine(model)):
        got = network.run(pixels, replay(actions)).logits
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.backbone(pixels)[3:], expected[3:], atol=1e-3, rtol=1e-3)


def test_two_images_cost_twice_as_much_and_each_network_what_torch_counts() -> None:
    first, second, third = parts()
    model = LCNet(row(first, second, third), "layers")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.backbone(images(1))
    assert counter.get_total_flops() == 2 * dense_macs(model.backbone)
    own = [dense_macs(network) - linear_macs(network.head) for network in (second, third)]
    assert [cost.filter for cost in model.costs.blocks[-2:]] == [own[0], 2 * own[1]]
    assert model.costs.dense == dense_macs(first) + dense_macs(second) + 2 * own[1] + linear_macs(third.head)


def test_the_last_gate_reads_what_both_networks_before_know() -> None:
    first, second, third = parts()
    model = LCNet(row(first, second, third), "layers").eval()
    start_unsure(model)
    state, pixels = model.begin(images(4)), images(4)
    with torch.no_grad():
        for _ in range(model.depth - 1):
            state = model.advance(state, torch.ones(4, 1))
        logits = first(pixels) + 2 * second(pixels) + 3 * third.head.bias
        expected = Probe.confidence(logits)
        torch.testing.assert_close(model.observe(state).confidence, expected, atol=1e-3, rtol=1e-3)
    confidence = slice(-4, None)
    second, third = (cast(LNet, model.l_nets[t]).keep.weight[0, confidence].tolist() for t in (-2, -1))
    assert (second, third) == ([-UNSURE, UNSURE, 0, 0], [-UNSURE, UNSURE, RAN, 0])


def test_the_engine_computes_all_networks_in_the_precision_asked_for() -> None:
    model = balance(three(), images(16))
    engine = Engine(model, torch.bfloat16)
    for network in engine.backbone.networks:
        convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
        assert {module.weight.dtype for module in convolutions} == {torch.bfloat16}
    with torch.no_grad():
        expected = model.run(images(16), model.keep_everything).logits
    got = engine.run(images(16), engine.keep_everything).logits
    torch.testing.assert_close(got, expected, atol=0.1 * float(expected.abs().max()), rtol=0)


def test_exported_files_decide_and_classify_as_the_model_does() -> None:
    model = three("both", width=16)
    settle(model)
    with torch.no_grad():
        expected = {threshold: model.run(images(16), model.greedy(threshold)) for threshold in (0.5, 0.9)}
    usual, strict = (model.decisions.executed(outcome.actions) for outcome in expected.values())
    assert torch.equal(strict[:-1], usual[:-1]), "a threshold moves the last network's decision alone"
    assert 0 < strict[-1, :, 0].sum() < usual[-1, :, 0].sum()
    assert len({tuple(bits) for bits in usual[-2:, :, 0].T.tolist()}) == 4, "every combination of networks"
    for layout in layouts_here(model.backbone):
        session = open_session(dynamic_model(model, layout))
        for index, image in enumerate(images(16).split(1)):
            for threshold, outcome in expected.items():
                inputs = {"image": image.numpy(), "threshold": np.array([[threshold]], np.float32)}
                logits, macs, decisions = map(torch.from_numpy, session.run(None, inputs))
                torch.testing.assert_close(logits[0], outcome.logits[index], atol=1e-3, rtol=1e-3)
                assert macs.item() == outcome.macs[index]
                assert torch.equal(decisions.float(), model.decisions.executed(outcome.actions)[:, index])
    dense = open_session(dense_model(model.backbone)).run(None, {"image": images(1).numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(dense), model.backbone(images(1)), atol=1e-4, rtol=1e-4)


def test_exported_gates_read_what_the_networks_before_spent() -> None:
    model = three()
    for layer in (cast(LNet, model.l_nets[-1]).keep, cast(LNet, model.l_nets[-1]).scale):
        layer.weight.data[:] = 0
    cast(LNet, model.l_nets[-1]).keep.weight.data[:, -2] = RAN
    cast(LNet, model.l_nets[-1]).scale.weight.data[:, -2] = -1
    balance(model, images(16))
    with torch.no_grad():
        expected = model.run(images(16), model.greedy())
    assert 0 < expected.actions[-1, :, 0].sum() < 16
    session = open_session(dynamic_model(model, layouts_here(model.backbone)[0]))
    for index, image in enumerate(images(16).split(1)):
        logits, _, decisions = map(torch.from_numpy, session.run(None, {"image": image.numpy()}))
        assert torch.equal(decisions.float(), expected.actions[:, index])
        torch.testing.assert_close(logits[0], expected.logits[index], atol=1e-3, rtol=1e-3)


def test_weights_of_a_network_that_sees_two_images_are_in_a_file_once() -> None:
    sizes = []
    for mirrored in (False, True):
        behind = BackboneSpec("resnet11-pool", 10, 16, mirrored=mirrored)
        model = lively("resnet8", "layers", second=behind)
        sizes.append(len(dynamic_model(model, layouts_here(model.backbone)[0]).SerializeToString()))
    assert sizes[1] < 1.02 * sizes[0]


def test_budgets_are_met_by_the_last_decision() -> None:
    model = three()
    settle(model)
    with torch.no_grad():
        usual = model.decisions.executed(model.run(images(16), model.greedy()).actions)
        strict = model.decisions.executed(model.run(images(16), model.greedy(0.9)).actions)
        model.shift_logits(-math.log(9))
        assert torch.equal(model.decisions.executed(model.run(images(16), model.greedy()).actions), strict)
    assert torch.equal(strict[:-1], usual[:-1])
    assert 0 < strict[-1, :, 0].sum() < usual[-1, :, 0].sum()


@pytest.mark.parametrize("engine", [False, True])
def test_only_images_that_keep_a_network_go_through_it(engine: bool) -> None:
    model = Engine(three()) if engine else three()
    seen: dict[int, list[int]] = {1: [], 2: []}
    for number, network in enumerate(model.backbone.networks[1:], start=1):
        network.stem.register_forward_hook(lambda module, inputs, output, n=number: seen[n].append(len(output)))
    actions = torch.ones(model.depth, 6, 1)
    actions[-2, [0, 2], 0] = 0
    actions[-1, [0, 1, 5], 0] = 0
    with torch.no_grad():
        model.run(images(6), replay(actions))
    assert seen == {1: [4], 2: [6]}, "the last one sees each image twice"


def test_networks_behind_keep_the_statistics_that_they_were_trained_with() -> None:
    model = three().train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    with torch.no_grad():
        model.run(images(20), model.keep_everything)
    changed = [name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert not any(name.startswith("second.") for name in changed)
    mine = {id(module) for part in (model.backbone.stem, model.backbone.blocks) for module in part.modules()}
    assert model.norms()
    assert all(id(norm) in mine for norm in model.norms())


def test_files_hold_all_networks(tmp_path: Path) -> None:
    model = three()
    save_model(model, tmp_path / "model.safetensors")
    save_backbone(model.backbone, tmp_path / "backbone.safetensors")
    loaded, backbone = load_model(tmp_path / "model.safetensors"), load_backbone(str(tmp_path / "backbone.safetensors"))
    assert loaded.spec == model.spec
    assert [network.mirrored for network in backbone.spec.networks] == [False, False, True]
    with torch.no_grad():
        assert torch.equal(loaded.run(images(2), loaded.greedy()).logits, model.run(images(2), model.greedy()).logits)
        assert torch.equal(backbone.eval()(images(2)), model.backbone(images(2)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="only a network behind another one sees mirror images"):
        build(BackboneSpec("resnet8", 10, 8, mirrored=True))
    with pytest.raises(UserError, match="10 and 7 classes apart"):
        build(BackboneSpec("resnet8", 10, 8, second=replace(BEHIND, classes=7)))


def test_networks_are_numbered_and_named() -> None:
    model = three()
    assert model.spec.backbone.title == "resnet8 + resnet8-8 + resnet11-pool-8 (mirrored)"
    process = Process("layers", Settings(dataset="shapes", split="val", model=model))
    process.begin(process.check_indices([0], 1))
    for bit in [1.0] * (model.depth - 2) + [0.0, 1.0]:
        process.step(np.array([[bit]]))
    lines = text(process, 0).splitlines()
    assert lines[model.depth - 1 : model.depth + 1] == ["network 2  skip", "network 3  [#]"]
