"""The data room: named image sets as uint8 tensors, their fixed splits, and augmentation.

Anything above may import it; it imports nothing of models, environments or agents.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from lcnet_rl.data import cifar10, folder, shapes
from lcnet_rl.data.dataset import Dataset, Part, Split
from lcnet_rl.data.root import resolve_root
from lcnet_rl.data.splits import held_out_half, training_part
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.job import by_main

__all__ = ["NAMES", "SPLITS", "Dataset", "Split", "base_name", "class_names", "load_dataset", "load_training", "place"]

NAMES = ("cifar10", "shapes", "folder:PATH", "held-out:NAME")
CLASSES = {"cifar10": cifar10.CLASSES, "shapes": shapes.CLASSES}
"""Of the sets that are always the same ones."""
HELD_OUT = "held-out:"
"""Before a name: the same test images, but the validation images are halved into training and validation images."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def load_dataset(name: str, split: Split, data_root: Path | str | None = None) -> Dataset:
    """One split of a data set, in memory; fetches and caches what is not on the machine yet.

    What a folder of images holds beside these, in all its splits, is told with ``"train"`` or ``"val"``.

    Args:
        name: ``"cifar10"``, ``"shapes"`` (drawn by code, needs no file) or ``"folder:PATH"``; or ``"held-out:"`` and
            one of these: half of its validation images are for training, as images that networks trained on that set
            have never seen, the other half for validation. Its test images are those of that set, and have its name.
        split: ``"train"`` excludes ``"val"``, a fixed class-balanced slice of the training images; ``"test"``
            is for evaluation only.
        data_root: where data lives; overrides the environment variable ``LCNET_RL_DATA``, which overrides
            the user's cache folder. A folder is looked for in ``data_root`` only, if that is given: below it if PATH is
            relative, else under its own name.

    Raises:
        UserError: an unknown name or split, data that cannot be had, or a faulty folder.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    return _load(name, split, data_root) if split == "test" else _cut(_load(name, "train", data_root), name, split)


def load_training(name: str, data_root: Path | str | None = None) -> tuple[Dataset, Dataset]:
    """The splits ``"train"`` and ``"val"`` of a data set, from one reading of its files; else as ``load_dataset``."""
    images = _load(name, "train", data_root)
    return _cut(images, name, "train"), _cut(images, name, "val")


def _cut(images: Dataset, name: str, split: Split) -> Dataset:
    """``"train"`` or ``"val"`` of all training images of what ``name`` is about."""
    if name == base_name(name):
        return training_part(images, split)
    return replace(held_out_half(training_part(images, "val"), split), name=name)


def _load(name: str, part: Part, data_root: Path | str | None) -> Dataset:
    """All training images, those for validation among them, or all test images, under the set's own name."""
    own = base_name(name)
    kind, _, path = own.partition(":")
    if kind == "folder" and path:
        images = replace(folder.load(_folder(path, data_root), part), name=own)
        if part == "train":
            _say_left_out(tuple(folder.left_out(_folder(path, data_root))))
        return images
    if own not in CLASSES:
        raise _unknown(name, data_root)
    return cifar10.load(resolve_root(data_root), part) if own == "cifar10" else shapes.load(part)


def base_name(name: str) -> str:
    """``name`` without ``held-out:``: the data set whose test images it has."""
    return name.removeprefix(HELD_OUT)


def class_names(name: str, data_root: Path | str | None = None) -> tuple[str, ...]:
    """The classes of a data set, in the order of their labels, without reading its images.

    ``data_root`` is that of ``load_dataset``.

    Raises:
        UserError: an unknown name, or a faulty folder.
    """
    own = base_name(name)
    kind, _, path = own.partition(":")
    if kind == "folder" and path:
        return folder.class_names(_folder(path, data_root))
    if own not in CLASSES:
        raise _unknown(name, data_root)
    return CLASSES[own]


def place(name: str, data_root: Path | str | None = None) -> str:
    """Where the images of a data set are kept, in words for the person at the command line."""
    kind, _, path = base_name(name).partition(":")
    if kind == "folder":
        return str(_folder(path, data_root))
    return str(resolve_root(data_root) / cifar10.CACHE) if kind == "cifar10" else "nowhere, drawn at each load"


def _unknown(name: str, data_root: Path | str | None) -> UserError:
    """An error for a name of no data set, which may be that of a folder without ``folder:``, or with ``Folder:``."""
    own = base_name(name)
    kind, _, path = own.partition(":")
    meant = path if kind.lower() == "folder" else own
    if meant and (meant != own or _folder(meant, data_root).is_dir()):
        right = f"{name.removesuffix(own)}folder:{meant}"
        return UserError(f"unknown data set {name!r}; did you mean {right}? known: {', '.join(NAMES)}")
    return unknown_name("data set", own, NAMES)


@cache
def _say_left_out(entries: tuple[Path, ...]) -> None:
    """Say once a process (of several of one training, in the main one) what a folder holds that is not looked at."""
    by_main(folder.say_left_out)(entries)


def _folder(path: str, data_root: Path | str | None) -> Path:
    images = Path(path).expanduser()
    if data_root is None:
        return images
    return Path(data_root).expanduser() / (images.name if images.is_absolute() else images)
