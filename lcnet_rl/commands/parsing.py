"""The command line over the settings of a preset, or of a run to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tyro

from lcnet_rl.errors import UserError
from lcnet_rl.runs import CONFIG


def option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option that decides how the others are read; of several, the last one, as everywhere."""
    value = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument == name and following is not None:
            value = following
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def parse_over(default: Any, arguments: Sequence[str], prog: str) -> Any:
    """Settings of the type of ``default``, a dataclass, where not given on the command line those of ``default``.

    Raises:
        UserError: for --resume and other settings than the run has, but where to compute and where the data are.
    """
    config = tyro.cli(type(default), args=list(arguments), prog=prog, default=default)
    here = replace(config, resume=default.resume, device=default.device, data_root=default.data_root)
    if config.resume is not None and here != default:
        raise UserError(
            f"--resume goes on with the settings in {Path(config.resume) / CONFIG}; leave options other than --device "
            "and --data-root away"
        )
    return config
