"""L-Net and C-Net, the two tiny networks that decide (LC-Net, arXiv 2007.15151, section 3).

Both read the block's pooled input and emit keep logits, which are the policy's, and scales in [0, 1] through ReLU-1
(``clamp(., 0, 1)``). Decisions are trained by policy gradients, scales by back-propagation, so the two have a linear
layer each. Gates always compute in float32: a decision must not depend on the rounding of bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lcnet_rl.device import no_autocast
from lcnet_rl.distributed import global_moments

VARIANCE_FLOOR = 1e-3
"""Added to variances, so that an input that hardly varies stays small."""
PRICE_REACH = 4.0
"""What the gates of a policy for a range of prices read at its ends, -4 and 4.

Their other inputs have unit variance. Decisions must change far more along the range than from image to image; with
unit variance for the price too, a reach of 1.7, its weights are learned too slowly (EXPERIMENTS.md has figures). It is
part of what saved weights mean: another reach needs new training.
"""


def relu1(x: Tensor) -> Tensor:
    """ReLU-1, ``clamp(x, 0, 1)``, with gradient 1 at both ends.

    Scales start at exactly 1, and torch's clamp has gradient 0 there: they would never leave it.
    """
    if not torch.is_grad_enabled():
        return x.clamp(0, 1)
    return torch.where((x >= 0) & (x <= 1), x, x.detach().clamp(0, 1))


class Standardize(nn.Module):
    """Centres and scales the gates' inputs by running statistics of the training images.

    Pooled features are all positive, so without it every weight of a gate acts like one more bias: one decision for
    all images is learned first, and exploration ends before differences between images are. At inference the two
    vectors fold into the gates' linear layers, so it costs no MACs.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) to the same shape; an image's output does not depend on the rest of the batch."""
        return (x - self.mean) * (self.var + VARIANCE_FLOOR).rsqrt()

    def folded(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """``layer``, which reads what this one makes of its input, for that input itself.

        Args:
            layer: a gate's; what it reads beyond (the price) is not standardised.

        Returns:
            Weight (O, I) and bias (O,), float64.
        """
        weight, read = layer.weight.to(torch.float64, copy=True), len(self.mean)
        weight[:, :read] *= (self.var.double() + VARIANCE_FLOOR).rsqrt()
        return weight, layer.bias.double() - weight[:, :read] @ self.mean.double()

    @torch.no_grad()
    def rescale_spent(self, factor: float, gates: Iterable[Gate]) -> None:
        """Let the last input, the share of MACs spent, come ``factor`` times as large: ``gates`` decide as before."""
        before = float(self.var[-1]) + VARIANCE_FLOOR
        self.mean[-1] *= factor
        self.var[-1] *= factor**2
        for layer in (layer for gate in gates for layer in (gate.keep, gate.scale)):
            layer.weight[:, len(self.mean) - 1] *= ((float(self.var[-1]) + VARIANCE_FLOOR) / before) ** 0.5 / factor

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Count in a training batch (B, features): a plain mean over the first 100 batches, then a moving one."""
        self.count += 1
        share = max(1 / int(self.count), 0.01)
        mean, var = global_moments(x.mean(0), x.var(0, correction=0))
        self.mean.lerp_(mean, share)
        self.var.lerp_(var, share)


class Gate(nn.Module):
    """Keep logits and scales from features; L-Net has one of each, C-Net one a group and one a filter."""

    def __init__(self, features: int, decisions: int, scales: int, keep_bias: float) -> None:
        """Start open and neutral: keep probability ``sigmoid(keep_bias)`` and scales of exactly 1, for every image.

        Args:
            features: size of the gate's input.
            decisions: number of keep logits.
            scales: number of scales.
            keep_bias: initial keep logit.
        """
        super().__init__()
        self.keep = nn.Linear(features, decisions)
        self.scale = nn.Linear(features, scales)
        for layer, bias in ((self.keep, keep_bias), (self.scale, 1.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def logits(self, features: Tensor) -> Tensor:
        """Keep logits, (B, features) to (B, decisions); 1 means keep."""
        with no_autocast(features.device):
            return self.keep(features.float())

    def scales(self, features: Tensor) -> Tensor:
        """Scales in [0, 1], (B, features) to (B, scales)."""
        with no_autocast(features.device):
            return relu1(self.scale(features.float()))


class LNet(Gate):
    """Decides whether the block runs, and scales its output."""

    def __init__(self, features: int, keep_bias: float) -> None:
        super().__init__(features, 1, 1, keep_bias)


class CNet(Gate):
    """Decides which groups of the first convolution's filters run, and scales every filter."""

    def __init__(self, features: int, groups: int, filters: int, keep_bias: float) -> None:
        super().__init__(features, groups, filters, keep_bias)


class Probe(nn.Module):
    """A linear classifier on the pooled features: how sure would the network be if it stopped here?

    Its confidence tells hard images from easy ones, which pooled features alone hardly do for a linear gate. Where the
    gates read it, it is billed with L-Net.
    """

    measures = 2

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Class logits, (B, C) to (B, classes), in float32."""
        with no_autocast(pooled.device):
            return self.classifier(pooled.float())

    @torch.no_grad()
    def start_as(self, head: nn.Linear) -> None:
        """Take the weights (classes, C) of the first features that ``head`` reads."""
        self.classifier.weight.copy_(head.weight[:, : self.classifier.in_features])
        self.classifier.bias.copy_(head.bias)

    @staticmethod
    def confidence(logits: Tensor) -> Tensor:
        """Largest probability and entropy divided by its maximum, both in [0, 1]: (B, classes) to (B, 2)."""
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(1) / math.log(logits.shape[1])
        return torch.stack((p.amax(1), entropy.clamp(0, 1)), 1)
