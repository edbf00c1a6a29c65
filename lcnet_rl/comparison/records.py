"""Results to compare, grouped over seeds: records of run folders that were evaluated, or of a study's trials."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from lcnet_rl.errors import UserError
from lcnet_rl.files import read_json
from lcnet_rl.per_image import table_beside
from lcnet_rl.pretrained import pretrained
from lcnet_rl.rewards import price_range
from lcnet_rl.runs import CONFIG, MODEL, has_agent, of_agent, read_config, recorded_modules
from lcnet_rl.settings import dotted
from lcnet_rl.weights import BACKBONE

Fill = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Completes settings by dotted name."""
SEED = "seed"
WHERE_AND_HOW = ("preset", "resume", "run", "runs", "device", "data_root")
"""Settings that do not say what is trained."""
ORIGINS = ("init", "second", "teacher")
"""Options that name another network: what a run starts from, what it has behind that, and what it is taught by."""
EVALUATE = "evaluate."
"""Begins the names of settings of an evaluation, not of a training."""
MODULES = "modules"
"""Stands before the names of users' own modules: runs by other versions of one are of other settings."""
Split = Literal["val", "test"]
NEEDED = ("dataset", "backbone", "width", "accuracy", "macs_mean")
"""What an evaluation has to hold to be compared."""
NEEDED_OF_AGENTS = (*NEEDED, "macs_ratio", "dense_macs", "dense_accuracy", "distinct_paths", "controls")
"""The same, of an agent."""


@dataclass(frozen=True)
class Record:
    """One trained network, evaluated."""

    name: str
    """Its run folder, or the study and the trial's number."""
    settings: dict[str, Any]
    """By dotted name, without where and how it ran."""
    summary: dict[str, Any]
    """Of ``report.summarize``; a trial's has no controls but ``shuffled``, a dense network's no policy's figures."""
    images: Path | None = None
    """Where it is told what became of every image (``per_image``), if it is."""
    folder: Path | None = None
    """Its run folder; None for a trial."""

    @property
    def at(self) -> str:
        """At which price or budget, where a run has several, for behind its name: " at price 0.5"."""
        shown = {name.partition(".")[2]: value for name, value in self.settings.items() if name.startswith(EVALUATE)}
        return "".join(f" at {name} {value:g}" for name, value in shown.items())

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.summary["accuracy"])

    @property
    def macs(self) -> float:
        """Mean MACs per image, gates included."""
        return float(self.summary["macs_mean"])


@dataclass(frozen=True)
class Group:
    """Records that differ in their seed only."""

    records: tuple[Record, ...]
    """One a seed."""

    @property
    def first(self) -> Record:
        """Stands for what all have in common."""
        return self.records[0]

    @property
    def accuracies(self) -> list[float]:
        """Of every seed."""
        return [record.accuracy for record in self.records]

    @property
    def macs(self) -> list[float]:
        """Of every seed."""
        return [record.macs for record in self.records]

    @property
    def point(self) -> tuple[float, float]:
        """Mean MACs and mean accuracy."""
        return statistics.mean(self.macs), statistics.mean(self.accuracies)

    @property
    def gain_over_shuffled(self) -> float | None:
        """Mean accuracy over the same decisions dealt out to other images; None where that was not measured."""
        gains = [gain for record in self.records if (gain := record.summary.get("gain_over_shuffled")) is not None]
        return statistics.mean(gains) if len(gains) == len(self.records) else None

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviations over seeds of MACs and accuracy (n - 1 below the line); 0 for a single seed."""
        return deviation(self.macs), deviation(self.accuracies)


def network_count(backbone: str) -> int:
    """How many networks there are in a row, by a backbone's label."""
    return 1 + backbone.count(" + ")


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def evaluation_files(run: Path, split: Split) -> list[Path]:
    """The evaluations of a run folder that count: the plain one, one a budget, and one a price of a range of prices.

    Raises:
        UserError: when the run trained no agent.
    """
    settings = read_config(run)
    if not has_agent(settings):
        raise UserError(f"{run} trained a dense backbone, no agent; give runs of lcnet-rl train")
    kinds = ["", "-budget*"] if price_range(of_agent(run, settings, "price")).is_one else ["", "-price*", "-budget*"]
    return sorted(path for kind in kinds for path in run.glob(f"evaluation-{split}{kind}.json"))


def of_run(run: Path, split: Split) -> list[Record]:
    """The records of a run folder, one an evaluation that counts.

    Raises:
        UserError: saying what to run, when the run was not evaluated on that split, or the evaluation lacks something.
    """
    settings = read_config(run)
    paths = evaluation_files(run, split)
    several = not price_range(of_agent(run, settings, "price")).is_one
    if not paths:
        hint = " --price P, for one P or several" if several else ""
        first = f"first: lcnet-rl evaluate {quote(str(run))} --split {split}{hint}"
        # Whoever still chooses among runs is not to be led to test images.
        if split == "test" and evaluation_files(run, "val"):
            first = f"give --split val, for which there is one; or, to look at test images, {first}"
        raise UserError(f"{run} has no evaluation-{split}.json; {first}")
    records, code = [], dotted({MODULES: recorded_modules(run)})
    for path in paths:
        summary, shown = _read_summary(path, NEEDED_OF_AGENTS), {}
        if summary.get("budget") is not None:
            shown = {f"{EVALUATE}budget": summary["budget"]}
        elif several:
            shown = {f"{EVALUATE}price": summary["price"]}
        told = {**with_width(settings, summary), **code, **shown}
        records.append(Record(str(run), told, summary, table_beside(path), run))
    return records


