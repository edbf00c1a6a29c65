"""``lcnet-rl frontier``: the Pareto frontier of a study or of runs, as a table, a picture and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from lcnet_rl.commands.pretrain_settings import Pretrain
from lcnet_rl.commands.train_settings import ALGOS
from lcnet_rl.comparison.frontier import hypervolume, pareto
from lcnet_rl.comparison.kinds import is_dense, is_pruned, rivals
from lcnet_rl.comparison.picture import plot_frontier
from lcnet_rl.comparison.published import CIFAR10
from lcnet_rl.comparison.records import (
    Group,
    Record,
    Split,
    differing,
    experiment,
    grouped,
    left_out,
    networks,
    of_dense,
    of_run,
    one_data_set,
)
from lcnet_rl.errors import UserError
from lcnet_rl.files import plain, write_json
from lcnet_rl.progress import console
from lcnet_rl.provenance import command_line
from lcnet_rl.report import whole
from lcnet_rl.runs import CONFIG, no_run_folder

WIDEST = 6
"""Settings that differ are columns of the table, up to so many."""


@dataclass(frozen=True)
class Frontier:
    """Which runs no other run beats in both accuracy and MACs; beside them, dense and pruned networks."""

    of: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="STUDY|RUN [STUDY|RUN ...]", help_behavior_hint="(required)"),
    ]
    """Studies by name, run folders, or both; folders of pretrain are what the others are held against."""
    split: Literal["auto", "val", "test"] = "auto"
    """Where accuracies come from; auto: val where a study is named, as trials never see test images, else test."""
    reference: Literal["all", "dense", "published", "none"] = "all"
    """What to show beside: dense backbones, published results (CIFAR-10's only), all, or none."""
    storage: str | None = None
    """The studies' database; by default the SQLite file under --runs."""
    runs: Path = Path("runs")
    """Where studies are looked for and where the files go."""
    hypervolume_mmacs: float | None = None
    """MMACs from which the hypervolume counts, so that those of several calls compare; by default those of the dearest
    network here with nothing skipped."""
    out: Path | None = None
    """Folder of frontier-SPLIT.png and .json; by default that of the first study, or --runs/frontier."""


def run(config: Frontier) -> None:
    """Print the frontier, and write its picture and figures."""
    if not config.of:
        raise UserError("give a study's name or run folders")
    if config.hypervolume_mmacs is not None and not 0 < config.hypervolume_mmacs < math.inf:
        raise UserError(f"--hypervolume-mmacs must be a positive number, got {config.hypervolume_mmacs:g}")
    folders = [name for name in config.of if (Path(name) / CONFIG).is_file()]
    studies = [name for name in config.of if name not in folders]
    for name in studies:
        if "/" in name:  # which a study's name cannot have
            raise no_run_folder(Path(name))
    split = ("val" if studies else "test") if config.split == "auto" else config.split
    if studies and split == "test":
        raise UserError(
            f"trials of {', '.join(studies)} have no figures on test images; evaluate the ones that you chose with "
            "'lcnet-rl evaluate RUN' and give their run folders"
        )
    measured: Split = "val" if split == "val" else "test"
    records, storage = of_studies(studies, config) if studies else ([], "")
    records += [record for name in folders if not is_dense(Path(name)) for record in of_run(Path(name), measured)]
    fixed = [of_dense(Path(name), measured) for name in folders if is_dense(Path(name))]
    if fixed and not records:
        raise UserError("these are dense networks; give runs of lcnet-rl train, or a study, to hold against them")
    out = config.out or config.runs / (studies[0] if studies else "frontier")
    show(records, split, config.reference, out, fixed, config.hypervolume_mmacs)
    if studies:
        console.print(f"studies in {storage}", soft_wrap=True, highlight=False)


def of_studies(names: Sequence[str], config: Frontier) -> tuple[list[Record], str]:
    """The records of studies' completed trials, and the URL of their database without its password."""
    # Imported here since Optuna takes a second, which run folders should not cost.
    from lcnet_rl.sweep.study import default_storage, load_study, of_study, shown

    storage = config.storage or default_storage(config.runs)
    return [record for name in names for record in of_study(load_study(name, storage))], shown(storage)


def show(
    records: Sequence[Record],
    split: str,
    reference: str,
    out: Path,
    fixed: Sequence[Record] = (),
    mmacs: float | None = None,
) -> None:
    """Print the table of a frontier, and write its picture and figures into the folder ``out``.

    Args:
        records: of policies.
        split: that they were measured on.
        reference: what to show beside, as of ``Frontier``.
        out: where the files go.
        fixed: networks that treat all images alike, to hold the policies against.
        mmacs: from which the hypervolume counts; None for those of the dearest network with nothing skipped.

    Raises:
        UserError: for records on different data sets, or none.
    """
    dataset = one_data_set([*records, *fixed])
    published = CIFAR10 if reference in ("all", "published") and dataset == "cifar10" else ()
    if reference == "published" and not published:
        raise UserError(f"there are published results for cifar10 only, not for {dataset}")
    groups = grouped(records, with_defaults)
    print_left_out(left_out(records, groups))
    points = [group.point for group in groups]
    front = pareto(points)
    dense = dense_backbones(records)
    dearest = max(records, key=lambda record: float(record.summary["dense_macs"]))
    most = float(dearest.summary["dense_macs"]) if mmacs is None else 1e6 * mmacs
    volume = hypervolume(points, (most, 0.0))
    title = f"frontier on {dataset}/{split}: {len(front)} of {len(groups)} settings"
    print_frontier(groups, front, title, f"lcnet-rl compare RUN RUN ... --split {split}")
    named = "as asked for" if mmacs else nothing_skipped(dearest)
    console.print(
        f"hypervolume {volume:.4f} of 1 (reference point: accuracy 0 at {most / 1e6:.2f} MMACs, {named})",
        soft_wrap=True,
        highlight=False,
    )
    given = {network.name: (network.macs, network.accuracy) for network in fixed}
    started = dense if reference in ("all", "dense") else {}
    beside = {name: point for name, point in started.items() if point not in given.values()}
    for name, (macs, _) in beside.items():
        console.print(f"{name} at {macs / 1e6:.2f} MMACs", soft_wrap=True, highlight=False)
    for network in fixed:
        beaten = sum(network.macs <= macs and network.accuracy >= accuracy for macs, accuracy in points)
        console.print(
            f"{network.name}: {network.accuracy:.2%} at {network.macs / 1e6:.2f} MMACs, for all images alike: "
            f"beats or equals {beaten} of {len(groups)} settings, at no more MACs",
            soft_wrap=True,
            highlight=False,
        )
    pruned = {name for name in given if is_pruned(Path(name))}
    title = f"{dataset}/{split}: accuracy and compute"
    if any(len(group.records) > 1 for group in groups):
        title += ", bars: standard deviation over seeds"
    if published and split == "val":
        title += "; published ones are of test images"
    picture, figures = out / f"frontier-{split}.png", out / f"frontier-{split}.json"
    ours, theirs = ([i for i, group in enumerate(groups) if rivals(group) == rival] for rival in (False, True))
    plot_frontier(
        [groups[index] for index in ours],
        [ours.index(index) for index in front if index in ours],
        {**beside, **{name: point for name, point in given.items() if name not in pruned}},
        published,
        title,
        picture,
        [groups[index] for index in theirs],
        {name: point for name, point in given.items() if name in pruned},
    )
    content = {
        "dataset": dataset,
        "split": split,
        "settings": [_figures(group, index in front) for index, group in enumerate(groups)],
        "hypervolume": volume,
        "hypervolume_reference": {"accuracy": 0.0, "macs": most},
        "dense": {name: {"macs": macs, "accuracy": accuracy} for name, (macs, accuracy) in dense.items()},
        "static": {name: {"macs": macs, "accuracy": accuracy} for name, (macs, accuracy) in given.items()},
        "published": [vars(result) for result in published],
        "command": command_line(),
    }
    write_json(figures, content)
    console.print(f"picture: {picture}", soft_wrap=True)
    console.print(f"figures: {figures}", soft_wrap=True)


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, and those that there were not yet when it was made, as if they had had their defaults."""
    return {**defaults(settings), **settings}


def defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run of that kind, by dotted name; empty where its kind is not known."""
    kind = Pretrain if "recipe.epochs" in settings else ALGOS.get(settings.get("algo", ""))
    return {} if kind is None else experiment(plain(kind()))


def print_left_out(names: Sequence[str]) -> None:
    """Say which runs do not count, if there are any."""
    if names:
        console.print(
            f"left out, as a later one has the same settings and seed: {', '.join(names)}",
            style="yellow",
            soft_wrap=True,
            highlight=False,
        )


def print_frontier(groups: Sequence[Group], front: Sequence[int], title: str, compare: str) -> None:
    """The settings on the frontier, by rising MACs per image, and where all start from the same, as a share of that.

    Args:
        groups: what was run.
        front: indices of those on the frontier.
        title: of the table.
        compare: the command that shows settings where more differ than there is room for.
    """
    table = Table(title=title, title_justify="left")
    values = differing(groups, with_defaults)
    if len(values) > WIDEST:
        console.print(f"{len(values)} settings differ; to see them: {compare}", soft_wrap=True, highlight=False)
        values = {}
    seeds = ["seeds"] if any(len(group.records) > 1 for group in groups) else []
    share = ["share"] if len({group.first.summary["dense_macs"] for group in groups}) == 1 else []
    for column in ("run", "MMACs", *share, "accuracy", *seeds, *(short(name, values) for name in values)):
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for index in front:
        group = groups[index]
        (macs, accuracy), (macs_spread, accuracy_spread) = group.point, group.spread
        several = len(group.records) > 1
        table.add_row(
            group.first.name + group.first.at,
            f"{macs / 1e6:.2f}" + (f" ± {macs_spread / 1e6:.2f}" if several else ""),
            *([f"{macs / group.first.summary['dense_macs']:.1%}"] if share else []),
            f"{accuracy:.2%}" + (f" ± {100 * accuracy_spread:.2f}" if several else ""),
            *([str(len(group.records))] if seeds else []),
            *(worded(row[index]) for row in values.values()),
        )
    console.print(table)


def short(name: str, among: Iterable[str]) -> str:
    """A setting's name, without the table that it is in where no other one among those shown is called so."""
    last = name.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in among].count(last) == 1 else name


def worded(value: Any) -> str:
    """A setting's value, floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def nothing_skipped(record: Record) -> str:
    """What a record's network is with nothing skipped; how many networks these are, old evaluations do not say."""
    of = record.summary
    return whole({"networks": networks(of["backbone"]), "pruned": of.get("pruned", False)})


def dense_backbones(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """MACs and accuracy of the backbones that the records started from, by a name that says what they are."""
    points = {}
    for record in records:
        of = record.summary
        kind = nothing_skipped(record)
        name = f"{kind}: {of['backbone']}, width {of['width']} ({of['dense_accuracy']:.2%})"
        points[name] = (of["dense_macs"], of["dense_accuracy"])
    return points


def _figures(group: Group, on_frontier: bool) -> dict[str, Any]:
    (macs, accuracy), (macs_spread, accuracy_spread) = group.point, group.spread
    return {
        "runs": [record.name for record in group.records],
        "seeds": [record.settings.get("seed") for record in group.records],
        "frontier": on_frontier,
        "accuracy": accuracy,
        "accuracy_std": accuracy_spread,
        "macs": macs,
        "macs_std": macs_spread,
        "settings": group.first.settings,
    }
