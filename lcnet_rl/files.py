"""Atomic writing: a file is either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from lcnet_rl.errors import UserError

ABANDONED = 60.0
"""Seconds without a change after which a temporary file is nobody's: two processes may fill one cache of a data set."""
RANDOM = "?" * 8
"""What is drawn for a temporary name, as a pattern: by its length, names that begin alike are told apart."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once the block ends without an error.

    The content is flushed to disk before the rename, so a kill or a power cut at any moment leaves the old file or
    the new one. What a kill left of an earlier attempt is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    hidden = f".{path.name}."
    try:
        temporary = path.with_name(f"{hidden}{secrets.token_hex(len(RANDOM) // 2)}.part")
        temporary.touch(exist_ok=False)
        rights = temporary.stat().st_mode  # as the user's umask has them
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(rights)  # safetensors puts a file in its place that is the user's alone
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if Path(str(error.filename)).name.startswith(hidden):  # a name that the user does not know
            error.filename = str(path)
        raise


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{RANDOM}.part"):
        with contextlib.suppress(OSError):  # gone by now, or not ours to remove
            if time.time() - leftover.stat().st_mtime > ABANDONED:
                leftover.unlink()


def file_name(text: str) -> str:
    """``text`` with ``_`` for what no file can be called, here or on another system, such as ``/``, ``:`` or ``?``."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)


def new_folder(path: Path) -> Path:
    """Make a folder that nobody else has: ``path``, or with a number behind it where there is something already."""
    number, free = 1, path
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            free.mkdir()
            return free
        number += 1
        free = path.with_name(f"{path.name}-{number}")


def check_target(option: str, path: Path) -> None:
    """Make the folder of a file that an option names, before the work whose results are to go there.

    Raises:
        UserError: when ``path`` is a folder, or its own folder cannot be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(path.parent, os.W_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        raise UserError(f"{path.parent} cannot be written to ({reason}); name another place with {option}")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` (UTF-8), atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Replace ``path`` with a safetensors file, atomically.

    Raises:
        OSError: when the disk refuses; the previous file is then still there, whole.
    """
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # what safetensors makes of an I/O error
            raise OSError(f"cannot write {path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table.

    Raises:
        UserError: when there is no file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no table")
    return content


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        UserError: when there is no file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    # In one go: safe_open opens a path twice, and in between a training may have put another file there.
    content = path.read_bytes()
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged (cut short?) or no safetensors file: {error}") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__", {})
