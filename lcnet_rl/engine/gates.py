"""How an engine asks a block's gates: both about every image, or C-Net only about those whose L-Net keeps the block.

The second way computes what is billed. The first is one product in place of four, and mostly faster, as such small
products take less time than starting them does; ``tune`` times both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.device import no_autocast
from lcnet_rl.engine.crossover import median_seconds
from lcnet_rl.gates import Gate, relu1


class BlockGates:
    """L-Net and C-Net of a block, or one of them, with the standardising of their input folded into their weights."""

    def __init__(self, l_net: Gate | None, c_net: Gate | None) -> None:
        """Use the gates' weights as they are now."""
        self.l_net, self.c_net = l_net, c_net
        gates = [gate for gate in (l_net, c_net) if gate is not None]
        layers = [gate.keep for gate in gates] + [gate.scale for gate in gates]
        self._weight = torch.cat([layer.weight for layer in layers])
        self._bias = torch.cat([layer.bias for layer in layers])
        self._bits = sum(gate.keep.out_features for gate in gates)
        self.together = len(gates) == 1
        """Whether every gate is asked about every image, keep logits and scales at once."""
        self._answered: tuple[Tensor, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the gates' weights, put together."""
        return self._weight.nbytes + self._bias.nbytes

    def forget(self) -> None:
        """Let the last answer go, and what was asked about."""
        self._answered = None

    def tune(self, images: int) -> None:
        """Find out which way is faster for so many images, half of which keep the block."""
        if self.l_net is None or self.c_net is None:
            return
        generator, device = torch.Generator(self._weight.device).manual_seed(0), self._weight.device
        features = torch.randn(images, self._weight.shape[1], generator=generator, device=device)
        half = float(self.l_net.logits(features).median())

        def ask(count: int) -> None:
            seen = features[:count]
            self.scales(seen, self.decide(seen, half)[:, 0])

        def seconds(together: bool) -> float:
            self.together = together
            return median_seconds(ask, images, device)

        self.together = seconds(True) < seconds(False)

    def decide(self, features: Tensor, cut: float) -> Tensor:
        """The decisions (B, bits), 1 = keep, of keep logits above ``cut``; C-Net's are 0 where L-Net's is.

        Args:
            features: the gates' input (B, I).
            cut: a logit.
        """
        if self.together:
            bits = (self._answers(features)[:, : self._bits] > cut).float()
            if self.l_net is not None:
                bits[:, 1:] *= bits[:, :1]
            return bits
        assert self.l_net is not None
        assert self.c_net is not None
        bits = features.new_zeros(len(features), self._bits)
        bits[:, :1] = self.l_net.logits(features) > cut
        rows = bits[:, 0].nonzero()[:, 0]
        bits[rows, 1:] = (self.c_net.logits(features[rows]) > cut).float()
        return bits

    def scales(self, features: Tensor, keep: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """L-Net's scale (B,) and C-Net's (B, filters), which may be anything for images that skip the block.

        Args:
            features: the gates' input (B, I).
            keep: L-Net's bits (B,).
        """
        if self.together:
            scales = relu1(self._answers(features)[:, self._bits :])
            if self.l_net is None:
                return None, scales
            return scales[:, 0], None if self.c_net is None else scales[:, 1:]
        assert self.l_net is not None
        assert self.c_net is not None
        rows = keep.nonzero()[:, 0]
        filter_scale = features.new_zeros(len(features), self.c_net.scale.out_features)
        filter_scale[rows] = self.c_net.scales(features[rows])
        return self.l_net.scales(features)[:, 0], filter_scale

    def _answers(self, features: Tensor) -> Tensor:
        """Keep logits, then scales, of all gates; once, however often the same features are asked about."""
        known = self._answered  # read once: another thread may put its own there at any time
        if known is None or known[0] is not features:
            with no_autocast(features.device):
                self._answered = known = features, F.linear(features.float(), self._weight, self._bias)
        return known[1]
