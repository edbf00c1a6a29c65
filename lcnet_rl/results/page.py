"""RESULTS.md: tables and sentences made from rows and evaluations, none of it by hand."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from lcnet_rl.comparison.kinds import parted
from lcnet_rl.comparison.records import Group, Record, network_count
from lcnet_rl.comparison.words import nothing_skipped
from lcnet_rl.report import looks_at_image
from lcnet_rl.results.rows import Row, Timing, commands, label, row_of

HEAD = """# Results on CIFAR-10

*Written by `lcnet-rl reproduce` from the run folders in `runs/reference`; do not edit.* Accuracy on the 10,000 test
images, by which nothing within a run was chosen; policies are greedy, and their MACs (multiply-accumulates) include
the gates. Of some runs there was a second try, and some were planned when test figures of others like them were known.
Training has changed since some were made, so that a rerun with a target may end elsewhere. EXPERIMENTS.md tells of
both. The same rows are in `runs/reference/results.json`. `lcnet-rl reproduce "ROW"`, a name of the first column but a
published one, makes a row again from nothing, all its seeds; `lcnet-rl reproduce runs/reference/RUN` makes one run;
`lcnet-rl reproduce --eval-only` evaluates the committed models again.

What the numbers in names are: behind the backbone, the width of a dense network that is not the usual one
(`resnet20-12`, `resnet11-pool-48`), and of networks made from it (`resnet18-32-50`). Then the target, in % of the
network's MACs (`resnet20-65`, `resnet18-48`, `resnet18-32-50`). Of chains, networks in a row (*second*, *third*: with a
calibrated threshold of confidence; *learned*: with learned gates), it is of those of all networks
(`resnet20-learned-33`), or there is the last one's width and about what they spend (`resnet20-second-64-26`). Or the
price (`resnet20-price-1.7`), or the epochs (`resnet11-pool-64-42`; of a pruned network, behind *pruned*,
`resnet20-65-pruned-16`). The last number is the seed, where there are several and it is not 0 (`resnet20-65-1`).

