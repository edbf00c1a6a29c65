"""Where data lives on this machine: an argument, else an environment variable, else the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LCNET_RL_DATA"


def resolve_root(given: Path | str | None = None) -> Path:
    """The folder that holds downloaded data; it need not exist yet.

    Args:
        given: the command line's ``--data-root``, which overrides ``LCNET_RL_DATA``, which overrides
            ``lcnet_rl/data`` in ``$XDG_CACHE_HOME`` (or ``~/.cache``).
    """
    if given is not None:
        return Path(given).expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "lcnet_rl" / "data"
