"""Which device a name means."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch._inductor.config as inductor

from lcnet_rl.commands import main
from lcnet_rl.device import autocast, check_compiler, resolve_device, synchronize, uses_bf16, warn_if_slow
from lcnet_rl.errors import UserError


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="there are 2 GPUs, from cuda:0 on"):
        resolve_device("cuda:2")


def test_a_gpu_that_pytorch_cannot_compute_on_is_passed_over_where_the_choice_is_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_kernels(*_: object, device: str) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nand more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", no_kernels)
    assert resolve_device("auto") == torch.device("cpu")
    assert "computing on the CPU: this build of PyTorch has no kernels for the GPU here" in printed(capsys)
    assert resolve_device("cuda") == torch.device("cuda")


def test_what_else_goes_wrong_on_a_gpu_is_no_reason_to_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, device: str) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError):
        resolve_device("auto")


def test_float32_is_not_rounded_to_fewer_digits_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert main(["data", "shapes"]) == 0
    assert not torch.backends.cudnn.allow_tf32


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("precision", "fast", "told"), [("bf16", False, True), ("bf16", True, False), ("auto", False, False)]
)
def test_bfloat16_without_instructions_for_it_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: Any, fast: bool, told: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    warn_if_slow(precision, torch.device("cpu"))
    assert ("this machine has no instructions for it on cpu" in printed(capsys)) is told


def test_processors_have_no_numbers() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device 'cpu:1' is not supported"):
        resolve_device("cpu:1")


def test_a_gpu_is_waited_for_and_asked_about_itself_whichever_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[torch.device] = []
    current: list[torch.device] = []
    second = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(current.append(device)))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1:] == [second])
    synchronize(second)
    synchronize(torch.device("cpu"))
    assert waited == [second]
    assert uses_bf16("auto", second)
    assert not uses_bf16("auto", torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("capabilities", "faster"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_automatic_precision_is_bfloat16_where_the_cpu_computes_in_it(
    capabilities: dict[str, bool], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    cpu = torch.device("cpu")
    assert uses_bf16("auto", cpu) is faster
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)


def test_a_precision_that_there_is_not_is_no_other_one() -> None:
    for name in ("fp16", torch.float16):
        with pytest.raises(UserError, match=f"unknown precision '{name}'.* known: auto, bf16, fp32"):
            autocast(torch.device("cpu"), cast(Any, name))


def test_a_missing_compiler_is_the_users_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/g++",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"is a C\+\+ compiler installed\?.*nowhere"):
        check_compiler(torch.device("cpu"))
