"""``lcnet-rl frontier``: the Pareto frontier of a study or of runs, as a table, a picture and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lcnet_rl.commands.run_defaults import with_defaults
from lcnet_rl.comparison.kinds import is_dense
from lcnet_rl.comparison.records import Record, Split, of_dense, of_run
from lcnet_rl.comparison.show import show
from lcnet_rl.comparison.standing import Reference, standing
from lcnet_rl.errors import UserError
from lcnet_rl.progress import say
from lcnet_rl.runs import CONFIG, no_run_folder


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
    reference: Reference = "all"
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
        if Path(name).name != name:  # a path, which no study is called
            raise no_run_folder(Path(name))
    split: Split = ("val" if studies else "test") if config.split == "auto" else config.split
    if studies and split == "test":
        raise UserError(
            f"trials of {', '.join(studies)} have no figures on test images; evaluate the ones that you chose with "
            "'lcnet-rl evaluate RUN' and give their run folders"
        )
    records, storage = of_studies(studies, config) if studies else ([], "")
    records += [record for name in folders if not is_dense(Path(name)) for record in of_run(Path(name), split)]
    fixed = [of_dense(Path(name), split) for name in folders if is_dense(Path(name))]
    if fixed and not records:
        raise UserError("these are dense networks; give runs of lcnet-rl train, or a study, to hold against them")
    out = config.out or config.runs / (studies[0] if studies else "frontier")
    show(standing(records, split, with_defaults, config.reference, fixed, config.hypervolume_mmacs), out)
    if studies:
        say(f"studies in {storage}")


def of_studies(names: Sequence[str], config: Frontier) -> tuple[list[Record], str]:
    """The records of studies' completed trials, and the URL of their database without its password."""
    # Imported here since Optuna takes a second, which run folders should not cost.
    from lcnet_rl.sweep.study import default_storage, load_study, of_study, shown

    storage = config.storage or default_storage(config.runs)
    return [record for name in names for record in of_study(load_study(name, storage))], shown(storage)
