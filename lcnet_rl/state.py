"""A batch of images on their way through an LCNet, and at the end of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class State:
    """A batch of images on their way through the network, before block ``block``."""

    features: Tensor
    """(B, C, H, W), the block's input."""
    pooled: Tensor
    """(B, C), its global average, float32."""
    block: int
    spent: Tensor
    """(B,), MACs billed so far, float64 (exact up to 2^53)."""
    price: Tensor
    """(B,), reward lost by spending the dense model's MACs once."""
    memory: Tensor | None = None
    """(B, M), what a rival's policy has noted about each image; None for L-Net and C-Net."""
    images: Tensor | None = None
    """(B, 3, 32, 32), uint8, where networks behind the first one still may want them."""
    excess: int = 0
    """MACs that an engine spent so far, all images together, on what was dropped, because that was faster."""


@dataclass(frozen=True)
class Outcome:
    """A batch of images classified."""

    logits: Tensor
    """(B, classes)."""
    actions: Tensor
    """(depth, B, action_size), as decided."""
    macs: Tensor
    """(B,), the bill, gates included, float64."""
    excess: int = 0
    """MACs that an engine spent beyond the bill, all images together."""
