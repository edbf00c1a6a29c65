"""When a trial is hopeless. Optuna prunes studies with one objective only, so the rule is the project's own.

At a validation, a trial is stopped if it is worse than the median of the completed trials in EVERY objective, each of
them judged by its last validation at the same share of its training or before. With accuracy and MACs as objectives,
a trial that is less accurate but cheaper goes on, and so does one that is dearer but more accurate. (With one
objective this is Optuna's median rule, after Golovin et al., 2017, "Google Vizier".)
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lcnet_rl.errors import UserError

Validation = Sequence[float]
"""Share of the training that was done, then the objectives, greater is better."""
TOLERANCE = 1e-6
"""Validations this close count as at the same share."""


@dataclass(frozen=True)
class Pruning:
    """Stops trials that are worse than the median in every objective."""

    enabled: bool = True
    """Whether hopeless trials are stopped."""
    startup: int = 5
    """Completed trials to compare with, at least."""
    after: float = 0.3
    """Share of its training that every trial gets; before, prices ramp up and figures say little."""

    def __post_init__(self) -> None:
        if self.startup < 1:
            raise UserError(f"startup must be at least 1, got {self.startup}")
        if not 0 <= self.after <= 1:
            raise UserError(f"after is a share of the training in [0, 1], got {self.after}")

    def hopeless(self, validation: Validation, completed: Sequence[Sequence[Validation]]) -> bool:
        """Whether a trial with this latest validation is to be stopped.

        Args:
            validation: the trial's latest.
            completed: all validations of each completed trial, in order.
        """
        done, *values = validation
        if not self.enabled or done < self.after or done >= 1:
            return False
        earlier = [[v for v in trial if v[0] <= done + TOLERANCE] for trial in completed]
        others = [trial[-1][1:] for trial in earlier if trial]
        if len(others) < self.startup:
            return False
        medians = [statistics.median(column) for column in zip(*others, strict=True)]
        return all(value < median for value, median in zip(values, medians, strict=True))
