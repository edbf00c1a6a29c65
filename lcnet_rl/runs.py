"""Run folders: ``runs/{env}__{algo}__{seed}__{time}/`` with everything that made a result and the result itself.

config.yaml              the settings, as the command line or preset gave them
run.json                 the command, versions, machine, when it started, the classes' names, which training images
MODULE.py                a copy of each module of the user's own that the settings name (a reward, a backbone)
start.safetensors, teacher.safetensors   the dense network that it began with, and the one that it learns from
progress.csv             one row a log point; EXPERIMENTS.md says what the scalars are
events.out.tfevents.*    the same for TensorBoard
checkpoint.safetensors   to go on from: weights, optimisers, step
best.safetensors, model.safetensors   the best model by validation reward, and the final one
backbone.safetensors, metrics.json    instead, of pretrain: the backbone, and its final figures
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import math
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from lcnet_rl.data import Dataset, base_name
from lcnet_rl.distributed import by_main, launched, launcher, world_size
from lcnet_rl.errors import UserError
from lcnet_rl.files import new_folder, read_json, write_text
from lcnet_rl.imports import sources_of
from lcnet_rl.progress import console
from lcnet_rl.provenance import code, cpu_name, digest
from lcnet_rl.settings import read_yaml
from lcnet_rl.tree import load_tree

CONFIG, RUN, PROGRESS, CHECKPOINT = "config.yaml", "run.json", "progress.csv", "checkpoint.safetensors"
MODEL, BEST = "model.safetensors", "best.safetensors"
WEIGHTS = {"final": MODEL, "best": BEST}
"""What --which chooses among."""
START, TEACHER = "start.safetensors", "teacher.safetensors"
"""The dense network that a run began with, and the one it learned from, as --resume needs them."""
METRICS = "metrics.json"
_PACKAGES = ("lcnet-rl", "torch", "torchvision", "gymnasium", "stable-baselines3", "safetensors", "numpy")


def create_run(
    root: Path, env: str, algo: str, seed: int, config: Any, folder: Path | None = None, train: Dataset | None = None
) -> Path:
    """Make a new run folder and write its ``config.yaml`` and ``run.json``.

    Args:
        root: where runs live.
        env: short name of the decision process, e.g. ``LayerChannelSkip``.
        algo: e.g. ``reinforce``.
        seed: the run's seed.
        config: a (nested) dataclass instance.
        folder: a folder to use instead of the conventional name.
        train: the training images: which they are, and the classes' names, for whoever goes on with the run or uses it.

    Raises:
        UserError: when ``folder`` already holds a run.
    """
    if folder is None:
        path = new_folder(root / f"{env}__{algo}__{seed}__{time.strftime('%Y%m%d-%H%M%S')}")
    else:
        path = folder
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
    write_text(path / CONFIG, yaml.safe_dump(plain(config), sort_keys=False))
    sources = sources_of(plain(config))
    about = {
        "command": command_line(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        **({} if train is None else {"classes": list(train.classes), "images": len(train)}),
        **({"files": train.digest} if train is not None and train.digest else {}),
        "machine": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "processes": world_size(),
            "cpu": cpu_name(),
        },
        **({"code": of} if (of := code()) else {}),
        **({"modules": {name: digest(text) for name, text in sources.items()}} if sources else {}),
    }
    write_json(path / RUN, about)
    for name, text in sources.items():
        write_text(path / f"{name}.py", text)
    return path


def check_free(path: Path) -> None:
    """Raise UserError when ``path`` already holds a run."""
    if (path / CONFIG).exists() and not any((path / name).exists() for name in (CHECKPOINT, MODEL, METRICS)):
        raise UserError(
            f"{path} holds a run without a checkpoint to go on from: give another folder, or delete it if nothing runs "
            "there"
        )
    if (path / CONFIG).exists():
        raise UserError(
            f"{path} already holds a run; give another folder, or continue with --resume {shlex.quote(str(path))}"
        )


def command_line() -> str:
    """The command that is running, as it could be typed again, but for passwords in URLs."""
    path = Path(sys.argv[0])
    # Started with python -m lcnet_rl, it is the same command.
    name = "lcnet-rl" if path.parts[-2:] == ("lcnet_rl", "__main__.py") else path.name
    program = launcher() if launched() else shlex.quote(name)
    hidden = [re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", argument) for argument in sys.argv[1:]]
    return f"{program} {shlex.join(hidden)}".rstrip()


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run folder.

    Raises:
        UserError: when the folder holds no run, or its config.yaml is not readable.
    """
    path = run / CONFIG
    if not path.is_file():
        raise no_run_folder(run)
    settings = read_yaml(path, str(path))
    if not isinstance(settings.get("dataset"), str) or not isinstance(settings.get("agent", {}), dict):
        raise UserError(f"{path} is cut short, or no run's: it lacks dataset or agent")
    return settings


def no_run_folder(run: Path) -> UserError:
    """An error for a folder without a run, or of no such name, with the nearest names beside it."""
    beside = [config.parent.name for config in run.parent.glob(f"*/{CONFIG}")]
    near = difflib.get_close_matches(run.name, beside, n=2)
    hint = f"; did you mean {' or '.join(str(run.with_name(name)) for name in near)}?" if near else ""
    return UserError(f"{run} is no run folder: it holds no {CONFIG}{hint}")


