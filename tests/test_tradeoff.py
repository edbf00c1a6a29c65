"""Where a policy's line of other thresholds or prices has its points."""

from __future__ import annotations

import pytest
import torch
from networks import lively
from test_budget import tiny_set

from lcnet_rl.evaluate import evaluate
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.rewards import PriceRange
from lcnet_rl.tradeoff import CURVE, thresholds, trade_off

CPU = torch.device("cpu")


def sure(factor: float) -> LCNet:
    """A policy whose keep logits are ``factor`` times as far from 0."""
    model = lively()
    for gate in model.gates():
        gate.keep.weight.data *= factor
        gate.keep.bias.data *= factor
    return model


@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_however_sure_a_policy_is_each_threshold_drops_more_of_its_decisions(factor: float) -> None:
    model, logits = sure(factor), []

    def greedily(observation: Observation) -> torch.Tensor:
        logits.append(model.policy_logits(observation))
        return (logits[-1] > 0).float()

    evaluate(model, tiny_set(), greedily, CPU)
    own = [part[:, :bits].flatten() for part, bits in zip(logits, model.decisions.bits, strict=True)]
    probabilities = torch.cat(own).double().sigmoid()
    for quantile, threshold in zip(CURVE, thresholds(model, tiny_set(), CPU), strict=True):
        dropped = float((probabilities <= threshold + 1e-12).double().mean())
        assert dropped == pytest.approx(quantile, abs=2 / len(probabilities))


def test_a_range_of_prices_is_walked_through() -> None:
    prices, data = PriceRange(0.1, 1.6), tiny_set()
    model = lively(prices=prices)
    points = trade_off(model, data, data, CPU)
    assert len({macs for macs, _ in points}) > 1, "not all at one price"
    for place, (macs, accuracy) in zip(CURVE, points, strict=True):
        price = prices.at(torch.full((len(data),), place))
        results = evaluate(model, data, model.greedy(), CPU, prices=price)
        assert (macs, accuracy) == (pytest.approx(float(results.macs.mean())), pytest.approx(results.accuracy))
