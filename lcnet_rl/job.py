"""A job: the processes that torchrun starts for one training; how they join, agree and end.

    torchrun --nproc-per-node 2 -m -- lcnet_rl train ...

What they compute together is in ``lcnet_rl.distributed``. In an ordinary process nothing here does anything.
"""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError
from lcnet_rl.progress import console

T = TypeVar("T")
P = ParamSpec("P")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LostProcess(UserError):  # noqa: N818 (not this process's error)
    """Another process of the job is gone, so no step can be finished."""


def launched() -> bool:
    """Whether torchrun (or who sets its variables) started this process as one of several."""
    return all(name in os.environ for name in _ENVIRONMENT) and int(os.environ["WORLD_SIZE"]) > 1


def launcher() -> str:
    """How the command line was called, to say how to go on: ``lcnet-rl``, or torchrun with its number of processes."""
    if not launched():
        return "lcnet-rl"
    count = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    # Before Python 3.12 torchrun takes --run for an abbreviation of an option of its own, but for the two dashes.
    return f"torchrun --nproc-per-node {count} -m -- lcnet_rl"


@contextmanager
def joined(device_name: str) -> Iterator[torch.device]:
    """Be one of the job's processes inside the block, where torchrun started several; only the main one prints.

    Args:
        device_name: as for ``resolve_device``; ``auto`` and ``cuda`` give each process the GPU of its local rank.

    Yields:
        The device to compute on.

    Raises:
        UserError: when there are fewer GPUs than processes, or one GPU was named for all.
    """
    device = resolve_device(device_name)
    if not launched():
        yield device
        return
    if device.type == "cuda":
        device = _own_gpu(device)
    # Numbers that steer the loops stay on the CPU, so they have gloo beside a GPU too.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    console.quiet = not is_main()
    previous = signal.signal(signal.SIGTERM, _told_to_end)
    try:
        yield device
    except BaseException:
        # One ending is enough; and connections stay open until the reason is told, or others would tell theirs first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, previous)
    dist.destroy_process_group()


def _own_gpu(device: torch.device) -> torch.device:
    local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise UserError(f"device {str(device)!r} is one GPU, but every process needs its own; use --device cuda")
    if local >= found:
        raise UserError(f"process {local} has no GPU: torch finds {found} here; start fewer, or use --device cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _told_to_end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise LostProcess("this job was told to end, as torchrun does when it loses a process")


@contextmanager
def watched() -> Iterator[None]:
    """Recognise a lost process by the connection that breaks."""
    try:
        yield
    except RuntimeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # torch's first sentence, without the line of its source.
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise LostProcess(f"another process of this job was lost ({reason})") from error


def speaks_first() -> bool:
    """Whether this process is the first of the job to ask: of an error that all meet, one tells."""
    if not launched():
        return True
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f"spoke/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except RuntimeError:  # nobody is left to ask
        return True


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def by_main(function: Callable[P, object]) -> Callable[P, None]:
    """Decorator: the main process does it, the others do nothing; what it returns is dropped."""

    @functools.wraps(function)
    def guarded(*arguments: P.args, **options: P.kwargs) -> None:
        if is_main():
            function(*arguments, **options)

    return guarded


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` returns in the main process, the only one to call it."""
    if world_size() == 1:
        return make()
    answer: list[Any] = [make() if is_main() else None]
    with watched():
        dist.broadcast_object_list(answer)
    return answer[0]


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is set in any process; all get the same answer, at the same time."""
    if world_size() == 1:
        return flag
    count = torch.tensor(float(flag))
    with watched():
        dist.all_reduce(count)
    return bool(count > 0)


@contextmanager
def main_first() -> Iterator[None]:
    """On every machine one process does the block before the others, e.g. to download what they then find."""
    first = world_size() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not first:
        any_process(False)
    yield
    if first:
        any_process(False)
