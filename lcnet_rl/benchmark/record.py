"""What a race says: plain dictionaries for JSON, and tables for the screen."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
import torch

import lcnet_rl
from lcnet_rl.benchmark.contestants import Contestant
from lcnet_rl.progress import console, say
from lcnet_rl.provenance import cpu_name
from lcnet_rl.tables import table_of
from lcnet_rl.timing import Comparison

Times = Mapping[str, list[float]]
"""Seconds of every trial, by contestant; trial i of all contestants had the same images."""


def figures(contestant: Contestant, seconds: Sequence[float], images: int, calls: int = 1) -> dict[str, Any]:
    """Times in milliseconds, images per second, warm-up and size of a contestant.

    Args:
        contestant: who was timed.
        seconds: a call took, by trial.
        images: of a call.
        calls: of a trial; the slowest calls of several are not known, so there is no 95th percentile.
    """
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "name": contestant.name,
        "batch": images,
        "trials": len(seconds),
        "median_ms": 1000 * median,
        "quartiles_ms": [1000 * low, 1000 * high],
        "calls_per_trial": calls,
        "p95_ms": 1000 * statistics.quantiles(seconds, n=20, method="inclusive")[-1] if calls == 1 else None,
        "images_per_second": images / median,
        "warmup_s": contestant.warmup,
        "megabytes": contestant.megabytes,
    }


def case(
    name: str,
    times: Times,
    this: Contestant,
    all_of_them: Sequence[Contestant],
    share: float,
    excess: float | None = None,
) -> dict[str, Any]:
    """One comparison: ``this`` against the fastest dense network in the same runtime.

    Args:
        name: of the case.
        times: of a race in which all took part.
        this: who skips.
        all_of_them: who took part.
        share: of the dense network's MACs that ``this`` is billed, gates included; a masked one is billed none.
        excess: of the dense network's MACs that ``this`` computes beyond that, as a tuned engine may; None if unknown.
    """
    rivals = [one.name for one in all_of_them if one.dense and one.runtime == this.runtime]
    rival = min(rivals, key=lambda other: statistics.median(times[other]))
    comparison = Comparison(times[this.name], times[rival])
    mine, its = (
        [1000 * q for q in statistics.quantiles(seconds, n=4, method="inclusive")]
        for seconds in (times[this.name], times[rival])
    )
    return {
        "name": name,
        "ratio": comparison.ratio,
        "ratio_interval": list(comparison.ratio_interval),
        "ratio_quartiles": list(comparison.ratio_quartiles),
        "mean_ratio": comparison.mean_ratio,
        "this": this.name,
        "median_ms": mine[1],
        "quartiles_ms": mine[::2],
        "rival": rival,
        "rivals": rivals,
        "rival_median_ms": its[1],
        "rival_quartiles_ms": its[::2],
        "macs_ratio": None if this.masked else share,
        "excess_ratio": excess,
        "trials": len(times[this.name]),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Where the times were taken, on ``device``."""
    return {
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "cuda": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "versions": {
            "lcnet-rl": lcnet_rl.__version__,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def print_cases(cases: Sequence[Mapping[str, Any]]) -> None:
    """A table of comparisons for each dense network that they are with, slow-downs marked; then what else ran."""
    for (rival, its_ms), rows in itertools.groupby(cases, key=lambda row: (row["rival"], row["rival_median_ms"])):
        title = f"time as a ratio to {rival} ({its_ms:.2f} ms)"
        table = table_of(title, ["case"], ["billed", "median", "95 %", "mean", "ms"])
        for row in rows:
            low, high = row["ratio_interval"]
            table.add_row(
                row["name"],
                "" if row["macs_ratio"] is None else f"{row['macs_ratio']:.0%}",
                f"{row['ratio']:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{row['mean_ratio']:.2f}",
                f"{row['median_ms']:.2f}",
                style="yellow" if row["ratio"] > 1 else None,
            )
        console.print(table)
    beyond = [f"{row['name']}: {row['excess_ratio']:.1%}" for row in cases if (row["excess_ratio"] or 0) >= 0.0005]
    if beyond:
        text = f"MACs computed beyond those billed, as that was faster: {'; '.join(beyond)}"
        say(text)


def print_contestants(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of everything that took part, for each network where rows say of which they are."""
    for network, ran in itertools.groupby(rows, key=lambda row: row.get("network")):
        title = "everything that ran" + (f", {network}" if network else "")
        columns = "batch", "p50\nms", "p95\nms", "images\n/s", "warm-up\ns", "MB"
        table = table_of(title, ["contestant"], columns)
        for row in ran:
            table.add_row(
                row["name"],
                str(row["batch"]),
                f"{row['median_ms']:.2f}",
                "" if row["p95_ms"] is None else f"{row['p95_ms']:.2f}",
                f"{row['images_per_second']:.0f}",
                f"{row['warmup_s']:.1f}",
                f"{row['megabytes']:.1f}",
            )
        console.print(table)
