"""A user's own images: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``, any size, resized to 32x32."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lcnet_rl.data.dataset import SIZE, Dataset, Part
from lcnet_rl.errors import UserError
from lcnet_rl.progress import warn

PARTS: tuple[Part, ...] = ("train", "test")
NAMED = 5
"""Unreadable files, or places, that a message names; the rest is counted."""
BAD_FILE = (OSError, ValueError, RuntimeError, SyntaxError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise."""
LITTER = ("thumbs.db", "desktop.ini")
"""What Windows leaves in folders that are looked at, in letters of any case."""


def load(path: Path, part: Part) -> Dataset:
    """All images of ``PATH/train`` or ``PATH/test``; classes are the folder names, sorted.

    Files and folders whose names begin with a dot are passed over, and ``LITTER``.

    Raises:
        UserError: a missing folder, classes that differ between train and test, an empty class, or files that
            are no readable image (named, up to five, and counted).
    """
    classes = class_names(path)
    files = [(file, label) for label, name in enumerate(classes) for file in files_in(path / part / name)]
    pixels = read_images([file for file, _ in files])
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    names = tuple(file.relative_to(path).as_posix() for file, _ in files)
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, names))).hexdigest()[:16]
    return Dataset(f"folder:{path}", part, pixels, labels, classes, digest=digest, files=names)


def read_images(files: Sequence[Path]) -> Tensor:
    """At least one image, uint8 (N, 3, 32, 32), as ``read_image`` has them.

    Raises:
        UserError: for files that are no readable image (named, up to five, and counted).
    """
    images, unreadable = readable_images(files)
    if unreadable:
        raise cannot_be_read(unreadable, len(files))
    return images


def readable_images(files: Sequence[Path]) -> tuple[Tensor, dict[Path, str]]:
    """Those of at least one file that can be read, uint8 (N, 3, 32, 32), and what is wrong with each of the others.

    Raises:
        UserError: when none can.
    """
    tried = {file: _try_to_read(file) for file in files}
    unreadable = {file: told for file, told in tried.items() if isinstance(told, str)}
    images = [tried[file] for file in files if file not in unreadable]
    if not images:
        raise cannot_be_read(unreadable, len(files))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), unreadable


def cannot_be_read(unreadable: Mapping[Path, str], count: int) -> UserError:
    """An error for some of so many files, up to five of them by name."""
    named = _first([f"{file} ({reason})" for file, reason in unreadable.items()])
    return UserError(
        f"{len(unreadable)} of {count} files cannot be read as images: {named}; leave them out or mend them"
    )


def read_image(file: Path) -> NDArray[np.uint8]:
    """One image as RGB, upright, resized to 32x32 with antialiasing, its sides scaled apart if it is no square.

    Returns:
        Shape (32, 32, 3), uint8.

    Raises:
        Any of ``BAD_FILE``: what Pillow says of a bad file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd metadata or size; a file that cannot be decoded raises
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a pixel: convert it")
            # Through RGBA, since a palette may carry transparency; transparent pixels become black.
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
        background = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        flat = Image.alpha_composite(background, rgba).convert("RGB")
        return np.asarray(flat.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _try_to_read(file: Path) -> NDArray[np.uint8] | str:
    """The image, or what is wrong with the file, which may be a folder without any."""
    if file.is_dir():
        return "only folders in it, which are not looked at: name those" if folders_in(file) else "no files in it"
    try:
        return read_image(file)
    except BAD_FILE as problem:
        told = getattr(problem, "strerror", None) or str(problem)
        return "not an image" if isinstance(problem, UnidentifiedImageError) else " ".join(told.split())


def class_names(path: Path) -> tuple[str, ...]:
    """The classes in ``PATH``, sorted.

    Raises:
        UserError: a missing folder, classes that differ between train and test, or an empty class.
    """
    found: dict[str, set[str]] = {}
    for part in PARTS:
        if not (path / part).is_dir():
            wrong = f"{path / part} is no folder; an image folder has train/CLASS/* and test/CLASS/*"
            where = f"the folder that holds {path.name} now (or where a relative PATH begins)"
            raise UserError(wrong if path.is_dir() else f"{wrong}; if it was moved, --data-root (data_root) is {where}")
        folders = folders_in(path / part)
        found[part] = {folder.name for folder in folders}
        empty = [folder for folder in folders if not files_in(folder)]
        if empty:
            deeper = [folder.name for folder in empty if folders_in(folder)]
            hint = f"; folders within {', '.join(deeper)} are not looked at" if deeper else ""
            raise UserError(f"{path / part} has no images of class {', '.join(folder.name for folder in empty)}{hint}")
    odd = sorted(found["train"] ^ found["test"])
    if odd:
        raise UserError(f"{path} must have the same classes in train and test; not in both: {', '.join(odd)}")
    if len(found["train"]) < 2:
        raise UserError(f"{path / 'train'} needs at least 2 class folders, found {len(found['train'])}")
    return tuple(sorted(found["train"]))


def left_out(path: Path) -> list[Path]:
    """What is not looked at in ``PATH``: files beside the folders of classes, and folders in these."""
    parts = [path / part for part in PARTS]
    deeper = [folder for part in parts for of_class in folders_in(part) for folder in folders_in(of_class)]
    return [*(file for part in parts for file in files_in(part)), *deeper]


def say_left_out(entries: Iterable[Path]) -> None:
    """Say where there are files and folders that are not looked at, if there are any: up to five places by name."""
    counts = Counter((entry.parent, "folder" if entry.is_dir() else "file") for entry in entries)
    if counts:
        places = [f"{count} {kind}{'s' * (count > 1)} in {where}" for (where, kind), count in counts.items()]
        warn(f"not looked at: {_first(places)}")


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without those whose names begin with a dot, ``LITTER``, and folders."""
    return sorted(entry for entry in _visible(folder) if entry.is_file())


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without those whose names begin with a dot."""
    return sorted(entry for entry in _visible(folder) if entry.is_dir())


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name.lower() not in LITTER]


def _first(told: Sequence[str]) -> str:
    """Up to five of some texts in a row, and how many more there are."""
    return ", ".join(told[:NAMED]) + (f" and {len(told) - NAMED} more" if len(told) > NAMED else "")
