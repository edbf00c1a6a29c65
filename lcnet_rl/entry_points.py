"""Where gymnasium looks for the environments' classes, which are in ``envs``.

Many a project has an ``envs`` of its own, which hides this one's from whoever works there: then that is the error.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lcnet_rl import ENVIRONMENTS
from lcnet_rl.errors import UserError

_MODULES = {
    f"{name}{kind}": module
    for name in ENVIRONMENTS.values()
    for kind, module in (("Env", "envs.single"), ("VectorEnv", "envs.vector"))
}
"""By the names of the classes."""


def __getattr__(name: str) -> Any:
    """The class of an environment, imported when it is asked for, by its name.

    Raises:
        AttributeError: for any other name.
        UserError: where another package called ``envs`` is found first.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    found, own = find_spec("envs"), Path(__file__).parents[1] / "envs" / "__init__.py"
    if found is not None and found.origin is not None and Path(found.origin).resolve() != own.resolve():
        raise UserError(f"another package called envs hides lcnet_rl's: {found.origin}; rename it")
    return getattr(importlib.import_module(_MODULES[name]), name)
