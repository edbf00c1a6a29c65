"""RESULTS.md: tables and sentences made from rows and evaluations, none of it by hand."""

from __future__ import annotations

from collections.abc import Sequence

from lcnet_rl.results.rows import Row, agent_rows, label, mean
from lcnet_rl.sweep.records import Group

HEAD = """# Results on CIFAR-10

*Written by `lcnet-rl reproduce` from the run folders in `runs/reference`; do not edit.* Accuracy on the 10,000 test
images, which chose nothing; policies are greedy, and their MACs (multiply-accumulates) include the gates. The same rows
are in `runs/reference/results.json`. `lcnet-rl reproduce NAME` trains a row again from nothing, `lcnet-rl reproduce
--eval-only` evaluates the committed models again.

![accuracy over MACs: ours, and published results](runs/reference/frontier.png)
"""
READING = """Controls are other decisions for the same network, in %: *random* keeps every bit at the policy's rate for
it; *shuffled* gives each image the path chosen for another; *static* is the best single path found at that cost, with
BatchNorm's statistics its own. Where shuffled is as good, the policy does not look at the image; where static is as
good, it is a pruning.
"""


def page(dense: Sequence[Row], groups: Sequence[Group], published: Sequence[Row]) -> str:
    """The whole page, in Markdown."""
    parts = [HEAD, "## Dense backbones\n", dense_table(dense)]
    parts += ["## Policies\n", policy_table(groups), READING]
    parts += ["## What these figures show\n", verdicts(groups, dense, published)]
    parts += ["## Published\n", published_table(published)]
    parts += ["## Commands\n", commands(dense, groups)]
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def dense_table(rows: Sequence[Row]) -> str:
    """Backbones with nothing skipped."""
    return table(
        ("run", "backbone", "accuracy, %", "MMACs", "seed"),
        [(row.name, row.backbone, percent(row.accuracy), mega(row.macs), seeds(row.seeds)) for row in rows],
    )


def policy_table(groups: Sequence[Group]) -> str:
    """A policy a line, its controls beside it."""
    lines = []
    for group in groups:
        summaries = [record.summary for record in group.records]
        macs, accuracy = group.point
        _, spread = group.spread
        controls = [control_accuracy(group, name) for name in ("keep-all", "random", "shuffled", "static")]
        static_macs = mean(summary["controls"]["static"]["macs_mean"] for summary in summaries)
        lines.append(
            (
                label(group),
                summaries[0]["backbone"],
                percent(accuracy) + (f" ± {100 * spread:.2f}" if len(summaries) > 1 else ""),
                mega(macs),
                f"{macs / summaries[0]['dense_macs']:.1%}",
                percent(mean(summary["dense_accuracy"] for summary in summaries)),
                *(percent(control) for control in controls[:3]),
                f"{percent(controls[3])} at {mega(static_macs)}",
                seeds([summary["train_seed"] for summary in summaries]),
            )
        )
    columns = ("run", "backbone", "accuracy, %", "MMACs", "of dense", "dense, %", "keep-all", "random", "shuffled")
    return table((*columns, "static", "seeds"), lines)


def published_table(rows: Sequence[Row]) -> str:
    """Other people's results."""
    lines = [(row.name, percent(row.accuracy), f"{row.macs / 1e6:.0f}", row.command) for row in rows]
    return table(("method", "accuracy, %", "MMACs", "source"), lines) + (
        "\nMACs are as the papers count them, which is not always with gates, and training recipes are their own: for "
        "orientation, not\na controlled comparison.\n"
    )


def verdicts(groups: Sequence[Group], dense: Sequence[Row], published: Sequence[Row]) -> str:
    """A sentence a policy: against its backbone, its controls, the dense backbones here, and the published results."""
    lines = []
    for group in groups:
        macs, accuracy = group.point
        summaries = [record.summary for record in group.records]
        below = mean(summary["dense_accuracy"] for summary in summaries) - accuracy
        over = {name: accuracy - control_accuracy(group, name) for name in ("shuffled", "static")}
        sure = sum(summary["gain_over_shuffled"] > 2 * summary["gain_over_shuffled_error"] for summary in summaries)
        looks = "depends on the image" if sure == len(summaries) else f"depends on the image in {sure} of its runs"
        beaten_by = [row for row in (*dense, *published) if row.macs <= macs and row.accuracy >= accuracy]
        beats = [row for row in published if row.macs >= macs and row.accuracy <= accuracy]
        lines.append(
            f"- `{label(group)}` is {points(-below)} its dense backbone and {points(over['static'])} its best static "
            f"subnetwork.\n  It {looks if sure else 'does not depend on the image'}: {points(over['shuffled'])} the "
            f"same decisions shuffled.\n  Published points that it beats in both accuracy and MACs: {listed(beats)}; "
            f"rows here that beat it in both: {listed(beaten_by)}."
        )
    return "\n".join(lines) + "\n"


def commands(dense: Sequence[Row], groups: Sequence[Group]) -> str:
    """What was typed, for each row."""
    rows = [*dense, *(agent_rows(group)[0] for group in groups)]
    parts = (f"{row.name}:\n\n" + "".join(f"    {line}\n" for line in row.command.split(" && ")) for row in rows)
    return "\n".join(parts)


def control_accuracy(group: Group, name: str) -> float:
    """A control's accuracy, the mean over seeds."""
    return mean(record.summary["controls"][name]["accuracy"] for record in group.records)


def listed(rows: Sequence[Row]) -> str:
    """Rows by name, with their figures."""
    if not rows:
        return "none"
    return ", ".join(f"{row.name} ({percent(row.accuracy)} % at {row.macs / 1e6:.0f} M)" for row in rows)


def points(difference: float) -> str:
    """A difference of accuracies as words, in points."""
    return f"{abs(100 * difference):.2f} points {'above' if difference >= 0 else 'below'}"


def percent(accuracy: float) -> str:
    """Without its sign."""
    return f"{100 * accuracy:.2f}"


def mega(macs: float) -> str:
    """MACs in millions."""
    return f"{macs / 1e6:.2f}"


def seeds(numbers: Sequence[int]) -> str:
    """Seeds, in a row."""
    return ", ".join(map(str, numbers))
