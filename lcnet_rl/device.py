"""Where and how precisely to compute."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from multiprocessing.context import SpawnProcess
from typing import Literal, get_args

import torch

from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.progress import say, warn

Precision = Literal["auto", "bf16", "fp32"]


def resolve_device(name: str) -> torch.device:
    """The device for ``auto`` (CUDA where it computes), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: for a name torch does not know, or a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and _cuda_computes() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda") or name.startswith("cpu:"):
        raise UserError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} was asked for, but torch finds no CUDA here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} was asked for, but there are {torch.cuda.device_count()} GPUs, from cuda:0 on"
        )
    return device


def _cuda_computes() -> bool:
    """Whether this build of PyTorch has kernels for this process's GPU, which may be too old for it; says so if not."""
    try:
        torch.zeros(1, device=f"cuda:{os.environ.get('LOCAL_RANK', 0)}").add_(1)
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        say("computing on the CPU: this build of PyTorch has no kernels for the GPU here")
        return False
    return True


def exact_float32() -> None:
    """Let float32 be float32 on CUDA too, for the whole process.

    With TF32, which PyTorch lets cuDNN's convolutions use, decisions near a threshold would be others than on a CPU.
    """
    torch.backends.cudnn.allow_tf32 = False


def one_thread_if_forked() -> None:
    """Compute in one thread from now on, in a worker process that is a fork of another process.

    Where the other one has computed, torch's threads did not come along, and an operation that wants them waits for
    ever. Workers of gymnasium's asynchronous vector environments are such forks.
    """
    if multiprocessing.parent_process() and not isinstance(multiprocessing.current_process(), SpawnProcess):
        torch.set_num_threads(1)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions beat float32 on ``device``: on CUDA, and on CPUs with instructions for it.

    With matrix units (AMX) a ResNet-20 trains about three times as fast in bfloat16, with AVX512_BF16 alone 1.6 times
    (AMD Zen 4, one thread); on an AVX-512 machine without both, 0.8 times.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks about the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether ``precision`` means bfloat16 on ``device``; ``auto`` is the faster one.

    Raises:
        UserError: for a precision that there is not.
    """
    if precision not in get_args(Precision):
        raise unknown_name("precision", str(precision), get_args(Precision))
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def warn_if_slow(precision: Precision, device: torch.device) -> None:
    """Say so if ``precision`` is bfloat16, and ``device`` has no instructions for it."""
    if precision == "bf16" and not has_fast_bf16(device):
        warn(
            f"bf16 was asked for, but this machine has no instructions for it on {device}: training may take ten times "
            "as long as with --precision auto (of pretrain, --recipe.precision auto)",
        )


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """bfloat16 autocast on ``device`` for ``bf16``, nothing for ``fp32``, the faster of them for ``auto``."""
    if uses_bf16(precision, device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, float32 stays float32, whatever autocast is around. Where there is none, there is nothing to enter:
    doing so takes longer than a layer of a gate."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_compiler(device: torch.device) -> None:
    """Raise UserError unless ``torch.compile`` works here, which needs a C++ compiler, or Triton on CUDA."""
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"torch.compile does not work here (is a C++ compiler installed?): {reason}") from error
