"""Which code and which machine a result is of."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Of the checkout that the code runs from, if it does."""
CODE = ("lcnet_rl", "envs", "agents")


def cpu_name() -> str:
    """What the processor calls itself, or its architecture where it does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def code() -> dict[str, str | bool]:
    """The git commit that the code is of, and whether its files were changed since; empty where git does not know."""
    if not (ROOT / ".git").exists():
        return {}
    try:
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "--", *CODE))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def digest(text: str) -> str:
    """What tells a text from other ones."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