def load_checkpoint(run: Path) -> dict[str, Any]:
    """What a run goes on from.

    Raises:
        UserError: when it has no checkpoint, or a damaged one.
    """
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} has no {CHECKPOINT} to go on from; start anew, in another folder")
    return load_tree(run / CHECKPOINT)


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Inside the block a checkpoint is taken up.

    Raises:
        UserError: when it is of another network, or was written by a version that kept other things in it.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch's, for weights and for optimisers that do not fit
        raise UserError(f"{path} is of another network or optimizer: {str(error).splitlines()[-1].strip()}") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} was written by another version of this project ({error}); train anew") from error


def data_root(given: Path | str | None, settings: dict[str, Any]) -> Path | str | None:
    """Where a run's data are: as ``given``, or else where the run had them; None is the usual place."""
    return given or (Path(settings["data_root"]) if settings.get("data_root") else None)


def check_classes(run: Path, count: int, dataset: str, classes: tuple[str, ...]) -> None:
    """Make sure that ``classes`` can be the names of the ``count`` classes that the network of ``run`` knows.

    Raises:
        UserError: when ``dataset`` has others by now.
    """
    if count != len(classes):
        raise UserError(f"{run} tells {count} classes apart, but {dataset} now has {len(classes)}")
    known = recorded_classes(run)
    if known and known != classes:
        raise UserError(f"{run} knows the classes {', '.join(known)}, but {dataset} now has {', '.join(classes)}")


def check_same_data(run: Path, train: Dataset) -> None:
    """Make sure that a run goes on with the training images that it began with, as far as it has recorded them.

    Raises:
        UserError: for other classes, another number of images, by which steps are counted and images are shuffled, or
            other files, of which others are for validation.
    """
    check_classes(run, len(train.classes), train.name, train.classes)
    began = _about(run).get("images")
    if began not in (None, len(train)):
        raise UserError(f"{run} began with {began:,} training images, but {train.name} now has {len(train):,}")
    if changed(run, train):
        raise UserError(f"files in {train.name} have other names than when {run} began, so others are for validation")


def changed(run: Path, train: Dataset) -> bool:
    """Whether ``run`` was trained on other files of a folder: then it may have seen what is for validation now."""
    return _about(run).get("files", train.digest) != train.digest


def warn_if_changed(run: Path, train: Dataset) -> None:
    """Say so if ``run`` may have been trained on what are validation images now; nothing of what is no run folder.

    A file in a run folder, such as its weights, stands for the folder.
    """
    run = run.parent if run.is_file() else run
    if not (run / CONFIG).is_file():
        return
    began = read_config(run)["dataset"]
    if base_name(began) == train.name != began:
        console.print(
            f"{run} was trained on half of the validation images of {train.name}, so accuracy on these is too high, "
            "and what is chosen by it is biased; test images are not affected",
            style="yellow",
            soft_wrap=True,
        )
    if changed(run, train) and base_name(began) == base_name(train.name):
        console.print(
            f"files in {train.name} were added, removed or renamed since {run} began: it may have been trained on "
            "what are validation images now, so accuracy on these is too high, and what is chosen by it is biased; "
            "test images are not affected",
            style="yellow",
            soft_wrap=True,
        )


def warn_if_edited(run: Path, config: Any) -> None:
    """Say so if a module of the user's own is not what it was when ``run`` began, which goes on with ``config``."""
    began = recorded_modules(run)
    for name, text in sources_of(plain(config)).items():
        if began.get(name, digest(text)) != digest(text):
            console.print(
                f"{name} was changed since {run} began: from here on the run is trained by other code; what it began "
                f"with is {run / name}.py",
                style="yellow",
                soft_wrap=True,
            )


def recorded_modules(run: Path) -> dict[str, str]:
    """Users' own modules that a run was made with, by name, a digest of each; empty where none is recorded."""
    return dict(_about(run).get("modules", {}))


def recorded_classes(run: Path) -> tuple[str, ...] | None:
    """The classes' names, of a run that has recorded them."""
    names = _about(run).get("classes")
    return tuple(names) if names else None


def _about(run: Path) -> dict[str, Any]:
    """What ``run.json`` says."""
    return read_json(run / RUN) if (run / RUN).is_file() else {}


def plain(value: Any) -> Any:
    """A dataclass as dicts, lists, numbers and strings, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Any) -> None:
    """Write JSON, readable and atomically."""
    write_text(path, json.dumps(plain(content), indent=2) + "\n")


class MetricsLog:
    """Scalars of a run, to progress.csv and TensorBoard; a resumed run goes on in the same files.

    Of several processes the main one alone has files.
    """

    @by_main
    def __init__(self, run: Path, resume_at: int | None = None) -> None:
        """Open the log of ``run``; on resume, rows past the checkpoint's step ``resume_at`` go: they come again."""
        self._path = run / PROGRESS
        self._rows: list[dict[str, str]] = []
        if resume_at is not None and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
            self._rows = [row for row in rows if int(row["time/total_timesteps"]) <= resume_at]
        self._tensorboard = SummaryWriter(str(run), purge_step=None if resume_at is None else resume_at + 1)
        self._flush()

    @by_main
    def write(self, step: int, values: dict[str, float]) -> None:
        """Log one row, unless it is there already: a finished run that is resumed ends with the same validation.

        Args:
            step: environment steps or training images so far, the x axis.
            values: scalar names (stable-baselines3's where it has one) to values.
        """
        row = {"time/total_timesteps": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        if row in self._rows:
            return
        for name, value in values.items():
            if math.isfinite(value):
                self._tensorboard.add_scalar(name, value, step)
        self._rows.append(row)
        self._flush()

    @by_main
    def close(self) -> None:
        """Close TensorBoard's file."""
        self._tensorboard.close()

    def _flush(self) -> None:
        # Small (a row a log point) and new columns may appear at any time, so the whole table is written anew.
        columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["time/total_timesteps"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())
