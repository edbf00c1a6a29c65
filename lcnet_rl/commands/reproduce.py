"""``lcnet-rl reproduce``: the committed results again, from nothing or from the committed networks, and RESULTS.md."""

from __future__ import annotations

import filecmp
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lcnet_rl.commands.run_defaults import with_defaults
from lcnet_rl.comparison.kinds import is_dense, is_pruned, is_rival
from lcnet_rl.comparison.picture import plot_frontier
from lcnet_rl.comparison.published import CIFAR10
from lcnet_rl.comparison.records import Group, grouped
from lcnet_rl.device import Precision
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.files import read_json, replacing, write_json, write_text
from lcnet_rl.interrupt import deferred_interrupt
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.progress import console, say
from lcnet_rl.provenance import ROOT
from lcnet_rl.results.page import page
from lcnet_rl.results.plan import Reproduction, in_order
from lcnet_rl.results.rows import (
    Row,
    agent_records,
    agent_rows,
    dense_records,
    evaluations,
    label,
    published_rows,
    row_of,
    timings,
)
from lcnet_rl.runs import CONFIG
from lcnet_rl.tables import table_of

KINDS: dict[str, Callable[[Path], bool]] = {
    "dense": is_dense,
    "static": is_pruned,
    "policies": lambda run: not is_dense(run) and not is_rival(run),
    "rivals": is_rival,
}
"""And which runs are of them; pruned networks are dense ones too, as nothing is decided in them."""


@dataclass(frozen=True)
class Reproduce:
    """Make committed results again and compare figures; then write RESULTS.md, runs/reference/results.json and its
    frontier.png from the committed ones, also with --eval-only.

    What is done is skipped, so the same command goes on where it was stopped.
    """

    what: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ROW|RUN|KIND ...]", help_behavior_hint="")
    ] = ()
    """Rows of RESULTS.md by name, such as resnet20-35 or "resnet20-range at price 1": the runs of all seeds; single
    runs by a name that has the seed (resnet20-35-1) or by path (runs/reference/resnet20-35); or all of a kind: dense
    (static too), static (pruned), policies, rivals. Without any, everything."""
    eval_only: bool = False
    """Measure the committed networks again instead of training them."""
    page_only: bool = False
    """Only write RESULTS.md, results.json and frontier.png."""
    out: Path = Path("runs")
    """Runs are made again in its folder reproduced; with --eval-only they are measured in measured-again."""
    device: str | None = None
    """auto, cpu, cuda or cuda:N; by default as recorded."""
    precision: Precision | None = None
    """Of training: auto (the faster one here), bf16 or fp32; by default as recorded, which is mostly bf16: ten times
    slower than fp32 on CPUs without instructions for it."""
    data_root: Path | None = None
    """Where data sets are kept; by default LCNET_RL_DATA or the user's cache folder."""


def run(config: Reproduce) -> None:
    """Train, evaluate, compare, write."""
    if config.page_only and config != Reproduce(page_only=True):
        raise UserError("--page-only makes nothing again: give no runs and no other option")
    if config.eval_only and config.precision is not None:
        raise UserError("--precision is of training: evaluation is in float32, also with --eval-only")
    runs = sorted(path.parent for path in REFERENCE.glob(f"*/{CONFIG}"))
    if not runs:
        raise UserError(f"no runs in {REFERENCE}: reproduce needs a clone of the repository, installed with pip -e")
    if not config.page_only:
        out = config.out.resolve() / ("measured-again" if config.eval_only else "reproduced")
        options = [] if config.device is None else ["--device", config.device]
        options += [] if config.data_root is None else ["--data-root", str(config.data_root.resolve())]
        chosen = [Reproduction(run, out, tuple(options), config.precision) for run in choose(config.what, runs)]
        todo = chosen if config.eval_only else in_order(chosen)
        for reproduction in todo:
            if config.eval_only:
                measure_again(reproduction)
            else:
                train_again(reproduction)
        print_comparison(todo)
    write_results(runs)


def choose(what: Sequence[str], runs: Sequence[Path]) -> list[Path]:
    """The runs of these rows, names, paths or kinds; all for none.

    Many rows are called as the folder of their first seed is: that name is all seeds of the row, the path one run.

    Raises:
        UserError: for a name that is none of these.
    """
    known: dict[str, Iterable[Path]] = {run.name: [run] for run in runs}
    if not KINDS.keys() >= set(what):  # collecting the rows takes seconds
        known |= rows_of(runs)
    known |= {kind: filter(of_kind, runs) for kind, of_kind in KINDS.items()}
    paths = {run.resolve(): run for run in runs}
    chosen: dict[Path, None] = {}
    for name in what or KINDS:
        path = Path(name).resolve()
        if name not in known and path not in paths:
            listed = f"{', '.join(KINDS)}, the rows of RESULTS.md, and the folders in {REFERENCE}"
            raise unknown_name("row, run or kind", name, known, listed)
        chosen |= dict.fromkeys(known[name] if name in known else [paths[path]])
    return list(chosen)


