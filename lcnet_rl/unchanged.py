"""Whether data and the user's own modules are still those that a run began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcnet_rl.data import CLASSES, Dataset, base_name
from lcnet_rl.errors import UserError
from lcnet_rl.files import plain
from lcnet_rl.imports import sources_of
from lcnet_rl.progress import warn
from lcnet_rl.provenance import digest
from lcnet_rl.runs import CONFIG, about, read_config, recorded_classes, recorded_modules


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


def known_classes(network: Path) -> tuple[str, ...] | None:
    """The classes' names that a network tells apart, if its run folder says so, or if it is akamaster's; else None.

    A file in a run folder, such as its weights, stands for the folder.
    """
    run = network.parent if network.is_file() else network
    if not (run / CONFIG).is_file():
        akamasters = str(network) == "akamaster" or (network.is_file() and network.suffix != ".safetensors")
        return CLASSES["cifar10"] if akamasters else None
    return recorded_classes(run) or CLASSES.get(base_name(read_config(run)["dataset"]))


def check_knows(network: Path, train: Dataset) -> None:
    """Make sure that a network which is to classify the images of ``train`` does not tell other classes apart.

    Raises:
        UserError: when it does, though there are as many.
    """
    known = known_classes(network)
    if known and known != train.classes:
        raise UserError(
            f"{network} knows the classes {', '.join(known)}, but {train.name} has {', '.join(train.classes)}; "
            "lcnet-rl pretrain --init trains it for these, with a fresh head"
        )


def check_same_data(run: Path, train: Dataset) -> None:
    """Make sure that a run goes on with the training images that it began with, as far as it has recorded them.

    Raises:
        UserError: for other classes, another number of images, by which steps are counted and images are shuffled, or
            other files, of which others are for validation.
    """
    check_classes(run, len(train.classes), train.name, train.classes)
    began = about(run).get("images")
    if began not in (None, len(train)):
        raise UserError(f"{run} began with {began:,} training images, but {train.name} now has {len(train):,}")
    if changed(run, train):
        raise UserError(f"files in {train.name} have other names than when {run} began, so others are for validation")


def changed(run: Path, train: Dataset) -> bool:
    """Whether ``run`` was trained on other files of a folder: then it may have seen what is for validation now."""
    return about(run).get("files", train.digest) != train.digest


def warn_if_changed(run: Path, train: Dataset) -> None:
    """Say so if ``run`` may have been trained on what are validation images now; nothing of what is no run folder.

    A file in a run folder, such as its weights, stands for the folder.
    """
    run = run.parent if run.is_file() else run
    if not (run / CONFIG).is_file():
        return
    began = read_config(run)["dataset"]
    if base_name(began) == train.name != began:
        warn(
            f"{run} was trained on half of the validation images of {train.name}, so accuracy on these is too high, "
            "and what is chosen by it is biased; test images are not affected",
        )
    if changed(run, train) and base_name(began) == base_name(train.name):
        warn(
            f"files in {train.name} were added, removed or renamed since {run} began: it may have been trained on "
            "what are validation images now, so accuracy on these is too high, and what is chosen by it is biased; "
            "test images are not affected",
        )


def warn_if_edited(run: Path, config: Any, so: str = "this is of the code as it is now") -> None:
    """Say so if a module of the user's own, once imported, is not what it was when ``run`` began.

    Args:
        run: the run folder.
        config: its settings.
        so: what that means.
    """
    began = recorded_modules(run)
    for name, text in sources_of(plain(config)).items():
        if began.get(name, digest(text)) != digest(text):
            warn(
                f"{name} was changed since {run} began: {so}; what it began with is {run / name}.py",
            )
