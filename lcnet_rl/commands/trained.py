"""A trained run, as several commands take it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lcnet_rl.backbones import Backbone
from lcnet_rl.errors import UserError
from lcnet_rl.weights import load_backbone


def refuse_policy_options(config: Any, *allowed: str) -> None:
    """Refuse what only a policy has, for a run of ``pretrain``.

    Args:
        config: a command's settings, of which ``run`` is the run folder.
        allowed: names of settings that such a run has too.

    Raises:
        UserError: naming the options that were given.
    """
    others = [field for field in fields(config) if field.name not in ("run", *allowed)]
    given = [f"--{field.name.replace('_', '-')}" for field in others if getattr(config, field.name) != field.default]
    if given:
        raise UserError(f"in {config.run} nothing is decided: leave {' and '.join(given)} out")


def load_dense(config: Any, *allowed: str) -> Backbone:
    """The network of a run of ``pretrain``, for any classes, in eval mode; the arguments are as above.

    Raises:
        UserError: when asked for what only a policy has.
    """
    refuse_policy_options(config, *allowed)
    return load_backbone(str(config.run), classes=None).eval()


def variant(which: str, price: float | None = None, budget: float | None = None) -> str:
    """What files are called after that are of a run with these options: what is not as usual."""
    best = "-best" if which == "best" else ""
    at = "" if price is None else f"-price{price:g}"
    within = "" if budget is None else f"-budget{budget:g}"
    return f"{best}{at}{within}"
