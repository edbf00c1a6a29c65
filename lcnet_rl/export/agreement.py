"""Does an exported file do what the engine does, or, where nothing is decided, the network?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcnet_rl.backbones import Backbone
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.export.session import OnnxNetwork, undecided
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.state import Outcome

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
    decides: bool = True
    """Whether anything is decided; else all images have the same decisions, and bills."""

    @property
    def expected(self) -> str:
        """What the file was compared with."""
        return "engine" if self.decides else "network"

    def __str__(self) -> str:
        decisions, after = f"same decisions {self.same_decisions}, ", " after the same decisions"
        if not self.decides:
            decisions = after = ""
        return (
            f"{decisions}same prediction {self.same_predictions}, logits{after} within {self.error:.1e} of the largest"
        )

    def check(self) -> None:
        """Raise UserError unless the two agree up to rounding."""
        enough = max(1, min(self.images - 1, self.images * (1 - BORDERLINE)))
        alike = min(self.same_decisions, self.same_predictions) >= enough
        if not (alike and self.same_bills == self.same_decisions and self.error <= CLOSE):
            raise UserError(f"the exported file does not do what the {self.expected} does: {self}; please report it")


@torch.no_grad()
def compare(model: LCNet | Backbone, network: OnnxNetwork, images: Tensor) -> Agreement:
    """What runs a model here and an exported file, on images, uint8 (B, 3, 32, 32)."""
    run, parts = runner(model), []
    for batch in images.split(BATCH):
        expected, got = run(batch), network.run(batch)
        same = (expected.actions == got.actions).all(2).all(0)
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
        decides=isinstance(model, LCNet),
    )


def runner(model: LCNet | Backbone) -> Callable[[Tensor], Outcome]:
    """The engine of a model with gates, telling its decisions as executed; a network without gates as it is."""
    if isinstance(model, Backbone):
        return lambda images: undecided(model(images), dense_macs(model))
    engine = Engine(model)

    def run(images: Tensor) -> Outcome:
        outcome = engine.run(images, engine.greedy())
        return replace(outcome, actions=engine.decisions.executed(outcome.actions))

    return run
