"""What users wrote in modules of their own, by name: ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lcnet_rl.errors import UserError


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
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a user's module can raise
        raise UserError(
            f"{kind} {module}:{name} cannot be imported ({type(error).__name__}: {error}); built-in {kind}s: "
            f"{', '.join(sorted(known))}"
        ) from error
