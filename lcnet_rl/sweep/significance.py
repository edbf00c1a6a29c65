"""Whether two settings differ by more than their seeds do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import ttest_ind

from lcnet_rl.sweep.records import deviation


def welch(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Two-sided p-value of Welch's t-test that two samples have the same mean (Welch, 1947).

    It does not assume that both spread alike, but that seeds are independent and roughly normal.

    Returns:
        In [0, 1]; None where nothing can be said, with a single value on either side, or no spread on both.
    """
    if min(len(one), len(other)) < 2 or deviation(one) == deviation(other) == 0:
        return None
    p = float(ttest_ind(one, other, equal_var=False).pvalue)
    return None if math.isnan(p) else p
