"""Random crops, flips and cutouts of a whole batch at once, on whatever device it lives.

Crops: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2: pad by 4, crop, flip. Padding is
by reflection, as in cifar10-airbench (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498),
which leaves no black borders. Alternating flips are from there, too. Cutout: DeVries and Taylor, "Improved
Regularization of Convolutional Neural Networks with Cutout", arXiv 1708.04552.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lcnet_rl.data.dataset import SIZE
from lcnet_rl.errors import UserError
from lcnet_rl.settings import check_choices

MEAN_PIXEL = (124, 116, 104)
"""ImageNet's mean, which a backbone normalises to zero: what a cutout leaves."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied."""

    padding: int = 4
    """Largest shift in pixels, both ways."""
    flips: Literal["random", "alternating", "none"] = "random"
    """Mirror half of the images, drawn anew each time; or each image in every second epoch: two epochs show both; or
    none, where left and right mean something, as in digits."""
    cutout: int = 0
    """Side of a square that is blanked out at a random place; 0 for none."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not (0 <= self.padding < SIZE and 0 <= self.cutout < SIZE):
            raise UserError(f"padding and cutout are pixels from 0 to {SIZE - 1}, got {self.padding} and {self.cutout}")


def augment(
    images: Tensor,
    generator: torch.Generator | None,
    padding: int = 4,
    flips: Tensor | None = None,
    cutout: int = 0,
) -> Tensor:
    """Shift each image by up to ``padding`` pixels both ways, mirroring at its borders; flip; blank a square out.

    Every image draws its own shift, flip and square, uniformly over the (2 * padding + 1)^2 shifts and all centres.

    Args:
        images: shape (B, C, H, W), any type (uint8 in training), padding < H and W.
        generator: source of randomness, on any device (one on the CPU gives the same crops wherever the
            images are). None uses torch's global one for the CPU.
        padding: largest shift in pixels.
        flips: shape (B,), bool: which images to mirror; half of them, drawn, when None.
        cutout: side of the blanked square, which may stick out over the border; 0 for none.

    Returns:
        Shape (B, C, H, W), same type and device; a new tensor.
    """
    count, channels, height, width = images.shape
    source = torch.device("cpu") if generator is None else generator.device
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator, device=source)
    if flips is None:
        flips = torch.rand(count, generator=generator, device=source) < 0.5
    rows = _mirror(torch.arange(height, device=source) + shifts[0], height)
    columns = _mirror(torch.arange(width, device=source) + shifts[1], width)
    columns = torch.where(flips.to(source)[:, None], columns.flip(1), columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].to(images.device)
    images = images.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view_as(images)
    if cutout:
        centres = torch.rand(2, count, 1, generator=generator, device=source)
        blanked = _span(centres[0], height, cutout)[:, :, None] & _span(centres[1], width, cutout)[:, None, :]
        mean = torch.tensor(MEAN_PIXEL, device=images.device).to(images.dtype)[:, None, None]
        images = torch.where(blanked[:, None].to(images.device), mean, images)
    return images


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices beyond 0 ... size - 1 reflected inwards, the border pixel itself not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def _span(centre: Tensor, size: int, length: int) -> Tensor:
    """Which of ``size`` pixels (B, size) are within ``length`` around ``centre`` (B, 1), a share of the size."""
    first = (centre * size).long() - length // 2
    pixel = torch.arange(size, device=centre.device)
    return (pixel >= first) & (pixel < first + length)
