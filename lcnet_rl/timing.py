"""Comparing times fairly: two things in one run, alternating, and the ratio of their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Seconds of alternating trials of two things."""

    this: list[float]
    other: list[float]

    @property
    def ratio(self) -> float:
        """Median of ``this`` over median of ``other``."""
        return statistics.median(self.this) / statistics.median(self.other)

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """Quartiles of the ratio pair by pair: how far to trust the ratio."""
        low, _, high = statistics.quantiles([a / b for a, b in zip(self.this, self.other, strict=True)], n=4)
        return low, high


def compare(this: Callable[[], object], other: Callable[[], object], trials: int, warmup: int = 2) -> Comparison:
    """Time two things in turn, A B B A A B ..., so that a drifting machine slows both alike.

    Args:
        this: the numerator of the ratio.
        other: the denominator.
        trials: counted trials of each, at least 2.
        warmup: uncounted trials of each, first.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for trial in range(warmup + trials):
        order = (0, 1) if trial % 2 else (1, 0)
        for which in order:
            began = time.perf_counter()
            (this, other)[which]()
            if trial >= warmup:
                seconds[which].append(time.perf_counter() - began)
    return Comparison(*seconds)
