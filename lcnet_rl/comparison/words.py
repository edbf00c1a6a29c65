"""Words for settings, networks and runs, the same in every table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lcnet_rl.comparison.records import Record, network_count
from lcnet_rl.progress import warn
from lcnet_rl.whole import whole


def short(name: str, among: Iterable[str]) -> str:
    """A setting's name, without the table that it is in where no other one among those shown is called so."""
    last = name.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in among].count(last) == 1 else name


def worded(value: Any) -> str:
    """A setting's value, floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def nothing_skipped(record: Record) -> str:
    """What a record's network is with nothing skipped; how many networks these are, old evaluations do not say."""
    return whole(network_count(record.summary["backbone"]), record.summary.get("pruned", False))


def print_left_out(names: Sequence[str]) -> None:
    """Say which runs do not count, if there are any."""
    if names:
        warn(
            f"left out, as a later one has the same settings and seed: {', '.join(names)}",
        )
