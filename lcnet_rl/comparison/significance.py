"""Whether two settings differ by more than their seeds do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t

from lcnet_rl.comparison.records import deviation


def welch(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Two-sided p-value of Welch's t-test that two samples have the same mean (Welch, 1947).

    It does not assume that both spread alike, but that seeds are independent and roughly normal.

    Returns:
        In [0, 1]; None where nothing can be said, with a single value on either side, or no spread on both.
    """
    if min(len(one), len(other)) < 2:
        return None
    # By hand, as scipy's test warns where one side has no spread, though nothing is wrong with that.
    first, second = (deviation(values) ** 2 / len(values) for values in (one, other))
    if not first + second > 0:
        return None
    share = first / (first + second)
    freedom = 1 / (share**2 / (len(one) - 1) + (1 - share) ** 2 / (len(other) - 1))
    distance = abs(statistics.mean(one) - statistics.mean(other)) / math.sqrt(first + second)
    return float(2 * t.sf(distance, freedom))
