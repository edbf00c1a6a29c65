"""Which command, code and machine a result is of."""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

from lcnet_rl.job import launched, launcher

ROOT = Path(__file__).resolve().parent.parent
"""Of the checkout that the code runs from, if it does; the commands of committed runs were typed here."""
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


def command_line() -> str:
    """The command that is running, as it could be typed again, but for passwords in URLs."""
    path = Path(sys.argv[0])
    # Started with python -m lcnet_rl, it is the same command.
    name = "lcnet-rl" if path.parts[-2:] == ("lcnet_rl", "__main__.py") else path.name
    program = launcher() if launched() else shlex.quote(name)
    hidden = [re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", argument) for argument in sys.argv[1:]]
    return f"{program} {shlex.join(hidden)}".rstrip()


def digest(text: str) -> str:
    """What tells a text from other ones."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
