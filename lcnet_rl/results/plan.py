"""Which commands lead to a committed run, from nothing: its own again, after those of the network it starts from."""

from __future__ import annotations

import filecmp
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcnet_rl.comparison.kinds import is_dense, origin
from lcnet_rl.comparison.records import ORIGINS, WHERE_AND_HOW
from lcnet_rl.device import Precision
from lcnet_rl.errors import UserError
from lcnet_rl.files import read_json
from lcnet_rl.results.rows import TIMES, evaluations, typed
from lcnet_rl.runs import CHECKPOINT, METRICS, MODEL, read_config
from lcnet_rl.settings import dotted
from lcnet_rl.weights import BACKBONE

FREE = (*ORIGINS, *WHERE_AND_HOW, "agent.precision", "recipe.precision")
"""Settings in which a run and the same made again may differ; those of what it starts from are compared there."""


@dataclass(frozen=True)
class Reproduction:
    """A committed run, and the folder in which it is made again."""

    reference: Path
    """In ``runs/reference`` of the folder in which the recorded commands were typed."""
    out: Path
    """Where runs are made again, each under its own name."""

    options: tuple[str, ...] = ()
    """Added to the recorded commands, for what differs on this machine."""

    precision: Precision | None = None
    """Of training; None as recorded."""

    @property
    def folder(self) -> Path:
        """Where this one is."""
        return self.out / self.reference.name

    @property
    def starts_from(self) -> dict[str, Path]:
        """The committed runs whose networks it starts from or is taught by, by option, as far as they are such."""
        found = {f"--{option}": origin(self.reference, option) for option in ORIGINS}
        return {option: run for option, run in found.items() if run is not None}

    def training(self) -> list[str] | None:
        """Arguments of ``lcnet-rl`` that train it, or go on training it; None when that is done.

        Raises:
            UserError: when something else is in its folder.
        """
        dense = is_dense(self.reference)
        if self.folder.exists():
            self._check_folder()
            if (self.folder / (METRICS if dense else MODEL)).is_file():
                return None
            begun = dotted(read_config(self.folder)).get("recipe.precision" if dense else "agent.precision")
            if self.precision not in (None, begun):
                raise UserError(f"{self.folder} was begun in {begun}, not {self.precision}; delete it to start anew")
            return ["pretrain" if dense else "train", "--resume", str(self.folder), *self.options]
        # Of an option that is given twice, the later one counts.
        arguments = [*self._arguments(), "--run", str(self.folder)]
        for option, run in self.starts_from.items():
            arguments += [option, str(self.out / run.name)]
        if self.precision is not None:
            arguments += ["--recipe.precision" if dense else "--precision", self.precision]
        return [*arguments, *self.options]

    def evaluations(self) -> list[list[str]]:
        """Arguments of ``lcnet-rl`` for each evaluation on test images that is not done.

        Raises:
            UserError: when a recorded command evaluated another folder.
        """
        left = []
        for recorded in evaluations(self.reference):
            if not (self.folder / recorded.name).is_file():
                _, *arguments = shlex.split(read_json(recorded)["command"])
                own = [part for part in arguments if self._path(part) == self.reference.resolve()]
                if not own:
                    raise UserError(f"{recorded} was written by a command for another folder: {shlex.join(arguments)}")
                left.append([*(str(self.folder) if part in own else part for part in arguments), *self.options])
        return left

    def copy(self) -> None:
        """Take the committed network instead of training it; its figures are then measured again.

        Raises:
            UserError: when something else is in the folder.
        """
        if self.folder.exists():
            self._check_folder()
            weights = BACKBONE if is_dense(self.reference) else MODEL
            if not filecmp.cmp(self.reference / weights, self.folder / weights, shallow=False):
                raise UserError(f"{self.folder} holds other weights than {self.reference}; delete it to start anew")
            return
        part = self.folder.with_name(f"{self.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        figures = shutil.ignore_patterns("evaluation-*.json", "images-*.csv", TIMES, "bench.*", "*.png")
        shutil.copytree(self.reference, part, ignore=figures)
        part.rename(self.folder)

    def _check_folder(self) -> None:
        """Refuse to take what is in the folder for this run, unless its settings are the same."""
        theirs, ours = (dotted(read_config(run)) for run in (self.folder, self.reference))
        # A run from before a setting existed does not name it.
        if any(theirs.get(name) != value for name, value in ours.items() if name not in FREE):
            raise UserError(f"{self.folder} has other settings than {self.reference}; delete it to start anew")
        if not any((self.folder / name).is_file() for name in (CHECKPOINT, MODEL, BACKBONE)):
            raise UserError(f"{self.folder} was stopped before its first checkpoint; delete it to start anew")

    def _path(self, argument: str) -> Path:
        """What an argument of a recorded command means as a path, from the folder above ``runs/reference``."""
        return (self.reference.parents[2] / argument).resolve()

    def _arguments(self) -> list[str]:
        """Of the recorded command; what torchrun shared among processes, one computes too, up to rounding."""
        parts = shlex.split(typed(self.reference))
        for program in ("lcnet-rl", "lcnet_rl"):
            if program in parts:
                return parts[parts.index(program) + 1 :]
        raise UserError(f"{self.reference} was not made by lcnet-rl, but by: {shlex.join(parts)}")


def in_order(chosen: Sequence[Reproduction]) -> list[Reproduction]:
    """What is chosen, and before each what it starts from."""
    ordered: dict[Path, Reproduction] = {}

    def add(run: Reproduction) -> None:
        for needed in run.starts_from.values():
            add(replace(run, reference=needed))
        ordered.setdefault(run.reference, run)

    for run in chosen:
        add(run)
    return list(ordered.values())
