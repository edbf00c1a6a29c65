"""When is it faster to compute what was dropped? Timed on this machine, block by block, not guessed.

A chunk of images takes about ``fixed + images * each`` seconds, and where layers are narrow, a few filters take nearly
as long as all. Moving images out of the batch and back costs too, and is part of what a chunk takes.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcnet_rl.backbones import pool
from lcnet_rl.device import synchronize
from lcnet_rl.engine.packed import Chunk, PackedBlock, as_rows, count, take

REPEATS = 3, 5
"""Fewest and most times that something is run; no more than the fewest when that took ``ENOUGH`` seconds."""
ENOUGH = 0.1
PART = 8
"""Times are fitted at a full batch and at a batch divided by this, the usual size of a chunk."""


@dataclass(frozen=True)
class Line:
    """Seconds as a function of the number of images."""

    fixed: float
    each: float

    def __call__(self, images: int) -> float:
        return self.fixed + self.each * images


@dataclass(frozen=True)
class Crossover:
    """What every block takes."""

    kept: tuple[tuple[Line, ...], ...]
    """Per block, taking images out of the batch, running them with 1, 2, ... and all groups, and putting them back."""
    whole: tuple[Line, ...]
    """Per block, running all images with all groups, where they are."""
    everything: tuple[int, ...]
    """Per block, the set of all groups."""

    def plan(self, block: int, chunks: list[Chunk], images: int) -> list[Chunk]:
        """The fastest of three ways: the chunks as they are; all filters for the images in them; all for all.

        Args:
            block: which block.
            chunks: what the decisions need; images in none of them skip the block.
            images: how many there are in all.
        """
        if not chunks:
            return chunks
        running = count(chunks)
        whole = self.everything[block]
        plans = [chunks, [Chunk(whole, running)], [Chunk(whole, images)]]
        return min(plans, key=lambda plan: self.seconds(block, plan, images))

    def seconds(self, block: int, chunks: list[Chunk], images: int) -> float:
        """What a plan should take."""
        if chunks == [Chunk(self.everything[block], images)]:
            return self.whole[block](images)
        return sum(self.kept[block][chunk.groups.bit_count() - 1](chunk.images) for chunk in chunks)


def measure(blocks: Sequence[PackedBlock], inputs: Sequence[Tensor]) -> Crossover:
    """Time every block.

    Args:
        blocks: the packed blocks.
        inputs: per block, a batch of inputs (B, C_in, H, W) of the largest size to expect; noise will do.
    """
    timed = [_block_lines(block, x) for block, x in zip(blocks, inputs, strict=True)]
    kept, whole = zip(*timed, strict=True)
    return Crossover(kept, whole, tuple(block.all for block in blocks))


def _block_lines(block: PackedBlock, x: Tensor) -> tuple[tuple[Line, ...], Line]:
    """The block with every number of groups for images that are moved, and with all groups for images that are not."""
    filter_scale = torch.ones(len(x), block.block.filters, device=x.device)
    scale, rows = filter_scale[:, 0], torch.arange(len(x), device=x.device)
    shortcut = block.block.shortcut(x).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(shortcut)

    def apart(groups: int, images: int) -> None:
        for here in rows[:images].split(block.most):
            part = take(x, here)
            beside = part if shortcut is x else take(shortcut, here)
            done = block.run(part, beside, (1 << groups) - 1, filter_scale[here], scale[here], out=beside)
            as_rows(out)[here] = as_rows(done)
            pool(done)

    def whole(images: int) -> None:
        for start in range(0, images, block.most):
            here = slice(start, min(start + block.most, images))
            pool(block.run(x[here], shortcut[here], block.all, filter_scale[here], scale[here], out=out[here]))

    kept = tuple(_line(functools.partial(apart, groups), len(x), x.device) for groups in range(1, block.groups + 1))
    return kept, _line(whole, len(x), x.device)


def _line(run: Callable[[int], object], most: int, device: torch.device) -> Line:
    """Fit ``Line`` to the times of ``most`` images and of a small part of them."""
    few = max(1, most // PART)
    seconds = median_seconds(run, few, device)
    if most == 1:
        return Line(seconds, 0.0)
    each = max(0.0, (median_seconds(run, most, device) - seconds) / (most - few))
    return Line(max(0.0, seconds - few * each), each)


def median_seconds(run: Callable[[int], object], images: int, device: torch.device) -> float:
    """What ``run`` takes for so many images, once it has run before."""
    least, most = REPEATS
    seconds: list[float] = []
    run(images)
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < ENOUGH):
        synchronize(device)
        began = time.perf_counter()
        run(images)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
