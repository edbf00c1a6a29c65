"""Data-parallel training: what the processes of a job (``lcnet_rl.job``) compute together, as one.

Every process holds the whole model and data set, and works on its contiguous rows of each batch; ``batch_size`` counts
the images of all. Random numbers are drawn for the global batch and its statistics are gathered from all processes, so
N of them compute what one would, up to rounding, and a checkpoint does not tell how many wrote it.

A process's loss is a mean over its own rows, or made of ``global_sum``s. The objective is the mean of these losses over
the processes, and ``average_gradients`` gives its gradient.

In an ordinary process nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lcnet_rl.errors import UserError
from lcnet_rl.job import rank, watched, world_size

_alone: ContextVar[bool] = ContextVar("alone", default=False)


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
    with watched():
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
        with watched():
            dist.broadcast(sent, 0)
        tensor.copy_(sent)
