"""Where the engine's time on the CPU goes, block by block."""

from __future__ import annotations

import os
from collections import defaultdict

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function
from torch.autograd.profiler_util import FunctionEvent

from lcnet_rl.decisions import decision_names
from lcnet_rl.engine import Engine
from lcnet_rl.progress import console
from lcnet_rl.tables import table_of

KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "gathers": ("index", "take", "copy", "clone", "nonzero", "cat"),
    "gates": ("addmm", "softmax", "sigmoid", "linear"),
    "planning": ("block ",),
}
"""What a kind's operators have in their names (``planning`` is Python's own time); all others are elementwise work and
pooling, ``rest``."""
RUNS = 3


@torch.no_grad()
def profile_engine(engine: Engine, images: Tensor) -> list[dict[str, float]]:
    """Milliseconds of CPU time a batch in each block, by kind of work.

    Args:
        engine: the engine, under its own policy.
        images: uint8 (B, 3, 32, 32).

    Returns:
        For each block ``convolutions``, ``gathers``, ``gates``, ``planning`` and ``rest``.
    """
    decide = engine.greedy()
    engine.run(images, decide)
    # Kineto would tell when it begins and ends, and of an error where a build for GPUs finds none; it asks this once.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile() as session:
        for _ in range(RUNS):
            state = engine.begin(images)
            for t in range(engine.depth):
                with record_function(f"block {t}"):
                    state = engine.consume(state, decide(engine.observe(state)))
    found: list[dict[str, float]] = [defaultdict(float) for _ in range(engine.depth)]
    for event in session.function_events:
        block = _block(event)
        if block is not None:
            found[block][kind(event.name)] += event.self_cpu_time_total / 1000 / RUNS
    return [{name: row[name] for name in (*KINDS, "rest")} for row in found]


def kind(operator: str) -> str:
    """The kind of work that an operator is."""
    return next((name for name, parts in KINDS.items() if any(part in operator for part in parts)), "rest")


def print_profile(rows: list[dict[str, float]], precision: str, images: int, networks: int) -> None:
    """The shares of the time of every block, and of every network behind the first of so many ``networks``."""
    title = f"engine, {precision}, {images} images: share of each block's CPU time"
    table = table_of(title, [], ["block", "ms", *rows[0]])
    for name, row in zip(decision_names(len(rows), networks), rows, strict=True):
        total = sum(row.values())
        table.add_row(name, f"{total:.1f}", *(f"{part / max(total, 1e-9):.0%}" for part in row.values()))
    console.print(table)


def _block(event: FunctionEvent) -> int | None:
    """The block in which an operator ran; None for what is outside."""
    parent: FunctionEvent | None = event
    while parent is not None:
        if parent.name.startswith("block "):
            return int(parent.name.removeprefix("block "))
        parent = parent.cpu_parent
    return None
