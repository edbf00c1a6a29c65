"""Data-parallel training: the processes that torchrun starts work as one.

    torchrun --nproc-per-node 2 -m -- lcnet_rl train ...

Every process holds the whole model and data set, and works on its contiguous rows of each batch; ``batch_size`` counts
the images of all. Random numbers are drawn for the global batch and its statistics are gathered from all processes, so
N of them compute what one would, up to rounding, and a checkpoint does not tell how many wrote it.

A process's loss is a mean over its own rows, or made of ``global_sum``s. The objective is the mean of these losses over
the processes, and ``average_gradients`` gives its gradient.

In an ordinary process nothing here does anything.
"""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError
from lcnet_rl.progress import console

T = TypeVar("T")
P = ParamSpec("P")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_alone: ContextVar[bool] = ContextVar("alone", default=False)


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
def _watched() -> Iterator[None]:
    """Recognise a lost process by the connection that breaks."""
    try:
        yield
    except RuntimeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # torch's first sentence, without the line of its source.
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise LostProcess(f"another process of this job was lost ({reason})") from error


@contextmanager
def resumable(command: str, checkpoint: Path) -> Iterator[None]:
    """Should another process be lost inside the block, say which checkpoint is good and which command goes on."""
    try:
        yield
    except LostProcess as lost:
        raise UserError(f"{lost}; {checkpoint} is good, go on with: {command}") from lost


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
    with _watched():
        dist.broadcast_object_list(answer)
    return answer[0]


@contextmanager
def main_first() -> Iterator[None]:
    """On every machine one process does the block before the others, e.g. to download what they then find."""
    first = world_size() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not first:
        any_process(False)
    yield
    if first:
        any_process(False)


@contextmanager
def alone() -> Iterator[None]:
    """All processes do the same on the same whole batches, so nothing inside the block is shared between them."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def shards() -> int:
    """In how many parts the batch of a training step is divided."""
    return 1 if _alone.get() else world_size()


def my_rows(batch: int) -> slice:
    """This process's rows of a global batch.

    Raises:
        UserError: when the batch does not divide evenly: means over processes would not be means over images.
    """
    if batch % shards():
        raise UserError(f"batch size {batch} does not divide evenly among {shards()} processes; change either")
    rows = batch // shards()
    return slice(rank() * rows, (rank() + 1) * rows) if shards() > 1 else slice(0, batch)


def rand_rows(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device, copies: int = 1
) -> Tensor:
    """Uniform random numbers in [0, 1) for this process's rows, drawn for the global batch and so the same however
    many processes there are.

    Args:
        shape: (copies * rows of this process, ...).
        generator: in the same state in every process.
        device: the generator's.
        copies: how often the batch is repeated, copy after copy.
    """
    draws = torch.rand((shape[0] * shards(), *shape[1:]), generator=generator, device=device)
    if shards() == 1:
        return draws
    return draws.unflatten(0, (copies, shards(), -1))[:, rank()].flatten(0, 1)


class _GlobalSum(torch.autograd.Function):
    """The objective is made of all processes' losses, so the gradient of a sum's part is summed over them too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    with _watched():
        dist.all_reduce(total)
    return total


def global_sum(x: Tensor) -> Tensor:
    """The sum of all processes' ``x``, with gradients to each; of the same shape."""
    return x if shards() == 1 else _GlobalSum.apply(x)


def global_mean(x: Tensor) -> Tensor:
    """A mean over the global batch, from one over this process's rows, with gradients; of the same shape."""
    return x if shards() == 1 else global_sum(x) / shards()


def global_moments(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance over the global batch, from those over this process's rows; without gradients."""
    if shards() == 1:
        return mean, var
    # In float64, as the difference of two squares loses digits.
    both = torch.stack((mean, var)).detach().double()
    centre, square = global_mean(torch.stack((both[0], both[1] + both[0].square())))
    return centre.to(mean), (square - centre.square()).clamp(min=0).to(var)


def mean_scalars(scalars: dict[str, float]) -> dict[str, float]:
    """The mean of each scalar over processes, which is one over images where they were."""
    means = global_mean(torch.tensor(list(scalars.values()), dtype=torch.float64)).tolist()
    return dict(zip(scalars, means, strict=True))


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is set in any process; all get the same answer, at the same time."""
    return flag if world_size() == 1 else bool(_summed(torch.tensor(float(flag))) > 0)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace all gradients by their means over processes, in one exchange."""
    if shards() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    means = global_mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def share_weights(module: nn.Module) -> None:
    """Give every process the main one's parameters and buffers: other machines and GPUs may round differently."""
    if world_size() == 1:
        return
    for tensor in module.state_dict().values():
        sent = tensor.contiguous()
        with _watched():
            dist.broadcast(sent, 0)
        tensor.copy_(sent)
