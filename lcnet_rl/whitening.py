"""A stem that whitens: its filters are the directions in which small patches of the training images vary most.

As the frozen first layer of cifar10-airbench (Jordan, 2024, arXiv 2404.00498, section 3.2), after Page, "How to train
your ResNet", part 8. Here it keeps its BatchNorm, which scales every filter's output to unit variance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.backbones import Stem

IMAGES = 5000
"""How many images' patches are enough."""
EPSILON = 5e-4
"""Added to variances, as there: directions in which patches do not vary, as in grey images, stay small."""


@torch.no_grad()
def whiten(stem: Stem, images: Tensor) -> None:
    """Set the filters of the stem's convolution.

    Half of the filters are the first principal components of its patches, the other half the same negated: ReLU then
    loses nothing of them. Filters beyond twice a patch's numbers, 3 * 3 * 3, stay as they are.

    Args:
        stem: changed in place.
        images: training images, uint8 (N, 3, H, W).
    """
    weight = stem.conv.weight
    half = min(len(weight) // 2, weight[0].numel())
    sums, products, count = torch.zeros(()), torch.zeros(()), 0
    for batch in images.split(500):
        patches = F.unfold(stem.normalised(batch), weight.shape[-1]).mT.flatten(0, 1).double()
        sums, products, count = sums + patches.sum(0), products + patches.mT @ patches, count + len(patches)
    mean = sums / count
    variances, directions = torch.linalg.eigh(products / count - mean[:, None] * mean)
    deviations = (variances.clamp(min=0) + EPSILON).sqrt()
    components = (directions / deviations).mT.flip(0)[:half].view(half, *weight.shape[1:])
    weight[: 2 * half] = torch.cat((components, -components))
