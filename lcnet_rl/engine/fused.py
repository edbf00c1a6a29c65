"""What has no gates, each 3x3 convolution in one pass with what follows it: stem, exits, networks behind the first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lcnet_rl.backbones import Backbone, Block, ConvPool, Stem
from lcnet_rl.engine.convolution import Convolution
from lcnet_rl.engine.fold import parameters


class ConvReLU(nn.Conv2d):
    """A 3x3 convolution of a ``folded`` backbone, and the ReLU after it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Use the weights of ``conv``."""
        super().__init__(conv.in_channels, conv.out_channels, 3, conv.stride[0], padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._convolution = Convolution(*parameters(conv), conv.stride[0])

    @property
    def copied(self) -> int:
        """Bytes of what oneDNN has made of the weights."""
        return self._convolution.copied

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W), channels last, to (B, C_out, H / stride, W / stride)."""
        return self._convolution.relu(input)


class FusedBlock(nn.Module):
    """A residual block without gates. It may write over its input."""

    def __init__(self, block: Block) -> None:
        """Use the weights of ``block``."""
        super().__init__()
        self.conv1, self.conv2 = ConvReLU(block.conv1), block.conv2
        self.shortcut, self.exit = block.shortcut, block.exit
        self._second = Convolution(*parameters(block.conv2), 1)

    @property
    def copied(self) -> int:
        """Bytes of what oneDNN has made of the second convolution's weights."""
        return self._second.copied

    def forward(self, x: Tensor, keep: None = None) -> Tensor:
        """(B, C_in, H, W), channels last, to the block's output."""
        beside = self.shortcut(x).contiguous(memory_format=torch.channels_last)
        return self.exit(self._second.add_relu_(beside, self.conv1(x)))


def fuse(backbone: Backbone) -> None:
    """Let a ``folded`` backbone, which has its final type and device, compute so, but for its own blocks' insides."""
    for part in (backbone.stem, backbone.stem.exit, *(block.exit for block in backbone.own_blocks)):
        if isinstance(part, Stem | ConvPool):
            part.conv, part.relu = ConvReLU(part.conv), nn.Identity()
    if backbone.second is not None:
        fuse(backbone.second)
        backbone.second.blocks = nn.ModuleList(map(FusedBlock, backbone.second.own_blocks))
