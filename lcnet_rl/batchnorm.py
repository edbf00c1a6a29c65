"""BatchNorm's statistics: of a batch that several processes share, and running ones: frozen, restored, averaged anew.

Ioffe and Szegedy, 2015, "Batch normalization". torch's SyncBatchNorm shares batches as ``GlobalBatchNorm2d`` does, on
GPUs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lcnet_rl.distributed import alone, global_moments, global_sum, shards, share_weights
from lcnet_rl.job import world_size

CALIBRATION_IMAGES = 4000
"""Training images that running statistics are averaged over, where not fewer are asked for."""
CALIBRATION_BATCH = 500
"""Batch size when BatchNorm is recalibrated."""


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d, with its parameters, buffers and state dict, that trains on the statistics of the global batch."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if not self.training or shards() == 1:
            return super().forward(x)
        running_mean, running_var, batches = (
            cast(Tensor, buffer) for buffer in (self.running_mean, self.running_var, self.num_batches_tracked)
        )
        # Momentum 0 leaves the running statistics as they are; without them the kernel would round to x's bfloat16.
        mean, var = global_moments(*torch.batch_norm_update_stats(x.detach(), running_mean, running_var, 0.0))
        count = x.numel() // x.shape[1] * shards()
        batches.add_(1)
        share = 1 / int(batches) if self.momentum is None else self.momentum
        running_mean.lerp_(mean, share)
        running_var.lerp_(var * (count / (count - 1)), share)
        return _Normalize.apply(x, self.weight, self.bias, mean, var, self.eps, count)


class _Normalize(torch.autograd.Function):
    """Normalises with given statistics, and differentiates as what they are: functions of all processes' rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, count: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, count
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # With n images and pixels in all, y = (x - mean) / std and g the gradient of weight * y + bias:
        # dx = weight / std * (g - sum(g) / n - y * sum(g * y) / n). torch's kernel for fixed statistics gives the sums.
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        g, gy = global_sum(torch.stack((d_bias, d_weight))) / ctx.count
        inverse = (var + ctx.eps).rsqrt()
        shift, slope = mean * inverse * gy - g, -inverse * gy
        scale, shift, slope = (v.view(1, -1, 1, 1) for v in (weight * inverse, shift, slope))
        dx = torch.addcmul(scale * shift, x, scale * slope).addcmul_(gradient, scale)
        return dx.to(x.dtype), d_weight, d_bias, None, None, None, None


def prepare(module: nn.Module) -> None:
    """Make ``module``, in place, ready for being trained by several processes; nothing happens in a single one.

    All get the main one's weights, and every BatchNorm2d the statistics of the global batch.
    """
    if world_size() == 1:
        return
    share_weights(module)
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = GlobalBatchNorm2d


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Those in ``module``, in its order."""
    return [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]


@contextmanager
def restored_statistics(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Running statistics may change inside, and are as before when it ends."""
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


@contextmanager
def frozen_statistics(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Passes in train mode inside use their batch's statistics, and move no running ones."""
    with _momentum(norms, 0.0):
        yield


@contextmanager
def fresh_statistics(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Forget running statistics; passes in train mode inside then count equally, whatever the momentum or batch."""
    for norm in norms:
        norm.reset_running_stats()
    with _momentum(norms, None):  # torch's spelling of a cumulative average
        yield


@torch.no_grad()
def average_statistics(
    module: nn.Module, norms: Sequence[nn.BatchNorm2d], forward: Callable[..., object], *rows: Tensor
) -> None:
    """Set running statistics to their means over batches, and give all processes the main one's ``module``.

    Batches count equally, so they are of one size, give or take a row: the fewest of up to ``CALIBRATION_BATCH`` rows.

    Args:
        module: in train mode; left in eval mode.
        norms: those of its BatchNorms that are meant.
        forward: passes a batch of each of ``rows`` through ``module``.
        rows: each (N, ...), the same in all processes.
    """
    count = -(-len(rows[0]) // CALIBRATION_BATCH)
    with fresh_statistics(norms), alone():
        for batch in zip(*(part.tensor_split(count) for part in rows), strict=True):
            forward(*batch)
    module.eval()
    share_weights(module)


@contextmanager
def _momentum(norms: Sequence[nn.BatchNorm2d], momentum: float | None) -> Iterator[None]:
    """Another momentum for all ``norms`` inside, and each one's own when it ends."""
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = momentum
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.momentum = own
