"""What an environment can be made with, by keyword, and what it gets where nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lcnet_rl.data import Dataset, Split
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import Shape, price_range

PRICE = 0.3
"""Where nobody gave one, and the network was trained at none."""
REWARD = "linear"
"""Where nobody gave one, and no run says what it was trained for."""


@dataclass(frozen=True, eq=False)
class Settings:
    """What an environment can be made with, by keyword."""

    dataset: str | Dataset | None = None
    """Name of a data set (``shapes``, ``cifar10``, ``folder:PATH``), or a ``Dataset``; None is the run's own, and
    ``shapes`` where no run is given."""
    split: Split = "train"
    """``train``, ``val`` or ``test``, for a data set given by name."""
    data_root: Path | str | None = None
    """Where data lives; None is where the run had its own, and the user's cache folder for a data set given by name."""
    model: LCNet | None = None
    """The network to decide for: used, not copied; moved to ``device`` and put into eval mode."""
    run: Path | str | None = None
    """A run folder of ``lcnet-rl train`` whose final model is the network."""
    init: Path | str | None = None
    """Where neither is given, weights of the backbone that fresh gates are put on: ``auto`` (what comes with the
    project for that data set, backbone and width), a file, a run of ``pretrain``, ``akamaster``, or ``scratch``
    (random, always the same), which None is. The probes are untrained, so ``confidence`` says nothing yet."""
    backbone: str | None = None
    """Name of a backbone to put fresh gates on; None is what the file of ``init`` holds, else ``resnet8``."""
    width: int | None = None
    """Filters of the backbone's first stage; None is the usual width."""
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
