"""README and EXPERIMENTS say what the committed runs say."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pytest

from lcnet_rl.weights import REFERENCE

ROWS = json.loads((REFERENCE / "results.json").read_text())["rows"]
LINES = [
    (name, line)
    for name in ("README.md", "EXPERIMENTS.md")
    for line in (REFERENCE.parent.parent / name).read_text().splitlines()
    if line.startswith("|") and re.search(r"`resnet[^`]*`\)? \|", line) and ": probe" not in line
]


def figures() -> dict[str, set[str]]:
    """By run folder: accuracies of policy and controls in %, MMACs, and the share of dense MACs in %, as text."""
    dense = {(row["backbone"], row["width"]): row["macs"] for row in ROWS if row["kind"] == "dense"}
    found = defaultdict(set)
    for row in ROWS:
        if row["kind"] != "published":
            share = 100 * row["macs"] / dense[row["backbone"], row["width"]]
            found[row["name"].partition(":")[0]] |= {
                f"{100 * row['accuracy']:.2f}",
                f"{row['macs'] / 1e6:.1f}",
                f"{share:.1f}",
            }
    return found


def test_there_are_lines_to_check() -> None:
    assert len(LINES) >= 14


@pytest.mark.parametrize(("document", "line"), LINES, ids=lambda value: value[:50])
def test_a_tables_line_about_a_run_has_the_runs_figures(document: str, line: str) -> None:
    (run,) = re.findall(r"`(resnet[^`]*)`", line)
    told = re.findall(r"(?<![\w.-])\d{2}\.\d+(?![\w.])", line.replace(f"`{run}`", ""))
    assert told
    assert set(told) <= figures()[run], f"{document}: {line}"
