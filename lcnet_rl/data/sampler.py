"""Training batches as a function of the step: the sampler's position is the step number, so resuming is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from lcnet_rl.data.augment import Augmentation, augment
from lcnet_rl.data.dataset import Dataset
from lcnet_rl.distributed import my_rows
from lcnet_rl.errors import UserError
from lcnet_rl.progress import warn
from lcnet_rl.seeds import step_generator

FEW, FEW_AN_EPOCH = 200, 10
"""Steps of a training, and of an epoch, of which fewer than both may be too few: the set is small beside the batch."""


class TrainingBatches:
    """Shuffled, augmented batches of a data set; every image once an epoch, the remainder of an epoch is dropped."""

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
    ) -> None:
        """Prepare batches of ``batch_size`` images; of several processes, each gets its rows of every batch.

        Raises:
            UserError: as ``full_batches``.
        """
        self.steps_per_epoch = full_batches(dataset, batch_size)
        self._images, self._labels = dataset.images.to(device), dataset.labels.to(device)
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._rows = my_rows(batch_size)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)
        self._augmentation = augmentation
        # Which images the even epochs mirror, from a stream far below those of the epochs' orders.
        coins = torch.rand(len(dataset), generator=step_generator(seed, -(2**31)))
        self._mirrored = (coins < 0.5).to(device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch number ``step`` (from 0): augmented uint8 images (B, 3, 32, 32) and int64 labels (B,).

        With several processes B is this one's share of the batch.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            # Negative steps are no training steps, so the order's stream never meets an augmentation's.
            order = torch.randperm(len(self._labels), generator=step_generator(self._seed, -1 - epoch))
            self._epoch, self._order = epoch, order.to(self._device)
        chosen = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        # All of the batch: draws must not depend on the number of processes. Beside a step, the rest costs little.
        how = self._augmentation
        generator = step_generator(self._seed, step, self._device)
        images = augment(self._images[chosen], generator, how.padding, self._flips(chosen, epoch), how.cutout)
        return images[self._rows], self._labels[chosen[self._rows]]

    def _flips(self, chosen: Tensor, epoch: int) -> Tensor | None:
        """Which of the ``chosen`` images (B,) to mirror, bool (B,), or None where ``augment`` draws them."""
        if self._augmentation.flips == "random":
            return None
        if self._augmentation.flips == "alternating":
            return self._mirrored[chosen] ^ bool(epoch % 2)
        return torch.zeros_like(chosen, dtype=torch.bool)


def full_batches(dataset: Dataset, batch_size: int) -> int:
    """How many batches of this size a data set fills: the steps of an epoch.

    Raises:
        UserError: when the set holds fewer images than one batch, or the batch does not divide among the processes.
    """
    if batch_size > len(dataset):
        raise UserError(f"batch size {batch_size} exceeds the {len(dataset)} images of {dataset.name}/{dataset.split}")
    my_rows(batch_size)  # which refuses what does not divide
    return len(dataset) // batch_size


def warn_if_few(steps: int, steps_per_epoch: int, options: str) -> None:
    """Warn of a training that may end before it has begun, on a small set; easy images take few steps, too.

    Args:
        steps: of the whole training.
        steps_per_epoch: of every epoch.
        options: the command's, for the batch size and the epochs.
    """
    if steps < FEW and steps_per_epoch < FEW_AN_EPOCH:
        warn(
            f"the whole training has {steps} step(s), {steps_per_epoch} an epoch, and may hardly learn: a smaller "
            f"batch or more epochs give more ({options})",
        )
