"""What a training works with beside its network and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lcnet_rl.backbones import Backbone
from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.data.sampler import TrainingBatches
from lcnet_rl.seeds import Stream, step_generator


@dataclass(frozen=True)
class TrainingSetup:
    """The images, the run folder, and where and with which random numbers to compute."""

    train: Dataset
    """Training images; BatchNorm's statistics are of them, too."""
    val: Dataset
    """Validation images. Pretraining logs its accuracy on them; an agent's best checkpoint and threshold hang on them.
    Never test images."""
    run: Path
    """An existing run folder: checkpoints, logs and the final model go there."""
    seed: int
    """Decides everything random."""
    device: torch.device
    """Where to compute."""
    teacher: Backbone | None = None
    """A trained network whose probabilities are learned beside the labels. Without one, pretraining learns labels only,
    and an agent learns from its backbone as it is at the start."""

    def batches(self, batch_size: int, augmentation: Augmentation) -> TrainingBatches:
        """The training images in batches on the device.

        Raises:
            UserError: when there are fewer images than one batch, or it does not divide among the processes.
        """
        return TrainingBatches(self.train, batch_size, self.seed, self.device, augmentation)

    def generator(self, step: int, stream: Stream) -> torch.Generator:
        """The random numbers of one training step and stream, on the device."""
        return step_generator(self.seed, step, self.device, stream)
