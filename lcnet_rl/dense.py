"""What a whole backbone makes of images, none of its blocks skipped."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcnet_rl.backbones import Backbone
from lcnet_rl.batchnorm import CALIBRATION_IMAGES, average_statistics, batch_norms
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision, autocast

BATCH = 500
"""Images at once."""


def recalibrate_dense(backbone: Backbone, train: Dataset, device: torch.device, precision: Precision = "fp32") -> None:
    """Set BatchNorm's running statistics to those of the whole network, on training images without augmentation.

    Those gathered while it dropped layers are of other networks.

    Args:
        backbone: changed in place and left in eval mode, the same in all processes.
        train: training images, never validation or test images.
        device: where to compute.
        precision: of the passes.
    """

    def forward(batch: Tensor) -> None:
        with autocast(device, precision):
            backbone(batch.to(device))

    backbone.train()
    average_statistics(backbone, batch_norms(backbone), forward, train.sample(CALIBRATION_IMAGES).images)


@torch.no_grad()
def soft_labels(teacher: Backbone, images: Tensor) -> Tensor:
    """What the teacher makes of uint8 images (B, 3, 32, 32): probabilities (B, classes), float32."""
    return teacher(images).float().softmax(1)


@torch.no_grad()
def dense_accuracy(backbone: Backbone, dataset: Dataset, device: torch.device, precision: Precision = "fp32") -> float:
    """Accuracy in [0, 1] of the whole backbone, in eval mode (in which it is left)."""
    return accuracy_of(dense_predictions(backbone, dataset, device, precision), dataset)


def accuracy_of(predictions: Tensor, dataset: Dataset) -> float:
    """Accuracy in [0, 1] of predicted classes (N,) of a data set's N images."""
    return int((predictions == dataset.labels).sum()) / len(dataset)


@torch.no_grad()
def dense_predictions(
    backbone: Backbone,
    dataset: Dataset,
    device: torch.device,
    precision: Precision = "fp32",
    each: Callable[[int], object] = lambda images: None,
) -> Tensor:
    """The classes that the whole backbone predicts, (N,), int64, on the CPU; in eval mode (in which it is left).

    ``each`` is called after each batch, with how many images it has.
    """
    backbone.eval()
    parts = []
    for images in dataset.images.split(BATCH):
        with autocast(device, precision):
            parts.append(backbone(images.to(device)).argmax(1).cpu())
        each(len(images))
    return torch.cat(parts)
