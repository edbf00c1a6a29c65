"""Thresholds of an agent in training, where what they spend depends on the statistics that they lead to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from agents import centering
from lcnet_rl import budget


class Swinging:
    """Spends more with a larger shift, and much more with the statistics of a larger shift."""

    backbone = SimpleNamespace(second=None)

    def __init__(self, answers: float) -> None:
        """What spends a given share moves by ``answers`` times what the statistics' shift moves, the other way."""
        self.answers, self.shift, self.statistics = answers, 2.0, 0.0

    def greedy(self, threshold: float = 0.5) -> float:
        return threshold

    def shift_logits(self, amount: float) -> None:
        self.shift += amount

    def share(self, threshold: float = 0.5) -> float:
        over = self.shift - torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
        return min(1.0, max(0.0, 0.5 + 0.05 * over + 0.05 * self.answers * self.statistics))


@pytest.mark.parametrize("answers", [0.3, 1.0, 1.5])
def test_thresholds_that_swing_come_to_rest_near_the_target(monkeypatch: pytest.MonkeyPatch, answers: float) -> None:
    def recalibrate(model: Swinging, *_: Any) -> None:
        model.statistics = model.shift

    def evaluate(model: Swinging, images: Any, threshold: float, *_: Any) -> Any:
        return SimpleNamespace(macs_ratio=model.share(threshold))

    for module in (centering, budget):
        monkeypatch.setattr(module, "recalibrate", recalibrate)
        monkeypatch.setattr(module, "evaluate", evaluate)
    model, nothing = Swinging(answers), cast(Any, None)
    centering.center(cast(Any, model), nothing, nothing, 0.7, torch.device("cpu"), "fp32", 3)
    recalibrate(model)
    assert model.share() == pytest.approx(0.7, abs=centering.CLOSE)
