"""A frontier on the screen, as a picture and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcnet_rl.comparison.frontier import Point
from lcnet_rl.comparison.kinds import is_pruned
from lcnet_rl.comparison.picture import plot_frontier
from lcnet_rl.comparison.records import Group
from lcnet_rl.comparison.standing import Standing
from lcnet_rl.comparison.words import print_left_out, short, worded
from lcnet_rl.files import write_json
from lcnet_rl.progress import console, say
from lcnet_rl.provenance import command_line
from lcnet_rl.tables import table_of

WIDEST = 6
"""Settings that differ are columns of the table, up to so many."""


def show(of: Standing, out: Path) -> None:
    """Print a frontier and what stands beside it, and write its picture and figures into the folder ``out``."""
    print_left_out(of.left_out)
    print_frontier(of)
    print_beside(of)
    picture, figures = (out / f"frontier-{of.split}.{kind}" for kind in ("png", "json"))
    draw(of, picture)
    write_json(figures, content(of))
    say(f"picture: {picture}")
    say(f"figures: {figures}")


def print_frontier(of: Standing) -> None:
    """The settings on the frontier, by rising MACs per image, and where all start from the same, as a share of that;
    beside accuracies the points that they are above the same decisions dealt out to other images."""
    groups, values = of.groups, of.differing
    title = f"frontier on {of.dataset}/{of.split}: {len(of.front)} of {len(groups)} settings"
    if len(values) > WIDEST:
        compare = f"lcnet-rl compare RUN RUN ... --split {of.split}"
        say(f"{len(values)} settings differ; to see them: {compare}")
        values = {}
    seeds = ["seeds"] if any(len(group.records) > 1 for group in groups) else []
    share = ["share"] if len({group.first.summary["dense_macs"] for group in groups}) == 1 else []
    table = table_of(title, ["run"], ["MMACs", *share, "accuracy", "over\nshuffled", *seeds])
    for name in values:
        table.add_column(short(name, values), justify="right", overflow="fold")
    for index in of.front:
        group = groups[index]
        (macs, accuracy), (macs_spread, accuracy_spread) = group.point, group.spread
        several = len(group.records) > 1
        table.add_row(
            group.first.name + group.first.at,
            f"{macs / 1e6:.2f}" + (f" ± {macs_spread / 1e6:.2f}" if several else ""),
            *([f"{macs / group.first.summary['dense_macs']:.1%}"] if share else []),
            f"{accuracy:.2%}" + (f" ± {100 * accuracy_spread:.2f}" if several else ""),
            "-" if group.gain_over_shuffled is None else f"{100 * group.gain_over_shuffled:+.2f}",
            *([str(len(group.records))] if seeds else []),
            *(worded(row[index]) for row in values.values()),
        )
    console.print(table)


def print_beside(of: Standing) -> None:
    """The hypervolume, and what the policies are held against."""
    lines = [
        f"hypervolume {of.volume:.4f} of 1 (reference point: accuracy 0 at {of.most / 1e6:.2f} MMACs, {of.most_named})",
        *(f"{name} at {macs / 1e6:.2f} MMACs" for name, (macs, _) in of.beside.items()),
    ]
    for group in of.fixed:
        (cost, reached), count = group.point, len(group.records)
        beaten = sum(cost <= macs and reached >= accuracy for macs, accuracy in of.points)
        several = f" ± {100 * group.spread[1]:.2f} over {count} seeds" if count > 1 else ""
        lines.append(
            f"{group.first.name}: {reached:.2%}{several} at {cost / 1e6:.2f} MMACs, for all images alike: "
            f"beats or equals {beaten} of {len(of.groups)} settings, at no more MACs"
        )
    for line in lines:
        say(line)


def draw(of: Standing, path: Path) -> None:
    """The picture, pruned networks told apart from dense ones."""
    title = f"{of.dataset}/{of.split}: accuracy and compute"
    if any(len(group.records) > 1 for group in of.groups):
        title += ", bars: standard deviation over seeds"
    if of.published and of.split == "val":
        title += "; published ones are of test images"
    dense, pruned = given_by_kind(of)
    plot_frontier(of.groups, {**of.beside, **dense}, pruned, of.published, title, path)


def given_by_kind(of: Standing) -> tuple[dict[str, Point], dict[str, Point]]:
    """What was given to hold the policies against: dense networks, and pruned ones."""
    pruned = {name: point for name, point in of.given.items() if is_pruned(Path(name))}
    return {name: point for name, point in of.given.items() if name not in pruned}, pruned


def content(of: Standing) -> dict[str, Any]:
    """The figures, for JSON."""
    dense, pruned = given_by_kind(of)
    return {
        "dataset": of.dataset,
        "split": of.split,
        "settings": [_figures(group, index in of.front) for index, group in enumerate(of.groups)],
        "hypervolume": of.volume,
        "hypervolume_reference": {"accuracy": 0.0, "macs": of.most},
        "dense": _named({**of.dense, **dense}),
        "static": _named(pruned),
        "published": [vars(result) for result in of.published],
        "command": command_line(),
    }


def _named(points: dict[str, Point]) -> dict[str, dict[str, float]]:
    return {name: {"macs": macs, "accuracy": accuracy} for name, (macs, accuracy) in points.items()}


def _figures(group: Group, on_frontier: bool) -> dict[str, Any]:
    (macs, accuracy), (macs_spread, accuracy_spread) = group.point, group.spread
    return {
        "runs": [record.name for record in group.records],
        "seeds": [record.settings.get("seed") for record in group.records],
        "frontier": on_frontier,
        "accuracy": accuracy,
        "accuracy_std": accuracy_spread,
        "gain_over_shuffled": group.gain_over_shuffled,
        "macs": macs,
        "macs_std": macs_spread,
        "settings": group.first.settings,
    }
