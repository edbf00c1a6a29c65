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

``evaluate`` adds evaluation-SPLIT.json, images-SPLIT.csv and pictures, ``export`` model.onnx, ``bench`` bench.json.
What ``--which best``, ``--price`` or ``--budget`` made is named for it: evaluation-SPLIT-budget0.5.json.
"""

from __future__ import annotations

import difflib
import platform
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from lcnet_rl.data import Dataset, class_names
from lcnet_rl.errors import DivergedError, UserError
from lcnet_rl.files import file_name, new_folder, plain, read_json, write_json, write_text
from lcnet_rl.imports import sources_of
from lcnet_rl.job import LostProcess, launcher, world_size
from lcnet_rl.provenance import code, command_line, cpu_name, digest
from lcnet_rl.settings import read_yaml
from lcnet_rl.tree import load_tree

CONFIG, RUN, PROGRESS, CHECKPOINT = "config.yaml", "run.json", "progress.csv", "checkpoint.safetensors"
MODEL, BEST = "model.safetensors", "best.safetensors"
WEIGHTS = {"final": MODEL, "best": BEST}
"""What --which chooses among."""
START, TEACHER = "start.safetensors", "teacher.safetensors"
"""The dense network that a run began with, and the one it learned from, as --resume needs them."""
METRICS = "metrics.json"
_PACKAGES = (
    "lcnet-rl",
    "torch",
    "torchvision",
    "gymnasium",
    "stable-baselines3",
    "safetensors",
    "numpy",
    "torch-pruning",
    "optuna",
    "onnxruntime",
)


def create_run(
    root: Path, env: str, algo: str, seed: int, config: Any, folder: Path | None = None, train: Dataset | None = None
) -> Path:
    """Make a new run folder and write its ``config.yaml`` and ``run.json``.

    Args:
        root: where runs live.
        env: short name of the decision process, e.g. ``LayerChannelSkip``, or of what is trained instead.
        algo: e.g. ``reinforce``.
        seed: the run's seed.
        config: a (nested) dataclass instance.
        folder: a folder to use instead of the conventional name.
        train: the training images: which they are, and the classes' names, for whoever goes on with the run or uses it.

    Raises:
        UserError: when ``folder`` already holds a run.
    """
    if folder is None:
        path = new_folder(root / file_name(f"{env}__{algo}__{seed}__{time.strftime('%Y%m%d-%H%M%S')}"))
    else:
        path = folder
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
    write_text(path / CONFIG, yaml.safe_dump(plain(config), sort_keys=False))
    sources = sources_of(plain(config))
    facts = {
        "command": command_line(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **_versions()},
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
    write_json(path / RUN, facts)
    for name, text in sources.items():
        write_text(path / f"{name}.py", text)
    return path


def _versions() -> dict[str, str]:
    """Of the packages that a result may depend on, as far as they are installed under these names."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # a clone that was not installed anew since it needs another package
            found[name] = version(name)
    return found


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


def has_agent(settings: Mapping[str, Any]) -> bool:
    """Whether a run's settings are of ``train``, and not of ``pretrain``, whose network decides nothing."""
    return "agent" in settings


def of_agent(run: Path, settings: Mapping[str, Any], name: str) -> Any:
    """A setting of a run's agent.

    Raises:
        UserError: when the run's ``config.yaml`` lacks it.
    """
    if name not in settings["agent"]:
        raise UserError(f"{run / CONFIG} is cut short, or of another version: it lacks agent.{name}")
    return settings["agent"][name]


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


def resume_command(command: str, run: Path) -> str:
    """What goes on with a run of ``command`` (train or pretrain), to be typed."""
    return f"{launcher()} {command} --resume {shlex.quote(str(run))}"


@contextmanager
def resumable(command: str, run: Path) -> Iterator[None]:
    """Inside the block ``run`` is trained by ``command``.

    Raises:
        UserError: when it ends as another process is lost, or as something is no number: what the block raised, which
            then names the good checkpoint too.
    """
    checkpoint = run / CHECKPOINT
    try:
        yield
    except LostProcess as lost:
        raise UserError(f"{lost}; {checkpoint} is good, go on with: {resume_command(command, run)}") from lost
    except DivergedError as error:
        if not checkpoint.is_file():
            raise
        raise DivergedError(f"{error}; the last good checkpoint is {checkpoint}") from error


def data_root(given: Path | str | None, settings: dict[str, Any]) -> Path | str | None:
    """Where a run's data are: as ``given``, or else where the run had them; None is the usual place."""
    return given or (Path(settings["data_root"]) if settings.get("data_root") else None)


def recorded_modules(run: Path) -> dict[str, str]:
    """Users' own modules that a run was made with, by name, a digest of each; empty where none is recorded."""
    return dict(about(run).get("modules", {}))


def recorded_classes(run: Path) -> tuple[str, ...] | None:
    """The classes' names, of a run that has recorded them."""
    names = about(run).get("classes")
    return tuple(names) if names else None


def classes_of(run: Path, settings: dict[str, Any], root: Path | None = None) -> tuple[str, ...]:
    """The classes' names that a run has recorded; of one from before runs did, those of its data set.

    That is below ``root``, or where the run had it.
    """
    return recorded_classes(run) or class_names(settings["dataset"], data_root(root, settings))


def about(run: Path) -> dict[str, Any]:
    """What ``run.json`` says; nothing where there is none."""
    return read_json(run / RUN) if (run / RUN).is_file() else {}
