"""Teaches torch's FLOP counter the oneDNN convolutions, so that it counts what the engine executes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from lcnet_rl.engine.convolution import onednn_computes


def _unary(x: list[int], weight: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


def _binary_in_place(
    total: list[int], x: list[int], weight: list[int], *_: Any, out_shape: list[int], **__: Any
) -> int:
    return conv_flop_count(x, weight, out_shape)


def register() -> None:
    """Add the formulas that this version of PyTorch lacks; there are none to add where oneDNN's are not used."""
    if not onednn_computes(torch.float32):
        return
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.mkldnn._convolution_pointwise: _unary,
        torch.ops.mkldnn._convolution_pointwise_: _binary_in_place,
    }
    for operator, formula in formulas.items():
        if operator not in flop_registry:
            register_flop_formula(operator)(formula)
