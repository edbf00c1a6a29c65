"""An engine computes in the type that was asked for, and what was fastest when it was tuned."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import Convolutions, images, lively

from lcnet_rl.engine import Engine, crossover
from lcnet_rl.engine.crossover import Crossover, Line
from lcnet_rl.engine.packed import PackedBlock, take
from lcnet_rl.evaluate import replay


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_of_the_engines_type(dtype: torch.dtype) -> None:
    engine = Engine(lively(), dtype)
    state = engine.begin(images(3))
    kept = torch.tensor([[1.0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 1, 0]])
    seen = [state.features.dtype]
    for _ in range(engine.depth):
        state = engine.advance(state, kept)
        seen.append(state.features.dtype)
    assert seen == [dtype] * 4
    assert {state.pooled.dtype, engine.classify(state).dtype} == {torch.float32}, "gates and head stay float32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_convolution_computes_in_the_engines_type(dtype: torch.dtype) -> None:
    engine = Engine(lively("resnet11-pool", second="resnet11-pool"), dtype)
    everything = torch.ones(engine.depth, 2, engine.action_size)
    with torch.no_grad(), Convolutions() as convolutions:
        engine.run(images(2), replay(everything))
    # Of each of two networks the stem, three exits, and two in each of three blocks.
    assert convolutions.types == [dtype] * (2 * (1 + 3 + 3 * 2))


class Machine:
    """One on which a block takes ``takes(groups, images)`` seconds, moving an image an eighth, and all else none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: Callable[[int, int], float]) -> None:
        self.now = 0.0
        self.ran: list[tuple[int, int]] = []
        """Of every call of a block, its number of filter groups, and of images."""
        run = PackedBlock.run

        def timed(block: PackedBlock, x: torch.Tensor, beside: torch.Tensor, kept: int, *more: Any, **out: Any) -> Any:
            self.ran.append((kept.bit_count(), len(x)))
            self.now += takes(*self.ran[-1])
            return run(block, x, beside, kept, *more, **out)

        def moved(features: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
            self.now += len(taken := take(features, rows)) / 8
            return taken

        monkeypatch.setattr(PackedBlock, "run", timed)
        monkeypatch.setattr(crossover, "take", moved)
        monkeypatch.setattr(crossover, "time", SimpleNamespace(perf_counter=lambda: self.now))


def tuned(images: int) -> tuple[Engine, Crossover]:
    engine = Engine(lively())
    engine.tune(images)
    assert engine.crossover is not None
    return engine, engine.crossover


def test_tuning_finds_what_a_block_takes_to_start_and_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, lambda groups, images: 2.0 * groups + groups * images / 4)
    _, found = tuned(16)
    assert found.whole == (Line(8.0, 1.0),) * 3, "four groups, and no image is moved"
    for lines, moves in zip(found.kept, (1, 2, 2), strict=True):  # what a shortcut makes of an image is moved too
        assert lines == tuple(Line(2.0 * groups, groups / 4 + moves / 8) for groups in (1, 2, 3, 4))


def test_an_engine_tuned_for_single_images_takes_their_time_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, lambda groups, images: 2.0 * groups + groups * images / 4)
    _, found = tuned(1)
    assert found.whole == (Line(9.0, 0.0),) * 3


@pytest.mark.parametrize(
    ("takes", "planned"),
    [
        (lambda groups, images: groups * images, [(1, 1), (1, 1)]),
        (lambda groups, images: 64 + images, [(4, 2)]),
        (lambda groups, images: 64, [(4, 4)]),
    ],
    ids=["filters cost most", "starting costs most", "moving images costs most"],
)
def test_a_tuned_engine_runs_what_was_fastest_when_it_was_tuned(
    takes: Callable[[int, int], float], planned: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, takes)
    engine, _ = tuned(16)
    # Two of four images keep each block, and a filter group each, but not the same one.
    actions = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).expand(3, -1, -1)
    machine.ran.clear()
    engine.run(images(4), replay(actions))
    assert machine.ran == planned * 3
