"""Random numbers that follow from a seed: which seeds there are, and what each step of a training draws."""

from __future__ import annotations

from enum import IntEnum

import torch

from lcnet_rl.errors import UserError


def check_seed(seed: int) -> None:
    """Raise UserError for a seed that not every library takes."""
    if not 0 <= seed < 2**32:
        raise UserError(f"a seed is in 0..{2**32 - 1}, got {seed}")


class Stream(IntEnum):
    """What a training step draws, each from random numbers of its own."""

    IMAGES = 0
    """Augmentation."""
    DECISIONS = 1
    PRICES = 2
    LAYERS = 3
    """Layers that dense training drops."""


def step_generator(
    seed: int, step: int, device: torch.device | str = "cpu", stream: Stream = Stream.IMAGES
) -> torch.Generator:
    """The random numbers of one training step; streams with different numbers have nothing in common.

    Every step's randomness follows from (seed, step) alone, so a resumed run draws what an uninterrupted one would
    have drawn, and a checkpoint's random state is its step. (On CPUs torch reads 32 bits of what it is seeded with.)
    """
    # Large odd strides keep the steps of neighbouring seeds and streams apart.
    mixed = seed * 0x9E3779B97F4A7C15 + stream * 0xC2B2AE3D27D4EB4F + step
    return torch.Generator(device=device).manual_seed(mixed % 2**63)
