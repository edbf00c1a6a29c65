"""The settings of a dense training, see ``lcnet_rl.pretrain``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lcnet_rl.data.augment import Augmentation
from lcnet_rl.device import Precision
from lcnet_rl.errors import UserError
from lcnet_rl.settings import check_choices

MUON = ("muon_lr", "muon_momentum", "muon_weight_decay")
"""Settings that only Muon reads."""


@dataclass(frozen=True)
class Recipe:
    """How a backbone is trained from scratch."""

    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, of all processes together."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """SGD with Nesterov momentum 0.9 for all, or Muon for the convolutions and SGD for the rest."""
    lr: float = 0.2
    """Peak learning rate of SGD."""
    muon_lr: float = 0.1
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.9
    """Momentum of Muon, Nesterov's way."""
    muon_weight_decay: float = 0.02
    """Decoupled decay of the convolutions: they shrink by learning rate times this a step."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises; then it falls linearly to zero."""
    weight_decay: float = 5e-4
    """L2 penalty on convolution and linear weights."""
    label_smoothing: float = 0.05
    """Share of the target spread evenly over all classes."""
    distill: float = 0.0
    """Weight of a teacher's soft labels in the loss, where there is a teacher."""
    layer_drop: float = 0.0
    """Highest rate at which an image does without blocks; each image has its own, uniform between 0 and this. Prepares
    for skipping (LayerDrop)."""
    whiten: bool = False
    """Let the stem's filters be the principal components of the training images' patches, and do not train them."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "auto"
    """bf16 (autocast), fp32, or auto: bf16 where the hardware has instructions for it."""
    compile: bool = False
    """Use torch.compile (needs a C++ compiler); about 1.2 times as fast after a minute; in one process only."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name} must be a finite number, got {value}")
        if self.epochs < 1 or self.batch_size < 2:
            raise UserError(f"epochs must be >= 1 and batch_size >= 2, got {self.epochs} and {self.batch_size}")
        if not self.lr > 0:
            raise UserError(f"lr must be > 0, got {self.lr}")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        if not self.muon_lr > 0:
            raise UserError(f"muon_lr must be > 0, got {self.muon_lr}")
        if not 0 <= self.muon_momentum < 1:
            raise UserError(f"muon_momentum must be in [0, 1), got {self.muon_momentum}")
        for name in ("weight_decay", "muon_weight_decay"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.optimizer != "muon" and any(getattr(self, name) != getattr(Recipe, name) for name in MUON):
            raise UserError(f"{', '.join(MUON)} go with --recipe.optimizer muon")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill must be in [0, 1], got {self.distill}")
        if not 0 <= self.layer_drop < 1:
            raise UserError(f"layer_drop is a rate in [0, 1), got {self.layer_drop}")
