"""Thresholds of an agent in training, where what they spend depends on the statistics that they lead to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from agents import centering


class Swinging:
    """Spends more with a larger shift, and much more with the statistics of a larger shift."""

    backbone = SimpleNamespace(second=None)

    def __init__(self, answers: float) -> None:
        """What spends a given share moves by ``answers`` times what the statistics' shift moves, the other way."""
        self.answers, self.shift, self.statistics = answers, 2.0, 0.0

    def shift_logits(self, amount: float) -> None:
        self.shift += amount

    def share(self, threshold: float = 0.5) -> float:
        over = self.shift - torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
        return min(1.0, max(0.0, 0.5 + 0.05 * over + 0.05 * self.answers * self.statistics))


class Swings:
    """The measurement of such a network; notes the shares of its decisions at 1/2."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def recalibrate(self, model: Swinging) -> None:
        model.statistics = model.shift

    def share(self, model: Swinging, threshold: float | None = None) -> float:
        share = model.share(threshold or 0.5)
        if threshold is None:
            self.shares.append(share)
        return share


def centred(answers: float, rounds: int = 3) -> tuple[Swinging, list[float]]:
    """What is left of a network after it was centred for 70 %, with its own statistics, and the shares on the way."""
    model, measurement = Swinging(answers), Swings()
    centering.center(cast(Any, model), cast(Any, measurement), 0.7, rounds)
    measurement.recalibrate(model)
    return model, measurement.shares


@pytest.mark.parametrize("answers", [0.3, 1.0, 1.5])
def test_thresholds_that_swing_come_to_rest_near_the_target(answers: float) -> None:
    assert centred(answers)[0].share() == pytest.approx(0.7, abs=centering.CLOSE)


def test_of_thresholds_that_do_not_come_to_rest_the_nearest_one_stays(capsys: pytest.CaptureFixture[str]) -> None:
    model, shares = centred(2.5, rounds=2)
    assert len(shares) == centering.TRIES
    assert abs(shares[-1] - 0.7) > 0.03, "the last one is not the nearest"
    assert abs(model.share() - 0.7) == pytest.approx(min(abs(share - 0.7) for share in shares))
    assert "decisions swing" in capsys.readouterr().out


def test_where_shares_jump_over_the_target_one_try_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smooth = Swinging.share
    monkeypatch.setattr(Swinging, "share", lambda self, threshold=0.5: 0.6 if smooth(self, threshold) < 0.68 else 0.8)
    model, shares = centred(0.0)
    assert shares == [0.6]
    assert smooth(model) == pytest.approx(0.68, abs=0.001), "as near to the jump as a threshold comes"
    assert "no threshold comes nearer: the policy stays 10.0% of" in " ".join(capsys.readouterr().out.split())


def test_where_even_everything_spends_too_little_nothing_is_said_to_swing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Swinging, "share", lambda self, threshold=0.5: 0.4)
    centred(0.0)
    output = " ".join(capsys.readouterr().out.split())
    assert "no threshold comes nearer: the policy stays 30.0% of the dense MACs beside the target" in output
    assert "swing" not in output


@pytest.mark.parametrize(("answers", "rounds", "tries"), [(3.0, 3, 0), (4.0, 2, 1)])
def test_where_no_threshold_meets_the_target_decisions_stay_as_they_are(
    capsys: pytest.CaptureFixture[str], answers: float, rounds: int, tries: int
) -> None:
    model, shares = centred(answers, rounds)
    assert len(shares) == tries, "found out at once, or after a first threshold"
    assert model.shift == pytest.approx(2.0)
    assert "decisions stay as they are" in capsys.readouterr().out
