"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from lcnet_rl import commands, memory

FAULTS = """
import resource, sys
import numpy as np
from lcnet_rl.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.empty(2**26, np.uint8).fill(1)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.empty(2**26, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_the_kernel_does_not_hand_out_the_same_pages_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 10 < 50 < faults("return")


def test_every_command_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(commands, "keep_freed_memory", lambda: calls.append(None))
    commands.main(["--version"])
    assert len(calls) == 1


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory()
