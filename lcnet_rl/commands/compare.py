"""``lcnet-rl compare``: what differs between runs, and whether that is more than chance, of images or of seeds."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lcnet_rl.commands.run_defaults import defaults, with_defaults
from lcnet_rl.comparison.kinds import is_dense
from lcnet_rl.comparison.records import (
    Group,
    Record,
    deviation,
    differing,
    grouped,
    left_out,
    of_dense,
    of_run,
    one_data_set,
)
from lcnet_rl.comparison.significance import welch
from lcnet_rl.comparison.words import nothing_skipped, print_left_out, short, worded
from lcnet_rl.errors import UserError
from lcnet_rl.per_image import paired_difference, read_correct
from lcnet_rl.progress import console, say, warn

RECIPE, PRUNED = "recipe.", "prune"
"""Before names of settings of a dense network's training; and the share of MACs that it was pruned to."""
EDGES, NARROWEST = 4, 6
"""Characters between two columns of a table, and of a column's values before names are folded for them."""


@dataclass(frozen=True)
class Compare:
    """Runs side by side, of agents and of dense or pruned networks; those that differ in their seed only are one
    column."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, at least two."""
    split: Literal["val", "test"] = "test"
    """Which evaluation: evaluation-SPLIT.json in each run folder, and images-SPLIT.csv."""


def run(config: Compare) -> None:
    """Print settings that differ, results, and tests."""
    if len(config.runs) < 2:
        raise UserError("give at least two run folders")
    runs: dict[Path, Path] = {}
    for path in config.runs:
        if (first := runs.setdefault(path.resolve(), path)) is not path:
            warn(f"{path} is the same run as {first}: counted once")
    records = [
        record
        for path in runs.values()
        for record in ([of_dense(path, config.split)] if is_dense(path) else of_run(path, config.split))
    ]
    dataset = one_data_set(records)
    groups = grouped(records, with_defaults)
    for name, group in zip(labels(len(groups)), groups, strict=True):
        seeds = ", ".join(f"{record.name}{record.at} (seed {record.settings.get('seed')})" for record in group.records)
        say(Text.assemble((name, "bold"), f"  {seeds}"))
    print_left_out(left_out(records, groups))
    if len(groups) > 1:
        print_settings(groups)
    print_results(groups, dataset, config.split)
    print_same_images(groups, config.split)
    print_significance(groups)


def labels(count: int) -> list[str]:
    """A, B, ..., Z, AA, AB, ..."""
    words = (
        letters for size in itertools.count(1) for letters in itertools.product(string.ascii_uppercase, repeat=size)
    )
    return ["".join(letters) for letters in itertools.islice(words, count)]


def print_settings(groups: Sequence[Group]) -> None:
    """Settings that are not the same everywhere; "-" where there is no such setting.

    Agents and dense networks have few settings in common, some of them under two names. What only one kind has is shown
    where it differs within it or from its default, and of dense networks how far they were pruned.
    """
    settings = differing(groups, with_defaults)
    kinds = [[group for group in groups if _decides(group.first) == decides] for decides in (True, False)]
    if all(kinds):
        shown = {name for kind in kinds for name in differing(kind, with_defaults)} | {PRUNED}
        shown |= {name for name in settings if all(_has(group, name) for group in groups)}
        for group in groups:
            usual = defaults(group.first.settings)
            shown |= {name for name, value in group.first.settings.items() if value != usual.get(name, value)}
        settings = {name: row for name, row in settings.items() if name in shown}
    names = [name for name in settings if not (name.startswith(RECIPE) and _agents(name) in settings)]
    rows = []
    for name in names:
        cells = [worded(_setting(group, name)) if _has(group, name) else "-" for group in groups]
        if len(set(cells)) > 1:
            rows.append([short(name, names), *cells])
    print_table("settings that differ", ["setting", *labels(len(groups))], rows, "left")


def _setting(group: Group, name: str) -> Any:
    """What a group has under that name, or, as a dense network, under its own name for the same."""
    settings = group.first.settings
    return next((value for key, value in settings.items() if name in (key, _agents(key))), None)


def _has(group: Group, name: str) -> bool:
    return any(name in (key, _agents(key)) for key in group.first.settings)


