"""Defaults of the settings of recorded runs, for what was no setting yet when they were made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcnet_rl.commands.pretrain_settings import Pretrain
from lcnet_rl.commands.train_settings import ALGOS
from lcnet_rl.comparison.records import experiment
from lcnet_rl.files import plain


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, and those that there were not yet when it was made, as if they had had their defaults."""
    return {**defaults(settings), **settings}


def defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run of that kind, by dotted name; empty where its kind is not known."""
    kind = Pretrain if "recipe.epochs" in settings else ALGOS.get(settings.get("algo", ""))
    return {} if kind is None else experiment(plain(kind()))
