"""When is it faster to compute what was dropped? Timed on this machine, block by block, not guessed.

A chunk of images takes about ``fixed + images * each`` seconds, and where layers are narrow, a few filters take nearly
as long as all. Moving images out of the batch and back costs too.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcnet_rl.device import synchronize
from lcnet_rl.engine.packed import Chunk, PackedBlock, as_rows, count, take

REPEATS = 5


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
    """Per block, the residual with 1, 2, ... and all groups."""
    move: tuple[Line, ...]
    """Per block, taking images out of the batch and adding their residuals back."""
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
        lines = self.kept[block]
        total = sum(lines[chunk.groups.bit_count() - 1](chunk.images) for chunk in chunks)
        whole = chunks == [Chunk(self.everything[block], images)]
        return total if whole else total + self.move[block](count(chunks))


def measure(blocks: Sequence[PackedBlock], inputs: Sequence[Tensor]) -> Crossover:
    """Time every block.

    Args:
        blocks: the packed blocks.
        inputs: per block, a batch of inputs (B, C_in, H, W) of the largest size to expect; noise will do.
    """
    timed = [_block_lines(block, x) for block, x in zip(blocks, inputs, strict=True)]
    kept, move = zip(*timed, strict=True)
    return Crossover(kept, move, tuple(block.all for block in blocks))


def _block_lines(block: PackedBlock, x: Tensor) -> tuple[tuple[Line, ...], Line]:
    """The block with every number of groups, and moving its images out and back in."""
    filter_scale = torch.ones(len(x), block.block.filters, device=x.device)
    scale, rows = filter_scale[:, 0], torch.arange(len(x), device=x.device)
    beside = block.block.shortcut(x).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(beside)

    def run(groups: int, images: int) -> None:
        for start in range(0, images, block.most):
            here = slice(start, min(start + block.most, images))
            block.run(x[here], beside[here], (1 << groups) - 1, filter_scale[here], scale[here])

    def move(images: int) -> None:
        take(x, rows[:images])
        if beside is not x:
            take(beside, rows[:images])
        as_rows(out)[rows[:images]] = as_rows(beside[:images])

    lines = tuple(_line(functools.partial(run, groups), len(x), x.device) for groups in range(1, block.groups + 1))
    return lines, _line(move, len(x), x.device)


def _line(run: Callable[[int], object], most: int, device: torch.device) -> Line:
    """Fit ``Line`` to the times at one image and at ``most``."""
    one = _median(run, 1, device)
    if most == 1:
        return Line(one, 0.0)
    each = max(0.0, (_median(run, most, device) - one) / (most - 1))
    return Line(max(0.0, one - each), each)


def _median(run: Callable[[int], object], images: int, device: torch.device) -> float:
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        run(images)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
