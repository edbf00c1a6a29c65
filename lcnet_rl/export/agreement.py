"""Does an exported file do what the engine does?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.export.session import OnnxNetwork
from lcnet_rl.model import LCNet

BATCH = 500
BORDERLINE = 0.01
"""Share of images (or one) whose decisions or predictions may differ: up to rounding, a keep probability may be the
threshold, and the logits of two classes the same."""
CLOSE = 1e-3
"""How far logits after the same decisions may be apart, as a share of the largest."""


@dataclass(frozen=True)
class Agreement:
    """Two ways to run a network, on the same images."""

    images: int
    same_decisions: int
    same_predictions: int
    same_bills: int
    """Of the images with the same decisions."""
    error: float
    """Largest difference of logits after the same decisions, as a share of the largest logit."""

    def __str__(self) -> str:
        return (
            f"same decisions {self.same_decisions}, same prediction {self.same_predictions}, "
            f"logits after the same decisions within {self.error:.1e} of the largest"
        )

    def check(self) -> None:
        """Raise UserError unless the two agree up to rounding."""
        enough = max(1, min(self.images - 1, self.images * (1 - BORDERLINE)))
        alike = min(self.same_decisions, self.same_predictions) >= enough
        if not (alike and self.same_bills == self.same_decisions and self.error <= CLOSE):
            raise UserError(f"the exported file does not do what the engine does: {self}; please report it")


def compare(model: LCNet, network: OnnxNetwork, images: Tensor) -> Agreement:
    """The engine and an exported file on images, uint8 (B, 3, 32, 32)."""
    engine, parts = Engine(model), []
    for batch in images.split(BATCH):
        expected, got = engine.run(batch, engine.greedy()), network.run(batch)
        same = (engine.executed(expected.actions) == got.actions).all(2).all(0)
        difference = (expected.logits - got.logits).abs().amax(1) / expected.logits.abs().max()
        predictions = expected.logits.argmax(1) == got.logits.argmax(1)
        # Where decisions differ, logits may too.
        parts.append((same, predictions, same & (expected.macs == got.macs), difference.where(same, 0.0)))
    same, predictions, bills, difference = (torch.cat(part) for part in zip(*parts, strict=True))
    return Agreement(
        images=len(images),
        same_decisions=int(same.sum()),
        same_predictions=int(predictions.sum()),
        same_bills=int(bills.sum()),
        error=float(difference.max()),
    )
