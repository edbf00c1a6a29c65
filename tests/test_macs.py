"""Bills: hand counts on a tiny model, limits, and torch's own count of the gates."""

from __future__ import annotations

import pytest
import torch
from test_backbones import noise, tiny_backbone
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lcnet_rl.macs import convolution_macs, linear_macs
from lcnet_rl.model import LCNet
from lcnet_rl.spec import Decides

COMBINATIONS: list[tuple[Decides, int]] = [("layers", 2), ("channels", 2), ("channels", 0), ("both", 2), ("both", 0)]


def total(model: LCNet, actions: Tensor) -> int:
    """The bill of one image under ``actions`` (depth, action_size)."""
    blocks = sum(model.decisions.bill(actions[t][None], t) for t in range(model.depth))
    return int(model.costs.stem + blocks + model.costs.head)


def test_a_convolution_and_a_linear_layer_cost_their_multiplications() -> None:
    assert convolution_macs(nn.Conv2d(3, 8, 3), 10) == 3 * 8 * 9 * 10 * 10
    assert convolution_macs(nn.Conv2d(4, 8, (1, 3), groups=2), 5) == 2 * 8 * 3 * 25
    assert linear_macs(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))) == 12 + 20


def test_a_bill_equals_a_hand_count() -> None:
    # resnet8, width 4, 4 classes, 2 groups: blocks 4 -> 4 at 32x32, 4 -> 8 at 16x16, 8 -> 16 at 8x8.
    model = LCNet(tiny_backbone(), "both", 2)
    stem = 3 * 4 * 9 * 1024
    head = 16 * 4
    assert (model.costs.stem, model.costs.head) == (stem, head) == (110_592, 64)

    # A gate reads the block's channels and 4 numbers more; each has a keep and a scale layer.
    # The probe reads the channels and has 4 classes.
    first_probe_and_l_net, first_c_net = 4 * 4 + 8 * (1 + 1), 8 * (2 + 4)
    second_probe_and_l_net = 4 * 4 + 8 * (1 + 1)
    third_probe_and_l_net, third_c_net = 8 * 4 + 12 * (1 + 1), 12 * (2 + 16)

    # One of two groups kept: 2 of 4 filters, each 4 -> 1 in the first convolution and 1 -> 4 in the second.
    first = first_probe_and_l_net + first_c_net + 2 * (4 * 9 * 1024 + 4 * 9 * 1024)
    second = second_probe_and_l_net  # dropped, and its shortcut has no convolution
    third = third_probe_and_l_net + third_c_net + 8 * 16 * 9 * 64 + 16 * 16 * 9 * 64
    actions = torch.tensor([[1.0, 0, 1], [0, 1, 1], [1, 1, 1]])
    assert total(model, actions) == stem + first + second + third + head == 479_680


def test_without_confidence_no_probe_is_billed_and_gates_read_two_numbers_less() -> None:
    model = LCNet(tiny_backbone(), "both", 2, confidence=False)
    l_net, c_net, filters = 6 * (1 + 1), 6 * (2 + 4), 2 * (4 * 9 * 1024 + 4 * 9 * 1024)
    assert model.decisions.bill(torch.tensor([[0.0, 0, 0]]), 0).item() == l_net
    assert model.decisions.bill(torch.tensor([[1.0, 0, 1]]), 0).item() == l_net + c_net + filters
    assert LCNet(tiny_backbone(), "channels", 2, confidence=False).costs.blocks[0].always == 0
    assert model.costs.dense == LCNet(tiny_backbone(), "both", 2).costs.dense


def test_a_projection_is_billed_whether_or_not_the_block_runs() -> None:
    model = LCNet(tiny_backbone("resnet18"), "layers")
    # Third block: 4 -> 8 channels, 32x32 -> 16x16, with a 1x1 projection.
    gates = 4 * 4 + 8 * 2
    projection = 4 * 8 * 16 * 16
    convolutions = 4 * 8 * 9 * 256 + 8 * 8 * 9 * 256
    assert model.decisions.bill(torch.zeros(1, 1), 2).item() == projection + gates
    assert model.decisions.bill(torch.ones(1, 1), 2).item() == projection + gates + convolutions


def test_deciding_layers_only_bills_whole_blocks_and_no_c_net() -> None:
    model = LCNet(tiny_backbone(), "layers")
    gates = 4 * 4 + 8 * 2
    assert model.decisions.bill(torch.ones(1, 1), 0).item() == gates + 2 * 4 * 4 * 9 * 1024
    assert model.decisions.bill(torch.zeros(1, 1), 0).item() == gates


def test_deciding_channels_only_always_bills_the_c_net() -> None:
    model = LCNet(tiny_backbone(), "channels", 2)
    probe, c_net = 4 * 4, 8 * (2 + 4)
    assert model.decisions.bill(torch.tensor([[0.0, 0]]), 0).item() == probe + c_net
    assert model.decisions.bill(torch.tensor([[0.0, 1]]), 0).item() == probe + c_net + 2 * (2 * 4 * 9 * 1024)


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet18"])
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
@pytest.mark.parametrize("confidence", [True, False])
def test_keeping_all_costs_the_ceiling_and_dropping_all_the_floor(
    decides: Decides, groups: int, confidence: bool, name: str
) -> None:
    model = LCNet(tiny_backbone(name), decides, groups, confidence=confidence)
    costs, shape = model.costs, (model.depth, model.action_size)
    assert total(model, torch.ones(shape)) == costs.ceiling == costs.dense + costs.gates
    assert total(model, torch.zeros(shape)) == costs.floor


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
@pytest.mark.parametrize(("decides", "groups"), COMBINATIONS)
@pytest.mark.parametrize("confidence", [True, False])
def test_the_gates_cost_what_torch_counts(decides: Decides, groups: int, confidence: bool, name: str) -> None:
    model = LCNet(tiny_backbone(name), decides, groups, confidence=confidence)
    with torch.no_grad():
        state = model.begin(noise(1))
        for t in range(model.depth):
            observation = model.observe(state)
            with FlopCounterMode(display=False) as always:
                features = observation.gate_input
                if model.decisions.has_l_net:
                    model.l_nets[t].logits(features)
                    model.l_nets[t].scales(features)
            with FlopCounterMode(display=False) as if_kept:
                if model.decisions.has_c_net:
                    model.c_nets[t].logits(features)
                    model.c_nets[t].scales(features)
            assert model.costs.blocks[t].always * 2 == always.get_total_flops()
            assert model.costs.blocks[t].if_kept * 2 == if_kept.get_total_flops()
            state = model.advance(state, torch.ones(1, model.action_size))
