"""Comparing times fairly: everything in one run, in turn, and ratios of medians."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
"""Times that trials are drawn again for an interval."""
LEAST = 6
"""Counted trials that a race has, however long they take."""


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
    def mean_ratio(self) -> float:
        """Mean of ``this`` over mean of ``other``: what many trials take, where a median leaves out the long ones."""
        return statistics.mean(self.this) / statistics.mean(self.other)

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """Quartiles of the ratio pair by pair: how much single trials differ, not how far to trust ``ratio``."""
        ratios = [a / b for a, b in zip(self.this, self.other, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, high

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """95 % interval of ``ratio``: the percentile bootstrap, of trials drawn again (seeded), both sides together."""
        count = len(self.this)
        drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
        this, other = (np.median(np.array(seconds)[drawn], 1) for seconds in (self.this, self.other))
        low, high = np.quantile(this / other, (0.025, 0.975)).tolist()
        return low, high


def race(
    contestants: Mapping[str, Callable[[int], object]],
    trials: int,
    warmup: int = 2,
    settle: int = 0,
    repeat: int = 1,
    each: Callable[[], object] = lambda: None,
    seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Time things in turn, so that a drifting machine slows all alike; in another order every time (seeded), so that
    none profits from who ran before it.

    Args:
        contestants: by name; each is called with the trial's number, negative in uncounted ones.
        trials: counted trials of each, at least 2.
        warmup: uncounted trials of each, first.
        settle: uncounted calls at the start of each trial, after which caches and threads are those of who is timed.
        repeat: calls that are timed together.
        each: called after each counted trial of all contestants, where no clock runs.
        seconds: that counted trials may take; on a machine on which all would take longer there are fewer, but
            ``LEAST`` at least (or ``trials``, if these are fewer), and an even number, as two decisions may be taken
            in turn.

    Returns:
        Seconds a call in every trial, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names, order, started = list(contestants), random.Random(0), math.inf
    for trial in range(-warmup, trials):
        started = time.perf_counter() if trial == 0 else started
        if trial >= LEAST and trial % 2 == 0 and time.perf_counter() - started > seconds:
            break
        for name in order.sample(names, len(names)):
            for _ in range(settle):
                contestants[name](trial)
            began = time.perf_counter()
            for _ in range(repeat):
                contestants[name](trial)
            elapsed = (time.perf_counter() - began) / repeat
            if trial >= 0:
                times[name].append(elapsed)
        if trial >= 0:
            each()
    return times


def compare(
    this: Callable[[], object], other: Callable[[], object], trials: int, each: Callable[[], object] = lambda: None
) -> Comparison:
    """``race`` of two: ``this`` is the numerator of the ratio, ``other`` the denominator."""
    return Comparison(*race({"this": lambda _: this(), "other": lambda _: other()}, trials, each=each).values())
