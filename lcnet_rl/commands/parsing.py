"""The command line, and the command line over the settings of a preset or of a run to go on with."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import docstring_parser
import tyro

from lcnet_rl.commands.mistakes import mistake
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


def parse_options(settings: type[Any], arguments: Sequence[str], prog: str, default: Any = tyro.MISSING_NONPROP) -> Any:
    """Settings of type ``settings``, a dataclass, from the command line; ``default`` (else its own) where not given.

    Raises:
        UserError: for what cannot be read.
    """
    _describe(settings)
    said, refused = io.StringIO(), False
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(settings, args=list(arguments), prog=prog, default=default)
    except SystemExit as stop:
        refused = bool(stop.code)
        if not refused:
            raise
        raise mistake(settings, arguments, prog, said.getvalue()) from None
    finally:
        if not refused:  # a module of the user's own may have warned as it was imported
            sys.stderr.write(said.getvalue())


def _describe(settings: type[Any]) -> None:
    """Give each option's docstring to the help as one paragraph: tyro keeps the line breaks of the source."""
    for base in settings.__mro__:
        if is_dataclass(base):
            for parameter in docstring_parser.parse_from_object(base).params:
                text = " ".join((parameter.description or "").split())
                field = base.__dataclass_fields__[parameter.arg_name]
                field.metadata = MappingProxyType({**field.metadata, "help": text})
    types = get_type_hints(settings)
    for field in fields(settings):
        if is_dataclass(types[field.name]):
            _describe(types[field.name])


def parse_over(default: Any, arguments: Sequence[str], prog: str) -> Any:
    """Settings of the type of ``default``, a dataclass, where not given on the command line those of ``default``.

    Raises:
        UserError: for --resume and other settings than the run has, but where to compute and where the data are.
    """
    config = parse_options(type(default), arguments, prog, default)
    here = replace(config, resume=default.resume, device=default.device, data_root=default.data_root)
    if config.resume is not None and here != default:
        raise UserError(
            f"--resume goes on with the settings in {Path(config.resume) / CONFIG}; leave options other than --device "
            "and --data-root away"
        )
    return config
