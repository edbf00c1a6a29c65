"""The settings of a dense training, see ``lcnet_rl.pretrain``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lcnet_rl.data.augment import Augmentation
from lcnet_rl.device import Precision
from lcnet_rl.errors import UserError
from lcnet_rl.settings import check_choices, check_finite, check_values

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
    """Use torch.compile (needs a C++ compiler); for a ResNet-20 about 1.2 times as fast after a minute; in one process
    only."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        check_values(self, lambda value: value >= 1, "be >= 1", "epochs")
        check_values(self, lambda value: value >= 2, "be >= 2", "batch_size")
        check_values(self, lambda value: value > 0, "be > 0", "lr", "muon_lr")
        check_values(self, lambda value: value >= 0, "be >= 0", "weight_decay", "muon_weight_decay")
        shares = ("warmup", "muon_momentum", "label_smoothing", "layer_drop")
        check_values(self, lambda value: 0 <= value < 1, "be in [0, 1)", *shares)
        check_values(self, lambda value: 0 <= value <= 1, "be in [0, 1]", "distill")
        if self.optimizer != "muon" and any(getattr(self, name) != getattr(Recipe, name) for name in MUON):
            raise UserError(f"{', '.join(MUON)} go with --recipe.optimizer muon")
