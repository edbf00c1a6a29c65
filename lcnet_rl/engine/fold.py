"""BatchNorm folded into the convolutions before it, as every deployed network has it."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lcnet_rl.backbones import Backbone, ConvPool


def folded(backbone: Backbone) -> Backbone:
    """A copy of ``backbone``, in eval mode, whose convolutions have biases and whose BatchNorms do nothing.

    The same function as the original's in eval mode, up to float32 rounding.
    """
    result = copy.deepcopy(backbone).eval()
    if result.second is not None:
        result.second = folded(result.second)
    stem = result.stem
    stem.conv, stem.bn = _fused(stem.conv, stem.bn), nn.Identity()
    for module in (stem.exit, *(block.exit for block in result.own_blocks)):
        if isinstance(module, ConvPool):
            module.conv, module.bn = _fused(module.conv, module.bn), nn.Identity()
    for block in result.own_blocks:
        block.conv1, block.bn1 = _fused(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = _fused(block.conv2, block.bn2), nn.Identity()
        if isinstance(block.shortcut, nn.Sequential):
            block.shortcut = _fused(*block.shortcut)
    return result


def set_type(backbone: Backbone, dtype: torch.dtype) -> None:
    """Let all convolutions of a ``folded`` backbone compute in ``dtype``; normalisation and head stay float32."""
    for network in backbone.networks:
        for part in (network.stem.conv, network.stem.exit, network.blocks):
            part.to(dtype)


def parameters(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution of a ``folded`` backbone."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None, "BatchNorm has to be folded"
    return conv.weight, conv.bias


def _fused(conv: nn.Module, bn: nn.Module) -> nn.Conv2d:
    return fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, bn))
