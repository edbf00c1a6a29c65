"""What users wrote in modules of their own, by name: ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lcnet_rl.errors import UserError
from lcnet_rl.settings import dotted

_SOURCES: dict[str, str] = {}
"""The modules' texts as they were imported, by name: a file may be edited while its run goes on."""


def imported(kind: str, module: str, name: str, known: Iterable[str]) -> Any:
    """What is called ``name`` in a module of the working folder, or an installed one.

    Args:
        kind: what it should be, e.g. ``"reward"``.
        module: the module's name, with dots where it is in a package.
        name: what to take of it.
        known: names that need no module, for the error.

    Raises:
        UserError: when the module cannot be imported, or has nothing of that name.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        there = importlib.import_module(module)
        found = getattr(there, name)
        if (file := Path(getattr(there, "__file__", None) or "")).suffix == ".py":
            _SOURCES.setdefault(module, file.read_text(encoding="utf-8"))
        return found
    except Exception as error:  # whatever a user's module can raise
        raise UserError(
            f"{kind} {module}:{name} cannot be imported ({type(error).__name__}: {error}); built-in {kind}s: "
            f"{', '.join(sorted(known))}"
        ) from error


def sources_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the modules that nested settings name something of, as they were imported, by the modules' names."""
    named = [value for value in dotted(settings).values() if isinstance(value, str)]
    return {module: text for module, text in _SOURCES.items() if any(value.startswith(f"{module}:") for value in named)}
