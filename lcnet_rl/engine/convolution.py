"""3x3 convolutions for inference, each in one pass with what follows it: oneDNN's on the CPU, plain PyTorch elsewhere.

``torch.compile`` uses the same oneDNN operators when its option ``freezing`` is on. They also take weights laid out for
the machine, once instead of at every call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING, DILATION = [1, 1], [1, 1]
OPERATORS = (
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_reorder_convolution_weight",
    "_is_mkldnn_bf16_supported",
)
"""PyTorch's own, of no public interface; a version that lacks one computes as without oneDNN."""


class Convolution:
    """A convolution with fixed weights, for channels-last features."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        """Use weight (C_out, C_in, 3, 3) and bias (C_out,)."""
        self.weight, self.bias, self.stride = weight.contiguous(memory_format=torch.channels_last), bias, [stride] * 2
        self._fused = weight.device.type == "cpu" and onednn_computes(weight.dtype)
        self._packed: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        """For copies, which lay their weights out themselves: what oneDNN makes of them cannot be copied."""
        return {**vars(self), "_packed": None}

    @property
    def copied(self) -> int:
        """Bytes of what oneDNN has made of the weights so far."""
        return 0 if self._packed is None else self.weight.nbytes

    def relu(self, x: Tensor) -> Tensor:
        """``ReLU(conv(x) + bias)``, (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        if not self._fused:
            return F.conv2d(x, self.weight, self.bias, self.stride, padding=1).relu_()
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._laid_out(x), self.bias, PADDING, self.stride, DILATION, 1, "relu", [], ""
        )

    def add_relu_(self, total: Tensor, x: Tensor) -> Tensor:
        """``total = ReLU(total + conv(x) + bias)``, in place; ``total`` is (B, C_out, H / stride, W / stride)."""
        if not self._fused:
            return total.add_(F.conv2d(x, self.weight, self.bias, self.stride, padding=1)).relu_()
        return torch.ops.mkldnn._convolution_pointwise_(
            total, x, self._laid_out(x), self.bias, PADDING, self.stride, DILATION, 1, "add", None, "relu", [], ""
        )

    def _laid_out(self, x: Tensor) -> Tensor:
        """The weights as oneDNN wants them for inputs like ``x``."""
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, PADDING, self.stride, DILATION, 1, list(x.shape)
            )
        return self._packed


def onednn_computes(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has oneDNN, and it has kernels of that type for this processor."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
