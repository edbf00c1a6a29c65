"""What one block computes: kept filters as the formula says, dropped ones not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_model import before_block, tiny_lcnet, undecided_lcnet
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl.backbones import Block
from lcnet_rl.spec import Decides


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_a_block_follows_the_formula(name: str) -> None:
    model = tiny_lcnet("both", 2, name)
    for t in range(model.depth):
        block, state = model.backbone.blocks[t], before_block(model, t)
        model.l_nets[t].scale.bias.fill_(0.5)
        model.c_nets[t].scale.bias.copy_(torch.linspace(0.1, 0.9, block.filters))
        x, half = state.features, block.filters // 2
        for keep, first, second in [(1, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, 1)]:
            mask = torch.tensor([first] * half + [second] * half)
            hidden = block.bn1(F.conv2d(x, block.conv1.weight, stride=block.stride, padding=1)).relu()
            hidden = hidden * (mask * torch.linspace(0.1, 0.9, block.filters))[:, None, None]
            residual = block.bn2(F.conv2d(hidden, block.conv2.weight, padding=1))
            expected = (block.shortcut(x) + keep * 0.5 * residual).relu()
            action = torch.tensor([[keep, first, second]]).float().expand(len(x), -1)
            torch.testing.assert_close(model.advance(state, action).features, expected, rtol=1e-5, atol=1e-5)
        model.l_nets[t].scale.bias.fill_(1)
        model.c_nets[t].scale.bias.fill_(1)


@torch.no_grad()
def test_dropped_filters_contribute_exactly_zero() -> None:
    model = tiny_lcnet("channels", 0)
    for t in range(model.depth):
        block, state = model.backbone.blocks[t], before_block(model, t)
        action = torch.ones(3, model.action_size)
        action[:, [0, 2]] = 0
        before = model.advance(state, action).features
        for dropped in (0, 2):
            block.conv1.weight[dropped] = 1e3 * torch.randn_like(block.conv1.weight[dropped])
            block.bn1.bias[dropped] = 1e3
            block.conv2.weight[:, dropped] = 1e3 * torch.randn_like(block.conv2.weight[:, dropped])
        assert torch.equal(model.advance(state, action).features, before)
        assert not torch.equal(model.advance(state, torch.ones_like(action)).features, before)


def smaller(block: Block, kept: list[int]) -> Callable[[Tensor], Tensor]:
    """The residual function of a block that never had the other filters."""
    conv1 = nn.Conv2d(block.in_channels, len(kept), 3, block.stride, 1, bias=False)
    bn1, conv2 = nn.BatchNorm2d(len(kept)).eval(), nn.Conv2d(len(kept), block.out_channels, 3, padding=1, bias=False)
    conv1.load_state_dict({"weight": block.conv1.weight[kept]})
    bn1.load_state_dict({key: t[kept] if t.ndim else t for key, t in block.bn1.state_dict().items()})
    conv2.load_state_dict({"weight": block.conv2.weight[:, kept]})
    return lambda x: block.bn2(conv2(bn1(conv1(x)).relu()))


@torch.no_grad()
@pytest.mark.parametrize("kept", [[1], [0, 3], [0, 1, 2]])
@pytest.mark.parametrize("t", [0, 1])
def test_a_block_with_dropped_filters_equals_a_physically_smaller_one(t: int, kept: list[int]) -> None:
    model = tiny_lcnet("both", 0)
    block, state = model.backbone.blocks[t], before_block(model, t)
    action = torch.zeros(3, model.action_size)
    action[:, [0, *(1 + filter for filter in kept)]] = 1
    expected = (block.shortcut(state.features) + smaller(block, kept)(state.features)).relu()
    torch.testing.assert_close(model.advance(state, action).features, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_a_dropped_block_leaves_its_shortcut(name: str) -> None:
    model = undecided_lcnet("both", 2, name)
    for t in range(model.depth):
        state = before_block(model, t)
        action = torch.tensor([[0.0, 1, 1]]).expand(3, -1)
        expected = model.backbone.blocks[t].shortcut(state.features).relu()
        assert torch.equal(model.advance(state, action).features, expected)


@torch.no_grad()
@pytest.mark.parametrize(("decides", "groups"), [("both", 2), ("both", 0), ("channels", 2), ("channels", 0)])
def test_a_block_without_a_filter_counts_as_skipped(decides: Decides, groups: int) -> None:
    model = tiny_lcnet(decides, groups)
    for t in range(model.depth):
        state = before_block(model, t)
        action = torch.zeros(3, model.action_size)
        action[:, 0] = float(model.decisions.has_l_net)
        block = model.backbone.blocks[t]
        assert torch.equal(model.advance(state, action).features, block.shortcut(state.features).relu())
        # BatchNorm's shift alone would have moved the features.
        assert not torch.equal(block.forward(state.features), block.shortcut(state.features).relu())
        ran, shares = model.decisions.kept(action[None].expand(model.depth, -1, -1))
        assert not ran.any()
        assert not shares.any()
