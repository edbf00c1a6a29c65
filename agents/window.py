"""What a row of the training log says: means over the steps since the last one."""

from __future__ import annotations

from typing import Any


class Window:
    """Means of scalars since they were last asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, scalars: dict[str, float]) -> None:
        """Count in a step's."""
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def means(self) -> dict[str, float]:
        """Of the steps added, by name; then begin anew."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": self._sums, "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._sums, self._count = state["sums"], state["count"]
