"""Muon for convolution kernels, against PyTorch's own on plain matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lcnet_rl.optim import KernelMuon


def kernels(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((8, 4, 3, 3), (6, 3, 1, 1))
    return [
        nn.Parameter(torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)) for shape in shapes
    ]


def test_it_moves_kernels_as_pytorchs_muon_moves_their_matrices() -> None:
    ours = kernels(0)
    theirs = [nn.Parameter(p.detach().flatten(1).clone()) for p in ours]
    optimizers = (
        KernelMuon(ours, lr=0.1, momentum=0.9, weight_decay=0.02),
        torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.02, nesterov=True),
    )
    before = [p.detach().clone() for p in ours]
    for seed in range(3):
        for p, q, noise in zip(ours, theirs, kernels(seed + 1), strict=True):
            p.grad, q.grad = noise.detach(), noise.detach().flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    for p, q, start in zip(ours, theirs, before, strict=True):
        # The columns' order differs, and with it the rounding of the bfloat16 iteration.
        torch.testing.assert_close(p.detach().flatten(1), q.detach(), atol=0.01, rtol=0)
        assert (p - start).abs().max() > 0.1


def test_a_step_is_orthogonal() -> None:
    (kernel, _) = kernels(0)
    start = kernel.detach().clone()
    optimizer = KernelMuon([kernel], lr=1.0, momentum=0.9, weight_decay=0.0)
    kernel.grad = torch.randn_like(kernel)
    optimizer.step()
    values = torch.linalg.svdvals((kernel.detach() - start).flatten(1))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_a_kernel_that_is_not_channels_last_is_refused() -> None:
    with pytest.raises(RuntimeError):
        KernelMuon([nn.Parameter(torch.randn(8, 4, 3, 3))], lr=0.1, momentum=0.9, weight_decay=0.0)
