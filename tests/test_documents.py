"""README and EXPERIMENTS say what the committed runs say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_agents_runs import joint

from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.runs import PROGRESS

ROWS = {row["name"]: row for row in json.loads((REFERENCE / "results.json").read_text())["rows"]}
DENSE = {
    (row["backbone"], row["width"]): row
    for row in sorted(ROWS.values(), key=lambda row: float(row["accuracy"]))
    if row["kind"] == "dense"
}
"""Of those that are alike, the most accurate one."""


OTHER_COLUMNS = {
    *("", "networks", "for every image", "gate", "reward", "decides", "changed"),  # what it is about
    "before block",
    *("policy in `runs/reference/`", "run in `runs/reference/`", "in `runs/reference/`"),
    *("published, dynamic", "images sent on, %"),
    *("deviation", "price found", "`--lr`"),
    *("policy", "128 images, engine", "one image, ONNX Runtime, median", "one image, mean"),
    *map(str, range(8)),
    "head",
}
"""Columns of which ``results.json`` knows nothing; the last nine are a probe's accuracy before each block."""


class Cell(NamedTuple):
    document: str
    run: str
    column: str
    text: str


def rows() -> Iterator[tuple[str, list[str], list[str]]]:
    """Every row of every table: the document, the columns' names, and what it says."""
    for document in ("README.md", "EXPERIMENTS.md"):
        header: list[str] = []
        for line in (REFERENCE.parent.parent / document).read_text().splitlines():
            parts = [part.strip() for part in line.strip("|").split("|")]
            if not line.startswith("|"):
                header = []
            elif not header:
                header = parts
            elif not set(line) <= set("|-"):
                yield document, header, parts


def cells() -> Iterator[Cell]:
    """What tables say in lines that name a run folder."""
    for document, header, parts in rows():
        if named := [run for part in parts for run in re.findall(r"`([^`]*)`", part) if run in ROWS]:
            yield from (Cell(document, named[0], *pair) for pair in zip(header, parts, strict=True))


def pruned(run: str) -> dict[str, Any]:
    """The network that was pruned to the MACs of a policy, or nearly, and trained for as many epochs."""
    policy, alike = ROWS[run], ("backbone", "width", "epochs")
    found = (row for row in ROWS.values() if row["kind"] == "static" and all(row[key] == policy[key] for key in alike))
    return min(found, key=lambda row: abs(row["macs"] - policy["macs"]))


def figure(run: str, column: str) -> str | None:
    """What a column of that name should say of a run; None for columns that say something else."""
    row, control = ROWS[run], ROWS.get(f"{run}: {re.split('[, ]', column)[0]}")
    dense = DENSE.get((row["backbone"], row["width"]), {"accuracy": math.nan, "macs": math.nan})
    share = f"{100 * row['macs'] / dense['macs']:.1f}"  # of two networks none is told
    if control is not None:
        accuracy = f"{100 * control['accuracy']:.2f}"
        at = {"share": f" at {100 * control['macs'] / dense['macs']:.1f}", "MMACs": f" at {control['macs'] / 1e6:.1f}"}
        return accuracy + at.get(column.partition(" at ")[2], "")
    if column == "pruned: %, MMACs":
        return f"{100 * pruned(run)['accuracy']:.2f}, {pruned(run)['macs'] / 1e6:.1f}"
    return {
        "accuracy, %": f"{100 * row['accuracy']:.2f}",
        "test, %": f"{100 * row['accuracy']:.2f}",
        "MMACs": f"{row['macs'] / 1e6:.1f}",
        "share of dense, %": share,
        "share of dense MACs, %": share,
        "network (dense: %, MMACs)": f"({100 * dense['accuracy']:.2f} %, {dense['macs'] / 1e6:.0f})",
        "epochs": f"{row['epochs'] or 0:g}",
        "seeds": ", ".join(map(str, row["seeds"])),
    }.get(column)


TOLD = [cell for cell in cells() if cell.text and figure(cell.run, cell.column)]


def test_every_column_is_checked_or_known_to_say_something_else() -> None:
    assert len(TOLD) > 200
    assert {cell.column for cell in cells() if cell.text} - {cell.column for cell in TOLD} == OTHER_COLUMNS


def test_every_run_that_a_table_names_is_among_the_results() -> None:
    named = {parts[-1].strip("`") for _, header, parts in rows() if "`runs/reference/`" in header[-1]}
    assert len(named) > 30
    assert named - {""} <= ROWS.keys()


@pytest.mark.parametrize("cell", TOLD, ids=lambda cell: f"{cell.run}-{cell.column}")
def test_a_table_says_of_a_run_what_its_files_say(cell: Cell) -> None:
    told, expected = cell.text, figure(cell.run, cell.column)
    if cell.column.startswith("network"):  # its name stands before that
        told = re.sub(r"^.*(?=\()|(?<=\)).*$", "", told)
    assert told == expected, cell.document