def rows_of(runs: Sequence[Path]) -> dict[str, dict[Path, None]]:
    """The runs of all seeds of each row, by its name; by that of the first seed's folder, of all rows of these runs."""
    dense, groups, _ = collect(runs)
    found: dict[str, dict[Path, None]] = {}
    for group in (*dense, *groups):
        folders = dict.fromkeys(Path(record.name) for record in group.records)
        for name in (label(group), Path(group.first.name).name):
            found.setdefault(name, {}).update(folders)
    return found


def train_again(run: Reproduction) -> None:
    """Everything that is not done yet."""
    training = run.training()
    if training is not None:
        call(training)
    for evaluation in run.evaluations():
        call(evaluation)


def measure_again(run: Reproduction) -> None:
    """The committed network's figures."""
    run.copy()
    for evaluation in run.evaluations():
        call(evaluation)


def call(arguments: Sequence[str]) -> None:
    """Run a command in a process of its own, where the recorded one was typed.

    Raises:
        UserError: when it fails; it has said why.
        KeyboardInterrupt: when it was stopped by Ctrl-C, and has saved what it had.
    """
    command = shlex.join(["lcnet-rl", *arguments])
    say(f"$ {command}", style="bold")
    # Ctrl-C reaches both processes; this one waits until the other has saved its work.
    with deferred_interrupt(terminate=False) as interrupt:
        code = subprocess.Popen([sys.executable, "-m", "lcnet_rl", *arguments], cwd=ROOT).wait()
    if interrupt.requested or code == 130:
        console.print("stopped; the same lcnet-rl reproduce goes on", highlight=False)
        raise KeyboardInterrupt
    if code:
        raise UserError(f"it failed ({code}): {command}")


def print_comparison(runs: Sequence[Reproduction]) -> None:
    """Recorded figures beside those made again."""
    columns = "recorded", "again", "difference"
    table = table_of("test images: recorded, and made again", ["run", "figure"], columns)
    for run in runs:
        for path in evaluations(run.reference):
            was, now = (figures(at / path.name) for at in (run.reference, run.folder))
            for name, value in was.items():
                numbers = (f"{value:.4f}", f"{now[name]:.4f}", f"{now[name] - value:+.4f}")
                table.add_row(run.reference.name, f"{path.stem}: {name}", *numbers)
    console.print(table)


def figures(path: Path) -> dict[str, float]:
    """What is compared of an evaluation: accuracy in [0, 1], and MACs an image in millions."""
    summary = read_json(path)
    return {"accuracy": summary["accuracy"], "MMACs": summary["macs_mean"] / 1e6}


def write_results(runs: Sequence[Path]) -> None:
    """RESULTS.md, its picture and results.json, from the committed figures on CIFAR-10; what stays the same is left."""
    dense, groups, published = collect(runs)
    networks = [row_of(group) for group in dense]
    rows = [*networks, *(row for group in groups for row in agent_rows(group)), *published]
    whole, pruned = (
        {f"{kind}: {row.name}": (row.macs, row.accuracy) for row in networks if row.kind == kind}
        for kind in ("dense", "static")
    )
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        write_text(made / "RESULTS.md", page(dense, groups, published, timings(runs, "cifar10")))
        write_json(made / "results.json", {"rows": rows})
        plot_frontier(groups, whole, pruned, CIFAR10, "CIFAR-10, test images", made / "frontier.png")
        for path in (ROOT / "RESULTS.md", REFERENCE / "results.json", REFERENCE / "frontier.png"):
            changed = not path.is_file() or not filecmp.cmp(made / path.name, path, shallow=False)
            if changed:
                with replacing(path) as part:
                    shutil.copyfile(made / path.name, part)
            say(f"{'written' if changed else 'unchanged'}: {path}")


def collect(runs: Sequence[Path]) -> tuple[list[Group], list[Group], list[Row]]:
    """Dense and pruned backbones, and policies and rivals, grouped over seeds, and published results, on CIFAR-10."""
    dense, agents = (grouped(records(runs, "cifar10"), with_defaults) for records in (dense_records, agent_records))
    return dense, agents, published_rows()
