"""Results as rows: dense backbones, policies and their controls from run folders, and what others published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcnet_rl.backbones import create_backbone
from lcnet_rl.model import LCNet
from lcnet_rl.runs import RUN, read_config
from lcnet_rl.sweep.published import CIFAR10
from lcnet_rl.sweep.records import Group, Record, of_run

Kind = Literal["dense", "policy", "control", "published"]
METRICS = "metrics.json"
"""Of a run folder of ``pretrain``."""


@dataclass(frozen=True)
class Row:
    """One figure: how accurate on test images, at what cost."""

    name: str
    kind: Kind
    backbone: str
    accuracy: float
    """In [0, 1], the mean over seeds."""
    macs: float
    """Mean MACs per image, gates included (of published rows, as published)."""
    seeds: list[int] = field(default_factory=list)
    """Of the training; none for published rows."""
    command: str = ""
    """What was typed, for the first seed; for published rows, the source."""


def dense_rows(runs: Iterable[Path], dataset: str) -> list[Row]:
    """A row for each run folder of ``pretrain`` on that data set."""
    rows = []
    for run in runs:
        settings = read_config(run)
        if (run / METRICS).is_file() and settings["dataset"] == dataset:
            metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))
            # A gate-free bill is the same whatever decides.
            macs = LCNet(create_backbone(settings["backbone"], 10, settings.get("width")), "layers").costs.dense
            seeds = [metrics["seed"]]
            rows.append(Row(run.name, "dense", settings["backbone"], metrics["test_accuracy"], macs, seeds, typed(run)))
    return rows


def agent_records(runs: Iterable[Path], dataset: str) -> list[Record]:
    """The evaluations on test images of run folders of ``train`` on that data set."""
    agents = [run for run in runs if next(run.glob("evaluation-test*.json"), None) is not None]
    records = [record for run in agents for record in of_run(run, "test")]
    return [record for record in records if record.summary["dataset"] == dataset]


def agent_rows(group: Group) -> list[Row]:
    """A group's policy, then its controls."""
    summaries = [record.summary for record in group.records]
    name, backbone = label(group), summaries[0]["backbone"]
    seeds = [int(summary["train_seed"]) for summary in summaries]
    command = f"{typed(Path(group.first.name))} && {summaries[0]['command']}"
    macs, accuracy = group.point
    rows = [Row(name, "policy", backbone, accuracy, macs, seeds, command)]
    for control in summaries[0]["controls"]:
        accuracy, macs = (mean(summary["controls"][control][key] for summary in summaries) for key in _CONTROL)
        rows.append(Row(f"{name}: {control}", "control", backbone, accuracy, macs, seeds, command))
    return rows


_CONTROL = ("accuracy", "macs_mean")


def published_rows() -> list[Row]:
    """What others published on CIFAR-10."""
    return [
        Row(result.method, "published", "", accuracy / 100, mmacs * 1e6, command=result.source)
        for result in CIFAR10
        for mmacs, accuracy in result.points
    ]


def label(group: Group) -> str:
    """A group's name: its first run's folder, and at which price or budget where a run has several."""
    shown = {key: value for key, value in group.first.settings.items() if key.startswith("evaluate.")}
    at = "".join(f" at {key.partition('.')[2]} {value:g}" for key, value in shown.items())
    return Path(group.first.name).name + at


def typed(run: Path) -> str:
    """The command that made a run."""
    about: dict[str, Any] = json.loads((run / RUN).read_text(encoding="utf-8"))
    return str(about["command"])


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    listed: Sequence[float] = list(values)
    return sum(listed) / len(listed)
