"""Which commands lead to a committed run, from nothing: its own again, after those of the network it starts from."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lcnet_rl.errors import UserError
from lcnet_rl.results.rows import METRICS, typed
from lcnet_rl.runs import CHECKPOINT, CONFIG, MODEL, read_config
from lcnet_rl.weights import pretrained


@dataclass(frozen=True)
class Reproduction:
    """A committed run, and the folder in which it is made again."""

    reference: Path
    out: Path
    """Where all runs are made again, each under its own name."""

    @property
    def folder(self) -> Path:
        """Where this one is."""
        return self.out / self.reference.name

    @property
    def is_dense(self) -> bool:
        """Whether it trained a backbone, no agent."""
        return "agent" not in read_config(self.reference)

    @property
    def starts_from(self) -> Path | None:
        """The committed run whose network it starts from; None from scratch."""
        init = option(self._arguments(), "--init")
        if init is not None:
            path = self.reference.parent / Path(init).name
            return path if (path / CONFIG).is_file() else None
        settings = read_config(self.reference)
        if self.is_dense or settings["init"] != "auto":
            return None
        weights = pretrained(settings["dataset"], settings["backbone"], settings["width"])
        return None if weights is None else weights.parent

    def training(self) -> list[str] | None:
        """Arguments of ``lcnet-rl`` that train it, or go on training it; None when that is done."""
        command = "pretrain" if self.is_dense else "train"
        if (self.folder / (METRICS if self.is_dense else MODEL)).is_file():
            return None
        if (self.folder / CHECKPOINT).is_file():
            return [command, "--resume", str(self.folder)]
        # A run that was killed before its first checkpoint has learned nothing, and its folder would be in the way.
        shutil.rmtree(self.folder, ignore_errors=True)
        arguments, start = self._arguments(), self.starts_from
        given = {"--run": str(self.folder)} | ({} if start is None else {"--init": str(self.out / start.name)})
        for name, value in given.items():
            if name in arguments:
                arguments[arguments.index(name) + 1] = value
            else:
                arguments += [name, value]
        return arguments

    def evaluations(self) -> list[list[str]]:
        """Arguments of ``lcnet-rl`` for each evaluation on test images that is not done; dense runs have none."""
        left = []
        for recorded in sorted(self.reference.glob("evaluation-test*.json")):
            if not (self.folder / recorded.name).is_file():
                command = shlex.split(json.loads(recorded.read_text(encoding="utf-8"))["command"])
                left.append([str(self.folder) if is_run(part, self.reference) else part for part in command[1:]])
        return left

    def copy(self) -> None:
        """Take the committed network instead of training it; its figures are then measured again."""
        if not self.folder.exists():
            figures = shutil.ignore_patterns("evaluation-*.json", METRICS, "*.png")
            shutil.copytree(self.reference, self.folder, ignore=figures)

    def _arguments(self) -> list[str]:
        program, *arguments = shlex.split(typed(self.reference))
        if program != "lcnet-rl":
            raise UserError(f"{self.reference} was not made by lcnet-rl itself, but by: {typed(self.reference)}")
        return arguments


def is_run(argument: str, reference: Path) -> bool:
    """Whether an argument of a recorded command is the committed run's folder."""
    return Path(argument).name == reference.name


def option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option, if it is among the arguments."""
    return arguments[arguments.index(name) + 1] if name in arguments else None


def in_order(chosen: Sequence[Reproduction]) -> list[Reproduction]:
    """What is chosen, and before each what it starts from."""
    ordered: dict[Path, Reproduction] = {}

    def add(run: Reproduction) -> None:
        if run.starts_from is not None:
            add(Reproduction(run.starts_from, run.out))
        ordered.setdefault(run.reference, run)

    for run in chosen:
        add(run)
    return list(ordered.values())