![accuracy over MACs: ours, and published results](runs/reference/frontier.png)
"""
READING = """Controls are other decisions for the same network, in %: *random* keeps every bit at the policy's rate for
it; *shuffled* gives each image the path chosen for another; *static* is the best single path found at that cost, with
BatchNorm's statistics its own (of several networks, it has all or nothing of each behind the first). Where shuffled is
as good, the policy does not look at the image; where static is as good, it is a pruning. One row dominates another if
it is at least as accurate at no more MACs, and better in one.
"""
STATIC = """What skipping has to beat: the same backbone pruned by Torch-Pruning (filters of the blocks' first
convolutions, by their group's norm) and trained again with its dense self as teacher.
"""
RIVALS = """Other papers' policies and ways to train them, on the same backbone, data and training budget as ours of the
same number of epochs; each module in `agents/rivals` says what was simplified.
"""
EQUAL = """Policies and rivals that skip at least 5 % of the MACs, beside networks of the same backbone from this
harness that compute the same for every image, pruned or narrower from the start, at MACs within 5 % (policies of
several networks beside those of any backbone, and the most accurate one of all that cost no more); policies without
such a network are left out. Epochs are those since the network was dense (a policy that starts from a pruned network
has that one's too, but not those of networks behind it), and those of a narrower network's own run. Two accuracies on
10,000 images differ by 0.8 points by chance alone in one of twenty cases (twice the standard error near 91 %, images
drawn anew).
"""
TIME = """What `lcnet-rl bench RUN --precisions fp32 --json RUN/times.json` measured, where it was run: greedy
decisions on validation images, against the fastest dense network in the same runtime, its own backbone or the one
named (`--against`); a ratio below 1 is faster. Medians of trials in turn, and quartiles of the ratios of single
trials, which tell how much these differ (at batch 1, images), not how sure the ratio is; *means* is the ratio of mean
times, which count what the median of single images may leave out, those that take longer. On two cores of an EPYC or a
Xeon; the file says which, where it was written since that is noted. MACs are those billed: the engine computes more
where that is faster.
"""
ABOUT = 0.05
"""How far MACs may differ that are called the same."""
LISTED = 3
"""Rows that a sentence names."""
WORDS = ("run", "backbone", "method", "source", "case", "dense network", "static network")


def page(
    dense: Sequence[Group], groups: Sequence[Group], published: Sequence[Row], times: Sequence[Timing] = ()
) -> str:
    """The whole page, in Markdown: of dense and pruned networks, of policies and rivals, and of what others have."""
    fixed = [row_of(group) for group in dense]
    parts = [HEAD, "## Dense backbones\n", dense_table([row for row in fixed if row.kind == "dense"])]
    static = [row for row in fixed if row.kind == "static"]
    if static:
        parts += ["## Pruned for all images alike\n", STATIC, dense_table(static)]
    ours, theirs = parted(groups)
    parts += ["## Policies\n", policy_table(ours), READING]
    if theirs:
        parts += ["## Rivals in the same harness\n", RIVALS, policy_table(theirs)]
    equals = equal_costs(groups, fixed)
    if equals:
        parts += ["## Against static networks of the same cost\n", EQUAL, equal_table(equals)]
    if times:
        parts += ["## Time\n", TIME, time_table(times)]
    parts += ["## What these figures show\n", verdicts(groups, fixed, published)]
    parts += ["## Published\n", published_table(published)]
    parts += ["## Commands\n", typed([*dense, *groups])]
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but for those of ``WORDS`` are numbers, and aligned as such."""
    lines = [columns, ["---" if column in WORDS else "---:" for column in columns], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def dense_table(rows: Sequence[Row]) -> str:
    """Networks with nothing skipped."""
    return table(
        ("run", "backbone", "accuracy, %", "MMACs", "seeds"),
        [(row.name, row.backbone, accuracy_of(row), mega(row.macs), seeds(row.seeds)) for row in rows],
    )


def policy_table(groups: Sequence[Group]) -> str:
    """A policy a line, its controls beside it."""
    lines = []
    for group in groups:
        summaries = [record.summary for record in group.records]
        row = row_of(group)
        controls = [control_accuracy(group, name) for name in ("keep-all", "random", "shuffled", "static")]
        lines.append(
            (
                row.name,
                row.backbone,
                accuracy_of(row),
                mega(row.macs),
                f"{row.macs / summaries[0]['dense_macs']:.1%}",
                percent(statistics.mean(summary["dense_accuracy"] for summary in summaries)),
                *(percent(control) for control in controls[:3]),
                f"{percent(controls[3])} at {mega(static_macs(group))}",
                seeds(row.seeds),
            )
        )
    columns = ("run", "backbone", "accuracy, %", "MMACs", "of dense", "dense, %", "keep-all", "random", "shuffled")
    return table((*columns, "static", "seeds"), lines)


def equal_costs(groups: Sequence[Group], dense: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Policies (or rivals), each beside every network of its backbone, or a narrower one, that skips nothing and costs
    about the same; those of several networks beside every network of about the same cost, and the most accurate one
    that costs no more.

    What a policy that skips hardly anything would stand beside is its own backbone, so those are left out.
    """
    skipping = [group for group in groups if group.point[0] < (1 - ABOUT) * group.records[0].summary["dense_macs"]]
    return [
        (policy, row)
        for policy in map(row_of, skipping)
        for row in dense
        if (comparable(policy, row) and abs(row.macs / policy.macs - 1) <= ABOUT)
        or (several_networks(policy) and row is most_accurate(dense, policy.macs))
    ]


def most_accurate(dense: Sequence[Row], macs: float) -> Row | None:
    """Of networks that cost ``macs`` or less."""
    cheap = [row for row in dense if row.macs <= macs]
    return max(cheap, key=lambda row: row.accuracy, default=None)


def several_networks(policy: Row) -> bool:
    """Whether there are networks behind a policy's first one."""
    return network_count(policy.backbone) > 1


def comparable(policy: Row, row: Row) -> bool:
    """Whether a network that skips nothing is one that a policy's network could have been instead."""
    return several_networks(policy) or (row.backbone == policy.backbone and row.width <= policy.width)


def equal_table(pairs: Sequence[tuple[Row, Row]]) -> str:
    """A policy and a static network a line."""
    columns = ("run", "accuracy, %", "MMACs", "epochs", "seeds")
    theirs = ("static network", *(f"its {column}" for column in columns[1:]))
    lines = [
        (*equal_cells(policy), *equal_cells(static), f"{100 * (policy.accuracy - static.accuracy):+.2f}")
        for policy, static in pairs
    ]
    return table((*columns, *theirs, "points"), lines)


def equal_cells(row: Row) -> tuple[str, ...]:
    """One side of that table."""
    epochs = "" if row.epochs is None else f"{row.epochs:g}"
    return row.name, accuracy_of(row), mega(row.macs), epochs, seeds(row.seeds)


def time_table(times: Sequence[Timing]) -> str:
    """What skipping saves in time, a comparison a line."""
    lines = [
        (
            time.run,
            time.case,
            f"{time.macs_ratio:.1%}",
            f"{time.ratio:.2f} ({time.quartiles[0]:.2f} to {time.quartiles[1]:.2f})",
            "" if time.means is None else f"{time.means:.2f}",
            f"{time.milliseconds:.2f}",
            time.rival,
            f"{time.rival_milliseconds:.2f}",
        )
        for time in times
    ]
    return table(("run", "case", "MACs of dense", "ratio", "means", "ms", "dense network", "its ms"), lines)


def published_table(rows: Sequence[Row]) -> str:
    """Other people's results."""
    lines = [(row.name, percent(row.accuracy), f"{row.macs / 1e6:.0f}", row.source) for row in rows]
    return table(("method", "accuracy, %", "MMACs", "source"), lines) + (
        "\nMACs are as the papers count them, which is not always with gates, and training recipes are their own: for "
        "orientation, not\na controlled comparison.\n"
    )


def verdicts(groups: Sequence[Group], dense: Sequence[Row], published: Sequence[Row]) -> str:
    """Sentences for each policy: against its backbone, its controls, and all other rows."""
    policies = [row_of(group) for group in groups]
    lines = []
    for group, policy in zip(groups, policies, strict=True):
        accuracy, summaries = policy.accuracy, [record.summary for record in group.records]
        below = statistics.mean(summary["dense_accuracy"] for summary in summaries) - accuracy
        over = {name: accuracy - control_accuracy(group, name) for name in ("shuffled", "static")}
        looking = sum(map(looks_at_image, summaries))
        others = [*dense, *published, *(row for row in policies if row.name != label(group))]
        lines.append(
            f"- `{label(group)}` is {points(-below)} {dense_of(group.first)} and {points(over['static'])} its best "
            f"static subnetwork\n  (which takes {100 * static_macs(group) / policy.macs:.0f} % of its MACs), and "
            f"{points(over['shuffled'])} the same decisions shuffled: "
            f"{verdict(looking, len(summaries))}.\n  Published rows that it dominates: "
            f"{listed(row for row in published if policy.dominates(row))}; rows that dominate it: "
            f"{listed(row for row in others if row.dominates(policy))}."
        )
    return "\n".join(lines) + "\n"


def dense_of(record: Record) -> str:
    """What a policy is compared with, in a sentence."""
    kind = nothing_skipped(record)
    return f"its {kind}" if kind.endswith("backbone") else f"{kind.split()[0]} its networks together"


def verdict(looking: int, runs: int) -> str:
    """Whether policies look at the image, when ``looking`` of ``runs`` beat shuffled by over two standard errors."""
    if looking == 0:
        return "it is not shown to depend on the image"
    return "it depends on the image" if looking == runs else f"{looking} of {runs} runs depend on the image"


def typed(groups: Iterable[Group]) -> str:
    """What was typed, for each run of each row."""
    runs = [(Path(record.name).name, commands(record)) for group in groups for record in group.records]
    parts = (f"{name}:\n\n" + "".join(f"    {line}\n" for line in lines) for name, lines in runs)
    return "\n".join(parts)


def control_accuracy(group: Group, name: str) -> float:
    """A control's accuracy, the mean over seeds."""
    return statistics.mean(record.summary["controls"][name]["accuracy"] for record in group.records)


def static_macs(group: Group) -> float:
    """MACs of the static control, the mean over seeds."""
    return statistics.mean(record.summary["controls"]["static"]["macs_mean"] for record in group.records)


def listed(rows: Iterable[Row]) -> str:
    """The most accurate rows by name, this project's before published ones, and how many more there are."""
    best = sorted(rows, key=lambda row: (row.kind == "published", -row.accuracy))
    names = [f"{row.name} ({percent(row.accuracy)} % at {row.macs / 1e6:.0f} M)" for row in best[:LISTED]]
    return ", ".join(names) + (f" and {len(best) - LISTED} more" if len(best) > LISTED else "") or "none"


def points(difference: float) -> str:
    """A difference of accuracies as words, in points."""
    return f"{abs(100 * difference):.2f} points {'above' if difference >= 0 else 'below'}"


def accuracy_of(row: Row) -> str:
    """In %, with its deviation over seeds, where there are several."""
    return percent(row.accuracy) + ("" if row.deviation is None else f" ± {100 * row.deviation:.2f}")


def percent(accuracy: float) -> str:
    """Without its sign."""
    return f"{100 * accuracy:.2f}"


def mega(macs: float) -> str:
    """MACs in millions."""
    return f"{macs / 1e6:.2f}"


def seeds(numbers: Sequence[int]) -> str:
    """Seeds, in a row."""
    return ", ".join(map(str, numbers))