def _agents(name: str) -> str:
    """An agent's name for a setting of a dense network's training."""
    return f"agent.{name.removeprefix(RECIPE)}" if name.startswith(RECIPE) else name


def print_results(groups: Sequence[Group], dataset: str, split: str) -> None:
    """Accuracy, compute, controls, the gain over shuffled decisions, and rewards where all have the same; "-" where it
    was not measured."""
    rows = []

    words = {nothing_skipped(record) for group in groups for record in group.records if _decides(record)}
    word = words.pop() if len(words) == 1 else "whole network"

    def row(name: str, value: Callable[[Record], float | None], shown: Callable[[float], str]) -> None:
        cells: list[str] = []
        for group in groups:
            values = [v for record in group.records if (v := value(record)) is not None]
            mean = shown(sum(values) / len(values)) if values else "-"
            cells.append(f"{mean} ± {shown(deviation(values))}" if len(values) > 1 else mean)
        if any(cell != "-" for cell in cells):
            rows.append([name, *cells])

    def control(name: str, figure: str = "accuracy") -> Callable[[Record], float | None]:
        return lambda record: record.summary["controls"].get(name, {}).get(figure)

    def gain(record: Record) -> float | None:
        return record.summary.get("gain_over_shuffled")

    row("accuracy", lambda record: record.accuracy, "{:.2%}".format)
    row(f"share of {word.partition(' ')[0]}", lambda record: record.summary.get("macs_ratio"), "{:.1%}".format)
    row("MMACs/image", lambda record: record.macs / 1e6, "{:.2f}".format)
    row(word, lambda record: record.summary.get("dense_accuracy"), "{:.2%}".format)
    for name in dict.fromkeys(name for group in groups for r in group.records for name in r.summary["controls"]):
        row(f"control: {name}", control(name), "{:.2%}".format)
    row("gain over shuffled", gain, lambda points: f"{100 * points:.2f} points")
    rewards = {reward for group in groups for record in group.records if (reward := rewarded_by(record))}
    if len(rewards) == 1:
        row("reward", lambda record: record.summary.get("mean_reward"), "{:.4f}".format)
        for name in ("shuffled", "static"):
            row(f"reward: {name}", control(name, "mean_reward"), "{:.4f}".format)
    row("distinct paths", lambda record: record.summary.get("distinct_paths"), "{:,.0f}".format)
    rows.append(["seeds", *(str(len(group.records)) for group in groups)])
    several = ", mean ± standard deviation over seeds" if any(len(group.records) > 1 for group in groups) else ""
    print_table(f"results on {dataset}/{split}{several}", ["", *labels(len(groups))], rows)
    if len(rewards) == 1:
        say(f"Rewards are means of {rewards.pop()}.")
    if len(rewards) > 1:
        several = f"rewards do not compare: {', '.join(sorted(rewards))}"
        evaluation = f"lcnet-rl evaluate RUN --split {split} --score REWARD@PRICE"
        say(f"{several}; {evaluation} tells one of all")


