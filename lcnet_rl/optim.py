"""Learning rates and parameter groups of dense training and of agents, and dense training's Muon.

Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, as PyTorch has it
(``torch.optim.Muon``): momentum whose matrix is orthogonalised before it is taken as a step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def triangle(step: int, total: int, warmup: float) -> float:
    """Learning-rate factor: rises linearly to 1 over ``warmup`` of the steps, then falls linearly to 0."""
    peak = warmup * total
    rise = (step + 1) / peak if peak else 1.0
    return min(1.0, rise, (total - step) / (total - peak))


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that decay matrices and kernels only, not BatchNorm's parameters or biases."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


class KernelMuon(torch.optim.Muon):
    """PyTorch's Muon for convolution kernels: each is a matrix of one row a filter.

    PyTorch's takes matrices only, so it is given matrices that share their memory with the kernels.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """Optimise ``kernels``, of shape (filters, channels, height, width) and channels-last in memory.

        Args:
            kernels: what to train; must stay where they are in memory.
            lr: size of a step, for a kernel with fewer filters than inputs the step's spectral norm.
            momentum: of the averaged gradient, Nesterov's way.
            weight_decay: decoupled; a kernel shrinks by lr * weight_decay a step.

        Raises:
            RuntimeError: for a kernel that is not channels-last.
        """
        self._kernels = list(kernels)
        matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in self._kernels]
        super().__init__(matrices, lr, weight_decay, momentum, nesterov=True)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step with the gradients of the kernels."""
        for kernel, matrix in zip(self._kernels, self.param_groups[0]["params"], strict=True):
            assert kernel.grad is not None
            matrix.grad = kernel.grad.permute(0, 2, 3, 1).flatten(1)
        super().step()


def _matrix(kernel: Tensor) -> Tensor:
    """The kernel as (filters, height * width * channels), in the same memory."""
    return kernel.permute(0, 2, 3, 1).view(len(kernel), -1)
