"""What an environment can be made with, by keyword, and what it gets where nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lcnet_rl.data import Dataset, Split
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import Shape, price_range
from lcnet_rl.settings import check_choices

PRICE = 0.3
"""Where nobody gave one, and the network was trained at none."""
REWARD = "linear"
"""Where nobody gave one, and no run says what it was trained for."""

_Kind = type | tuple[type, ...]
_PATH: tuple[_Kind, str] = (str, PathLike), "a path"
_COUNT: tuple[_Kind, str] = (int, np.integer), "a whole number"
_KINDS: dict[str, tuple[_Kind, str]] = {
    "dataset": ((str, Dataset), "a name or a lcnet_rl.data.Dataset"),
    "data_root": _PATH,
    "model": (LCNet, "an LCNet (lcnet_rl.weights.load_model reads one from a file; give a run folder as run)"),
    "run": _PATH,
    "init": _PATH,
    "backbone": (str, 'a name: "resnet20", or "MODULE:FAMILY" of your own'),
    "width": _COUNT,
    "groups": _COUNT,
    "confidence": (bool, "True or False"),
    "device": (str, "a name: cpu, cuda, cuda:N or auto"),
}
"""What a setting may be besides its default, and that in words. ``split`` has choices, and ``price`` and ``reward`` are
read by functions that refuse what they cannot read."""


@dataclass(frozen=True, eq=False)
class Settings:
    """What an environment can be made with, by keyword."""

    dataset: str | Dataset | None = None
    """Name of a data set (``shapes``, ``cifar10``, ``folder:PATH``), or a ``Dataset``; None is the run's own, and
    ``shapes`` where fresh gates are put on a backbone. With a ``model`` it has to be given."""
    split: Split = "train"
    """``train``, ``val`` or ``test``, for a data set given by name; test images are for a policy that is done."""
    data_root: Path | str | None = None
    """Where data lives; None is where the run had its own, and the user's cache folder for a data set given by name."""
    model: LCNet | None = None
    """The network to decide for: used, not copied (but ``gymnasium.make(env.spec)`` copies it); moved to ``device`` and
    put into eval mode."""
    run: Path | str | None = None
    """A run folder of ``lcnet-rl train`` whose final model is the network."""
    init: Path | str | None = None
    """Where neither is given, weights of the backbone that fresh gates are put on: ``auto`` (what comes with the
    project for that data set, backbone and width), a file, a run of ``pretrain``, ``akamaster``, or ``scratch``
    (random, always the same), which None is. The probes are untrained, so ``confidence`` says nothing yet."""
    backbone: str | None = None
    """Name of a backbone to put fresh gates on; None is what the file of ``init`` holds, else ``resnet8``."""
    width: int | None = None
    """Filters of the backbone's first stage; None is what the file of ``init`` holds, else the usual width."""
    groups: int | None = None
    """Filter groups a block, each kept or dropped as one; 0 decides every filter by itself. None is what the network
    has, and 4 where gates are fresh."""
    confidence: bool | None = None
    """Whether the policy sees the confidence of a probe on the pooled features, billed. None is what the network has,
    and yes where gates are fresh."""
    reward: str | Shape | None = None
    """Reward shape, with parameters after a colon: ``linear``, ``quadratic:penalty=0.5``, ...; ``MODULE:FUNCTION``; a
    function or a ``Reward``. None is what the run was trained for, else ``linear``."""
    price: float | str | None = None
    """Reward lost by spending the dense model's MACs once; a range like ``"0.05..1.0"`` draws one for every image. None
    is what the model or run was trained at or for, and 0.3 where it was not trained. A price means something with its
    reward only: with a trained ``model``, give the reward that it was trained for."""
    device: str = "cpu"
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto``."""

    def __post_init__(self) -> None:
        check_choices(self)
        _check_kinds(self)
        if self.price is not None:
            price_range(self.price)
        if self.model is not None and self.run is not None:
            raise UserError("give a model or a run, not both")
        if self.run is not None and Path(self.run).is_file():
            folder = Path(self.run).parent
            raise UserError(
                f"run is a folder, but {self.run} is a file: give {folder}, or what load_model reads as model"
            )
        if self.init is not None and not (self.model is None and self.run is None):
            raise UserError("init is what fresh gates are put on: leave it out where a model or a run is given")


def settings_of(keywords: Mapping[str, Any]) -> Settings:
    """The settings that keywords of an environment name.

    Raises:
        UserError: for one that there is not, or a value that makes no environment.
    """
    known = [field.name for field in fields(Settings)]
    for name in keywords:
        if name not in known:
            raise unknown_name("keyword", name, known)
    return Settings(**keywords)


def _check_kinds(settings: Settings) -> None:
    """Refuse settings of which one is of a kind that it cannot be.

    Raises:
        UserError: with the value, and in words what would be right.
    """
    for name, (kind, words) in _KINDS.items():
        value = getattr(settings, name)
        # To Python True and False are the whole numbers 1 and 0.
        right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        if not right and value is not getattr(Settings, name):  # its default
            raise UserError(f"{name} must be {words}, got {value!r:.80}")