def rewarded_by(record: Record) -> str | None:
    """The reward that an evaluation tells the mean of, with its price; None where it tells none."""
    of = record.summary
    if "mean_reward" not in of:
        return None
    price = of["reward_price"] if "reward_price" in of else of["price"]  # as older evaluations have it
    return f"{of['reward']} at price {price:.4g}"


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], justify: JustifyMethod = "right"
) -> None:
    """A table with a name in front of each row; nothing in it is cut, however narrow the screen is.

    Args:
        title: above it.
        columns: their names.
        rows: of as many cells each.
        justify: all columns but the first.
    """
    table = Table(title=title, title_justify="left")
    # Two borders and a space between columns; the others are folded, down to so many characters, before names are.
    room = console.width - len(columns) * EDGES - (len(columns) - 1) * NARROWEST
    fits = max((len(row[0]) for row in rows), default=0) <= room
    for name in columns:
        first = name is columns[0]
        table.add_column(name, justify="left" if first else justify, overflow="fold", no_wrap=first and fits)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_same_images(groups: Sequence[Group], split: str) -> None:
    """How much more accurate one setting is than another on the same images, for every pair of which that is told."""
    names = labels(len(groups))
    lack = [
        name
        for name, group in zip(names, groups, strict=True)
        if not all(record.images is not None and record.images.is_file() for record in group.records)
    ]
    told = {name: _on_images(group) for name, group in zip(names, groups, strict=True) if name not in lack}
    rows = []
    for one, other in itertools.combinations(told, 2):
        (images, correct), (other_images, other_correct) = told[one], told[other]
        if images != other_images:
            rows.append([f"{one} - {other}", "other images", "", ""])
            continue
        gain, error = paired_difference(correct, other_correct)
        only = [float((a * (1 - b)).mean()) for a, b in ((correct, other_correct), (other_correct, correct))]
        points = f"{100 * gain:+.2f} ± {100 * error:.2f} points"
        rows.append([f"{one} - {other}", points, *(f"{share:.2%}" for share in only)])
    if rows:
        title = "on the same images: accuracy ± standard error over images, of these networks"
        print_table(title, ["pair", "accuracy", "right in the first only", "in the second only"], rows)
    if lack and len(groups) > 1:
        writes = f"lcnet-rl evaluate RUN --split {split} writes images-{split}.csv"
        if split == "test":
            again = "lcnet-rl reproduce runs/reference/NAME --eval-only"
            writes += f" (for a committed run {again}, into runs/measured-again/NAME)"
        say(f"{', '.join(lack)}: not compared image by image; {writes}")


def _on_images(group: Group) -> tuple[list[tuple[str, str]], Tensor]:
    """The images that a group was evaluated on, and the share of its seeds that are right about each, (N,).

    Raises:
        UserError: when a table of images is damaged, or not of the evaluation beside it, or of other images than
            another seed's.
    """
    tables: list[tuple[list[tuple[str, str]], Tensor]] = []
    for record in group.records:
        assert record.images is not None
        images, correct = read_correct(record.images)
        if tables and images != tables[0][0]:
            raise UserError(f"{group.first.name} and {record.name} were evaluated on other images")
        if abs(float(correct.mean()) - record.accuracy) > 0.5 / len(correct):
            raise UserError(
                f"{record.images} is not of the evaluation beside it: lcnet-rl evaluate {record.name} writes both anew"
            )
        tables.append((images, correct))
    return tables[0][0], torch.stack([correct for _, correct in tables]).mean(0)


def _decides(record: Record) -> bool:
    """Whether a record is of an agent, not of a dense network."""
    return "dense_macs" in record.summary


def print_significance(groups: Sequence[Group]) -> None:
    """Welch's test for every pair of settings that has several seeds on both sides."""
    names = labels(len(groups))
    if len(groups) < 2:
        if len(groups[0].records) > 1:
            console.print("These runs differ in their seed only.")
        return
    pairs = list(itertools.combinations(range(len(groups)), 2))
    tested = [(a, b) for a, b in pairs if min(len(groups[a].records), len(groups[b].records)) > 1]
    if tested:
        rows = []
        for a, b in tested:
            (macs, accuracy), (other_macs, other_accuracy) = groups[a].point, groups[b].point
            cells = [
                f"{names[a]} - {names[b]}",
                f"{len(groups[a].records)}, {len(groups[b].records)}",
                f"{100 * (accuracy - other_accuracy):+.2f} points",
                _p(welch(groups[a].accuracies, groups[b].accuracies)),
                f"{(macs - other_macs) / 1e6:+.2f}",
                _p(welch(groups[a].macs, groups[b].macs)),
            ]
            rows.append(cells)
        columns = ["pair", "seeds", "accuracy", "p", "MMACs/image", "p"]
        print_table("significance over seeds: Welch's t-test, two-sided", columns, rows)
        console.print(f"p-values are not corrected for {2 * len(tested)} comparisons.", highlight=False)
    single = [name for name, group in zip(names, groups, strict=True) if len(group.records) == 1]
    if single:
        say(
            f"{', '.join(single)}: one seed, so nothing can be said about significance over seeds; "
            "train the same settings with other --seed values",
        )


def _p(value: float | None) -> str:
    return "no spread" if value is None else f"{value:.3g}"