def of_dense(run: Path, split: Split) -> Record:
    """The record of a run folder of ``pretrain``: nothing is decided in it, so it has neither controls nor paths.

    Raises:
        UserError: saying what to run, when the run was not evaluated on that split.
    """
    path = run / f"evaluation-{split}.json"
    if not path.is_file():
        raise UserError(f"{run} has no {path.name}; first: lcnet-rl evaluate {quote(str(run))} --split {split}")
    summary = {"controls": {}, **_read_summary(path, NEEDED)}
    settings = {**with_width(read_config(run), summary), **dotted({MODULES: recorded_modules(run)})}
    return Record(str(run), settings, summary, table_beside(path), run)


def _read_summary(path: Path, needed: Iterable[str]) -> dict[str, Any]:
    summary = read_json(path)
    if missing := [name for name in needed if name not in summary]:
        raise UserError(f"{path} has no {missing[0]}: lcnet-rl evaluate {quote(str(path.parent))} writes it anew")
    return summary


def with_width(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """``experiment`` of a network that was evaluated, whose width is known where it was left to what it starts from."""
    return {**experiment(settings), "width": summary["width"]}


def experiment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name, without those that say where and how."""
    return {name: value for name, value in dotted(settings).items() if name not in WHERE_AND_HOW}


def grouped(records: Iterable[Record], filled: Fill = dict) -> list[Group]:
    """Records by all settings but the seed, in order, each group's by their seeds; of two with the same, the later one.

    Starting from networks that were trained alike, with other seeds, is the same setting.

    Args:
        records: what to group.
        filled: completes settings by dotted name, of a record or of the run it starts from, with the defaults of what
            was no setting yet when it was made.
    """
    groups: dict[str, dict[str, Record]] = {}
    for record in records:
        record = replace(record, settings=filled(record.settings))
        rest = {name: value for name, value in record.settings.items() if name != SEED}
        rest |= lineages(record.settings, filled, record.folder)
        seeds = [record.settings.get(SEED), lineages(record.settings, filled, record.folder, seeds=True)]
        groups.setdefault(json.dumps(rest, sort_keys=True), {})[json.dumps(seeds, sort_keys=True)] = record
    return [
        Group(tuple(sorted(by_seeds.values(), key=lambda record: record.settings.get(SEED) or 0)))
        for by_seeds in groups.values()
    ]


def left_out(records: Iterable[Record], groups: Iterable[Group]) -> list[str]:
    """Names of the records that are in none of the groups, as a later one has the same settings and seed."""
    counted = {record.name + record.at for group in groups for record in group.records}
    return [name for name in (record.name + record.at for record in records) if name not in counted]


def lineages(settings: Mapping[str, Any], filled: Fill, folder: Path | None, seeds: bool = False) -> dict[str, Any]:
    """How the networks were trained that a run starts from or learns from, by option; with ``seeds``, by which too."""
    return {option: lineage(settings, filled, option, folder, seeds) for option in ORIGINS}


def lineage(settings: Mapping[str, Any], filled: Fill, option: str, folder: Path | None, seeds: bool) -> Any:
    """How the network was trained that ``option`` of the run in ``folder`` names; where that is not known, its name."""
    init = settings.get(option)
    known = pretrained(settings["dataset"], settings["backbone"], settings.get("width")) if init == "auto" else None
    path = known or as_typed(Path(str(init)), folder)
    run = path.parent if path.is_file() else path
    if init is None or not (run / CONFIG).is_file():
        return init
    trained = read_config(run)
    how = {name: value for name, value in filled(experiment(trained)).items() if seeds or name != SEED}
    # Any other file, such as start.safetensors, holds other weights than those that the folder stands for.
    itself = run / (MODEL if has_agent(trained) else BACKBONE)
    return how | lineages(how, filled, run, seeds) | ({} if path in (run, itself) else {"file": path.name})


def as_typed(path: Path, folder: Path | None) -> Path:
    """What a path in the command of the run in ``folder`` names: that was typed above it, wherever that is by now.

    In the present folder, if that is above the run.
    """
    above = [] if folder is None else sorted(folder.resolve().parents, key=lambda base: base != Path.cwd())
    return next((base / path for base in above if (base / path).exists()), path)


def differing(groups: Sequence[Group], filled: Fill = dict) -> dict[str, list[Any]]:
    """Settings that differ between groups, by dotted name; a value each, None where there is no such setting.

    Networks differ where ``grouped`` tells them apart: "auto" and the folder that it stands for do not.
    """
    names = dict.fromkeys(name for group in groups for name in group.first.settings if name != SEED)
    values = {name: [group.first.settings.get(name) for group in groups] for name in names}
    told = values | {
        option: [lineage(group.first.settings, filled, option, group.first.folder, seeds=False) for group in groups]
        for option in ORIGINS
        if option in values
    }
    return {name: row for name, row in values.items() if any(value != told[name][0] for value in told[name])}


def one_data_set(records: Sequence[Record]) -> str:
    """The data set of all records; of image folders with the same images, which may have been moved, the first's name.

    Raises:
        UserError: when there are several, or none.
    """
    if not records:
        raise UserError("there is nothing to compare yet: no trial has completed")
    first = records[0]
    for record in records[1:]:
        if not _same_images(first.summary, record.summary):
            if (name := record.summary["dataset"]) == first.summary["dataset"]:
                found = f"{name} had other images when {first.name} was evaluated than for {record.name}"
                raise UserError(f"{found}: evaluate both again")
            named = " and ".join(f"{one.summary['dataset']} ({one.name})" for one in (first, record))
            raise UserError(f"accuracies on {named} cannot be compared; give runs on one data set")
    return str(first.summary["dataset"])


def _same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations are on the same images of files, where both noted these, else on one data set by name."""
    known = [summary["fingerprint"] for summary in (one, other) if summary.get("fingerprint")]
    return known[0] == known[1] if len(known) == 2 else one["dataset"] == other["dataset"]