def test_the_policies_that_are_shown_to_look_at_the_image_are_counted() -> None:
    root = REFERENCE.parent.parent
    verdicts = dict(re.findall(r"^- `(.+?)` ((?:.|\n)+?)(?=^- `|^## )", (root / "RESULTS.md").read_text(), re.M))
    rows = [name for name, row in ROWS.items() if row["kind"] == "policy" and " + " not in row["backbone"]]
    shown = [name for name in rows if "it depends on the image" in verdicts[name]]
    gains = [100 * (ROWS[name]["accuracy"] - ROWS[f"{name}: shuffled"]["accuracy"]) for name in shown]
    counts = len(rows), len({name.partition(" at ")[0] for name in rows}), len(shown)
    told = "{} results of {} such policies; {} of them are clearly above the same decisions shuffled"
    assert f"{told.format(*counts)}, by {min(gains):.1f} to {max(gains):.1f} points" in " ".join(
        (root / "README.md").read_text().split()
    )


def test_every_scalar_that_is_logged_is_explained(tmp_path: Path) -> None:
    joint(tmp_path, epochs=0.25, log_every=1, evals=1, target=None).train()
    told = set(
        re.findall(r"`((?:rollout|train|eval|time)/\w+)`", (REFERENCE.parent.parent / "EXPERIMENTS.md").read_text())
    )
    for run in (tmp_path, REFERENCE / "resnet20-65", REFERENCE / "resnet20"):
        logged = set((run / PROGRESS).read_text().partition("\n")[0].split(","))
        assert {"eval/accuracy", "time/total_timesteps"} < logged <= told, run


NETWORKS = {"ResNet-18, width 64": "w64", "width 32": "w32", "ResNet-20": "resnet20", "ResNet-56": "resnet56"}
KEPT = {"half, by blocks": "blocks50", "half, by filter groups": "groups50", "everything": "all"}

CASES = [
    (way, kept)
    for way in (
        "one image, ONNX Runtime, blocked layout",
        "one image, ONNX Runtime, standard layout",
        "128 images, engine",
    )
    for kept in KEPT
]
"""The rows of both tables."""


def ratio(times: str, way: str, kept: str, network: str) -> str:
    """A case's ratio, as ``bench --preset standard --json`` wrote it into the file ``times``."""
    kind = "engine-b128" if way.endswith("engine") else "onnx-b1"
    layout = re.search(r"(\w+) layout", way)
    (found,) = (
        case["ratio"]
        for case in json.loads((REFERENCE / times).read_text())["cases"]
        if case["name"].startswith(f"{kind}-{NETWORKS[network]}-{KEPT[kept]}")
        and (layout is None or layout[1] in case["this"])
    )
    return f"{found:.2f}"


def test_times_of_trained_policies_are_those_of_their_files() -> None:
    header = ["policy", "128 images, engine", "one image, ONNX Runtime, median", "one image, mean"]
    shown = [parts for document, columns, parts in rows() if columns == header]
    assert len(shown) >= 9
    for name, *told in shown:
        timed = json.loads((REFERENCE / name.strip("`") / "times.json").read_text())
        assert "EPYC" in timed["machine"]["cpu"], "where the text says that all were timed"
        cases = {case["name"]: case for case in timed["cases"]}
        batch = cases["engine policy fp32, batch 128"]
        # Of the two layouts the blocked one, which comes last, where a network allows it.
        single = [case for name, case in cases.items() if name.startswith("ONNX Runtime policy")][-1]
        figures = batch["ratio"], single["ratio"], single["mean_ratio"]
        assert told[:2] == [f"{figure:.2f}" for figure in figures[:2]], name
        assert told[2] in ("", f"{figures[2]:.2f}"), name


@pytest.mark.parametrize(
    ("document", "times"),
    [
        ("README.md", "standard-times.json"),
        ("EXPERIMENTS.md", "standard-times-xeon.json"),
        ("EXPERIMENTS.md", "standard-times-avx2.json"),
    ],
)
def test_a_table_of_times_is_that_of_the_committed_file(document: str, times: str) -> None:
    text = (REFERENCE.parent.parent / document).read_text()
    lines = text[text.index(f"{times}`") :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| | kept | "))
    shown = (line.strip("|").split("|") for line in lines[start : start + 2 + len(CASES)])
    header, _, *rows = ([part.strip() for part in parts] for parts in shown)
    assert [tuple(row[:2]) for row in rows] == CASES
    for way, kept, *told in rows:
        assert told == [ratio(times, way, kept, network) for network in header[2:]], (way, kept)
