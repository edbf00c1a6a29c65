"""Results as rows: dense and pruned backbones, policies, rivals and controls from run folders, and published ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lcnet_rl.comparison.kinds import is_dense, is_pruned, is_rival_group, origin
from lcnet_rl.comparison.published import CIFAR10
from lcnet_rl.comparison.records import Group, Record, deviation, evaluation_files, of_dense, of_run
from lcnet_rl.data import base_name
from lcnet_rl.errors import UserError
from lcnet_rl.files import read_json
from lcnet_rl.runs import RUN, START, read_config

TIMES = "times.json"
"""What ``bench --json`` wrote into a run folder, to be committed."""
Kind = Literal["dense", "static", "policy", "rival", "control", "published"]


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
    deviation: float | None = None
    """Of the accuracy over seeds, where there are several (n - 1 below the line)."""
    width: int = 0
    """Filters of the backbone's stem; 0 for published rows."""
    epochs: float | None = None
    """Passes over the training images since the network was dense (of a dense one, its own); None where not counted."""
    command: str = ""
    """What was typed, for all seeds one after the other."""
    source: str = ""
    """Where a published row comes from."""

    def dominates(self, other: Row) -> bool:
        """Whether it is at least as accurate at no more MACs, and better in one of them."""
        no_worse = self.macs <= other.macs and self.accuracy >= other.accuracy
        return no_worse and (self.macs, self.accuracy) != (other.macs, other.accuracy)


def epochs(run: Path) -> float | None:
    """Passes over the training images since the network was dense; None where they are not counted, or others' too."""
    settings = read_config(run)
    if base_name(settings["dataset"]) != settings["dataset"]:
        return None
    own: float | None = settings["recipe"]["epochs"] if is_dense(run) else settings["agent"].get("epochs")
    source = origin(run)
    if source is None and Path(settings.get("init") or "").name == START:
        return None  # what another run began with: how long that had been trained is not told there
    if source is None or (is_dense(source) and not is_pruned(source)):
        return own
    earlier = epochs(source)
    return None if own is None or earlier is None else own + earlier


def evaluations(run: Path) -> list[Path]:
    """The evaluations on test images that count as results of a run folder."""
    return sorted(run.glob("evaluation-test.json")) if is_dense(run) else evaluation_files(run, "test")


def dense_records(runs: Iterable[Path], dataset: str) -> list[Record]:
    """The evaluations on test images of run folders of ``pretrain`` on that data set."""
    records = [of_dense(run, "test") for run in runs if is_dense(run) and evaluations(run)]
    return [record for record in records if record.summary["dataset"] == dataset]


def agent_records(runs: Iterable[Path], dataset: str) -> list[Record]:
    """The evaluations on test images of run folders of ``train`` on that data set."""
    agents = [run for run in runs if not is_dense(run) and evaluations(run)]
    records = [record for run in agents for record in of_run(run, "test")]
    return [record for record in records if record.summary["dataset"] == dataset]


def row_of(group: Group) -> Row:
    """What a group's networks are, and their means over seeds."""
    first, (macs, accuracy) = group.first, group.point
    return Row(
        label(group),
        kind_of(group),
        first.summary["backbone"],
        accuracy,
        macs,
        seeds=[int(record.summary["train_seed"]) for record in group.records],
        deviation=_deviation(group.accuracies),
        width=first.summary["width"],
        epochs=epochs(Path(first.name)),
        command=" && ".join(line for record in group.records for line in commands(record)),
    )


def kind_of(group: Group) -> Kind:
    """Whose results a group's are."""
    run = Path(group.first.name)
    if is_dense(run):
        return "static" if is_pruned(run) else "dense"
    return "rival" if is_rival_group(group) else "policy"


def agent_rows(group: Group) -> list[Row]:
    """A group's policy, or rival, then its controls."""
    own, rows = row_of(group), []
    for name in group.first.summary["controls"]:
        controls = [record.summary["controls"][name] for record in group.records]
        accuracies = [control["accuracy"] for control in controls]
        rows.append(
            replace(
                own,
                name=f"{own.name}: {name}",
                kind="control",
                accuracy=statistics.mean(accuracies),
                macs=statistics.mean(control["macs_mean"] for control in controls),
                deviation=_deviation(accuracies),
            )
        )
    return [own, *rows]


def _deviation(accuracies: list[float]) -> float | None:
    return deviation(accuracies) if len(accuracies) > 1 else None


@dataclass(frozen=True)
class Timing:
    """One comparison of ``bench``: a run's policy against the fastest dense network in the same runtime."""

    run: str
    case: str
    macs_ratio: float
    """Share of dense MACs, gates included, on the images that were timed."""
    ratio: float
    """Of the medians: below 1 is faster than dense."""
    quartiles: tuple[float, float]
    """Of the ratios of single trials."""
    means: float | None
    """Mean over mean; None from before it was measured."""
    milliseconds: float
    """Median of a trial."""
    rival: str
    rival_milliseconds: float


def timings(runs: Iterable[Path], dataset: str) -> list[Timing]:
    """What ``bench`` measured of run folders on that data set, as far as it is committed (``TIMES``).

    The masked network is left out: it computes everything.

    Raises:
        UserError: for a file of another version.
    """
    found = []
    for run in runs:
        path = run / TIMES
        if not path.is_file() or base_name(read_config(run)["dataset"]) != dataset:
            continue
        try:
            for case in read_json(path)["cases"]:
                if not case["this"].startswith("masked"):
                    low, high = case["ratio_quartiles"]
                    mine, its = case["median_ms"], case["rival_median_ms"]
                    share, ratio, rival = case["macs_ratio"], case["ratio"], case["rival"]
                    means = case.get("mean_ratio")
                    found.append(Timing(run.name, case["name"], share, ratio, (low, high), means, mine, rival, its))
        except KeyError as error:
            again = f"lcnet-rl bench {run} --precisions fp32 --json {path}"
            raise UserError(f"{path} has no {error}: measure again with {again}") from error
    return found


def published_rows() -> list[Row]:
    """What others published on CIFAR-10."""
    return [
        Row(result.method, "published", "", round(percent / 100, 4), mmacs * 1e6, source=result.source)
        for result in CIFAR10
        for mmacs, percent in result.points
    ]


def label(group: Group) -> str:
    """A group's name: its first run's folder, and at which price or budget where a run has several."""
    return Path(group.first.name).name + group.first.at


def commands(record: Record) -> tuple[str, str]:
    """The commands that trained a run and evaluated it."""
    return typed(Path(record.name)), record.summary["command"]


def typed(run: Path) -> str:
    """The command that made a run."""
    return str(read_json(run / RUN)["command"])
