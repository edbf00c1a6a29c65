"""Layer policies of the rivals, in the place of L-Net: what decides in BlockDrop, SkipNet and ConvNet-AIG.

They decide about whole blocks only and scale nothing. Each is what its paper puts on a residual network, at the size
that such small networks bear; what was simplified is said in each. How they are trained is in ``agents/rivals``.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from lcnet_rl.backbones import Backbone, create_backbone
from lcnet_rl.device import no_autocast
from lcnet_rl.macs import dense_macs, linear_macs

PolicyName = Literal["lc", "blockdrop", "skipnet", "convnet-aig"]
"""``lc`` is L-Net and C-Net; the others are the rivals."""


class LayerPolicy(nn.Module):
    """Keep logits of blocks, and a memory that goes with each image from block to block. All in float32."""

    start_macs: int = 0
    """What ``begin`` costs an image, in MACs."""

    def begin(self, images: Tensor) -> Tensor:
        """The memory before the first block: uint8 images (B, 3, 32, 32) to (B, M)."""
        return torch.zeros(len(images), 0, device=images.device)

    def decide(self, block: int, pooled: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keep logit (B, 1) and next memory (B, M), from pooled features (B, C) and memory (B, M) before ``block``."""
        raise NotImplementedError

    def macs(self, block: int) -> int:
        """What ``decide`` costs an image at ``block``, in MACs."""
        return 0

    def shift(self, amount: float) -> None:
        """Add ``amount`` to all keep logits."""
        raise NotImplementedError


class OneShot(LayerPolicy):
    """BlockDrop's: a small network looks at the image once and decides about all blocks.

    Wu et al., "BlockDrop: Dynamic Inference Paths in Residual Networks", CVPR 2018, section 3. There it is a ResNet-8
    of width 16 (12.4 MMACs), a twentieth of the ResNet-110 that it decides about; here its width is 8 (3.2 MMACs), or
    half of the backbone's where that is less.
    """

    LARGEST_WIDTH = 8

    def __init__(self, backbone: Backbone, keep_bias: float) -> None:
        super().__init__()
        width = min(self.LARGEST_WIDTH, max(2, backbone.spec.width // 4 * 2))
        self.network = create_backbone("resnet8", len(backbone.blocks), width)
        nn.init.zeros_(self.network.head.weight)
        nn.init.constant_(self.network.head.bias, keep_bias)
        self.start_macs = dense_macs(self.network)

    def begin(self, images: Tensor) -> Tensor:
        """The keep logits of all blocks, (B, depth)."""
        with no_autocast(images.device):
            return self.network(images)

    def decide(self, block: int, pooled: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What was decided at the start."""
        return memory[:, block : block + 1], memory

    @torch.no_grad()
    def shift(self, amount: float) -> None:
        """Through the bias of the network's head."""
        self.network.head.bias.add_(amount)


class Recurrent(LayerPolicy):
    """SkipNet's: one LSTM goes along with the blocks and remembers.

    Wang et al., "SkipNet: Learning Dynamic Routing in Convolutional Networks", ECCV 2018, section 3: pooled features,
    a linear layer to 10 numbers for each block, an LSTM with 10 units and an output layer that all blocks share.
    """

    UNITS = 10

    def __init__(self, backbone: Backbone, keep_bias: float) -> None:
        super().__init__()
        self.channels = [block.in_channels for block in backbone.own_blocks]
        self.project = nn.ModuleList(nn.Linear(channels, self.UNITS) for channels in self.channels)
        self.lstm = nn.LSTMCell(self.UNITS, self.UNITS)
        self.out = nn.Linear(self.UNITS, 1)
        nn.init.constant_(self.out.bias, keep_bias)

    def begin(self, images: Tensor) -> Tensor:
        """An empty memory: hidden and cell state, (B, 20)."""
        return torch.zeros(len(images), 2 * self.UNITS, device=images.device)

    def decide(self, block: int, pooled: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the LSTM."""
        with no_autocast(pooled.device):
            x = self.project[block](pooled.float())
            hidden, cell = self.lstm(x, memory.split(self.UNITS, 1))
            return self.out(hidden), torch.cat((hidden, cell), 1)

    def macs(self, block: int) -> int:
        """Projection, the LSTM's four gates and the output."""
        return (self.channels[block] + 4 * 2 * self.UNITS + 1) * self.UNITS

    @torch.no_grad()
    def shift(self, amount: float) -> None:
        """Through the shared bias."""
        self.out.bias.add_(amount)


class TwoLayer(LayerPolicy):
    """ConvNet-AIG's: each block has a gate of its own with a hidden layer.

    Veit and Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV 2018, section 3: pooled features,
    16 hidden units, two outputs of which the larger wins. Simplified: one logit for their difference, and no BatchNorm
    in the gate.
    """

    UNITS = 16

    def __init__(self, backbone: Backbone, keep_bias: float) -> None:
        super().__init__()
        gates = []
        for block in backbone.own_blocks:
            out = nn.Linear(self.UNITS, 1)
            nn.init.constant_(out.bias, keep_bias)
            gates.append(nn.Sequential(nn.Linear(block.in_channels, self.UNITS), nn.ReLU(), out))
        self.gates = nn.ModuleList(gates)

    def decide(self, block: int, pooled: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What the block's gate says."""
        with no_autocast(pooled.device):
            return self.gates[block](pooled.float()), memory

    def macs(self, block: int) -> int:
        """Both linear layers."""
        return linear_macs(self.gates[block])

    @torch.no_grad()
    def shift(self, amount: float) -> None:
        """Through each gate's last bias."""
        for gate in self.gates:
            cast(nn.Linear, cast(nn.Sequential, gate)[-1]).bias.add_(amount)


LAYER_POLICIES: dict[str, type[LayerPolicy]] = {"blockdrop": OneShot, "skipnet": Recurrent, "convnet-aig": TwoLayer}
