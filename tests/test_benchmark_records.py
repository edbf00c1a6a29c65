"""What a benchmark's record and its printed tables say of the times that were taken."""

from __future__ import annotations

import io
import random
import re
from typing import Any

import pytest
from rich.console import Console

from lcnet_rl import progress
from lcnet_rl.benchmark import record
from lcnet_rl.benchmark.contestants import Contestant
from lcnet_rl.benchmark.record import case, figures, print_cases, print_contestants


def contestant(name: str, dense: bool = False) -> Contestant:
    return Contestant(name, lambda _: None, "PyTorch", dense, warmup=7.0, megabytes=0.5)


def shuffled(*seconds: float) -> list[float]:
    return random.Random(0).sample(seconds, len(seconds))


def test_figures_are_the_median_the_quartiles_and_the_95th_percentile_of_the_trials() -> None:
    row = figures(contestant("engine"), shuffled(*range(1, 21), 1000), 44)
    assert row == {
        "name": "engine",
        "batch": 44,
        "trials": 21,
        "median_ms": 11_000,
        "quartiles_ms": [6000, 16_000],
        "calls_per_trial": 1,
        "p95_ms": 20_000,
        "images_per_second": 4,
        "warmup_s": 7.0,
        "megabytes": 0.5,
    }


def test_where_a_trial_is_several_calls_the_slowest_of_them_are_not_known(terminal: io.StringIO) -> None:
    row = figures(contestant("engine"), shuffled(*range(1, 21)), 1, calls=5)
    assert (row["calls_per_trial"], row["p95_ms"]) == (5, None)
    print_contestants([row])
    assert re.search(r"engine *│ *1 │ *10500.00 │ *│", terminal.getvalue())


def test_a_case_has_the_quartiles_of_both_sides() -> None:
    times = {"engine": shuffled(1, 2, 3, 4, 50), "dense": shuffled(10, 20, 30, 40, 500)}
    engine, dense = contestant("engine"), contestant("dense", dense=True)
    row = case("x", times, engine, [engine, dense], 0.5)
    assert (row["median_ms"], row["quartiles_ms"]) == (3000, [2000, 4000])
    assert (row["rival_median_ms"], row["rival_quartiles_ms"]) == (30_000, [20_000, 40_000])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on a terminal with colours."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system="standard", width=120, _environ={})
    for module in (record, progress):
        monkeypatch.setattr(module, "console", console)
    return shown


def compared(name: str, ratio: float) -> dict[str, Any]:
    """A case against a network that took 8 ms."""
    engine, dense = contestant(name), contestant("dense", dense=True)
    times = {name: [0.008 * ratio, 0.008 * ratio], "dense": [0.008, 0.008]}
    return case(name, times, engine, [engine, dense], 0.5)


def test_only_what_takes_longer_than_the_dense_network_is_yellow(terminal: io.StringIO) -> None:
    print_cases([compared("faster", 0.75), compared("equal", 1.0), compared("slower", 1.25)])
    yellow = [line for line in terminal.getvalue().splitlines() if "\x1b[33m" in line]
    assert len(yellow) == 1
    assert "slower" in yellow[0]


def cells(terminal: io.StringIO, name: str) -> list[str]:
    """The row of a table that begins with a name."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in terminal.getvalue().splitlines())
    return next(row for row in rows if row and row[0] == name)


def test_the_tables_show_what_is_recorded(terminal: io.StringIO) -> None:
    print_cases([compared("engine", 0.75)])
    assert cells(terminal, "engine") == ["engine", "50%", "0.75", "0.75-0.75", "0.75", "6.00"]
    assert "time as a ratio to dense (8.00 ms)" in terminal.getvalue()
    print_contestants([figures(contestant("fast"), [0.001] * 19 + [0.003] * 2, 4)])
    assert cells(terminal, "fast") == ["fast", "4", "1.00", "3.00", "4000", "7.0", "0.5"]
