"""Random crops and flips of a whole batch at once, on whatever device it lives.

He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2: pad by 4, crop, flip. Padding is
by reflection, as in cifar10-airbench (Jordan, 2024), which leaves no black borders.
"""

from __future__ import annotations

import torch
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator | None, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels both ways, mirroring at its borders; flip half of them.

    Every image draws its own shift and flip, uniformly over the (2 * padding + 1)^2 shifts.

    Args:
        images: shape (B, C, H, W), any type (uint8 in training), padding < H and W.
        generator: source of randomness, on any device (one on the CPU gives the same crops wherever the
            images are). None uses torch's global one for the CPU.
        padding: largest shift in pixels.

    Returns:
        Shape (B, C, H, W), same type and device; a new tensor.
    """
    count, channels, height, width = images.shape
    source = torch.device("cpu") if generator is None else generator.device
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator, device=source)
    flips = torch.rand(count, 1, generator=generator, device=source) < 0.5
    rows = _mirror(torch.arange(height, device=source) + shifts[0], height)
    columns = _mirror(torch.arange(width, device=source) + shifts[1], width)
    columns = torch.where(flips, columns.flip(1), columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].to(images.device)
    return images.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view_as(images)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices beyond 0 ... size - 1 reflected inwards, the border pixel itself not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
