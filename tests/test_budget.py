"""Thresholds and prices that meet a budget."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate import CPU, tiny_set
from test_model import undecided_lcnet

from lcnet_rl.budget import (
    Measurement,
    calibrate_price,
    calibrate_threshold,
    center_threshold,
    meet_budget,
    price_within,
    smallest,
    threshold_within,
)
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import evaluate
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides


@given(limit=st.integers(1, 3000), data=st.data())
def test_the_smallest_point_is_found_and_soon_if_it_is_near_0(limit: int, data: st.DataObject) -> None:
    answer = data.draw(st.integers(-limit, limit + 1))
    asked = []

    def holds(point: int) -> bool:
        assert -limit <= point <= limit
        asked.append(point)
        return point >= answer

    assert smallest(holds, limit) == (answer if answer <= limit else None)
    assert len(asked) <= (6 if -16 < answer <= 16 else 18)


@pytest.mark.parametrize("share_of_range", [0.2, 0.5, 0.9])
def test_the_threshold_is_the_smallest_that_meets_the_budget(share_of_range: float) -> None:
    model, data = undecided_lcnet(), tiny_set()

    def share(threshold: float) -> float:
        return evaluate(model, data, model.greedy(threshold), CPU).macs_ratio

    loosest, strictest = share(1 / (1 + math.exp(12))), share(1 / (1 + math.exp(-12)))
    budget = strictest + share_of_range * (loosest - strictest)
    threshold = calibrate_threshold(model, Measurement(data, data, CPU), budget)
    assert share(threshold) <= budget
    slightly_smaller = math.log(threshold / (1 - threshold)) - 0.006
    assert share(1 / (1 + math.exp(-slightly_smaller))) > budget


def test_a_generous_budget_keeps_everything_with_the_largest_threshold_that_does() -> None:
    model, data = undecided_lcnet(), tiny_set()
    threshold = calibrate_threshold(model, Measurement(data, data, CPU), 2.0)
    everything = evaluate(model, data, model.keep_everything, CPU).macs_ratio
    assert evaluate(model, data, model.greedy(threshold), CPU).macs_ratio == everything
    slightly_larger = math.log(threshold / (1 - threshold)) + 0.006
    assert evaluate(model, data, model.greedy(1 / (1 + math.exp(-slightly_larger))), CPU).macs_ratio < everything


@pytest.mark.parametrize("largest", [0.3, 0.5, 0.7])
def test_of_thresholds_that_cost_alike_the_largest_is_taken(largest: float) -> None:
    threshold = threshold_within(0.9, lambda threshold: 0.8 if threshold <= largest else 0.6)
    assert threshold == pytest.approx(largest, abs=0.002)
    assert threshold <= largest


def test_where_no_threshold_changes_anything_it_stays_one_half() -> None:
    assert threshold_within(0.9, lambda threshold: 0.8) == 0.5


def test_a_threshold_is_found_for_any_cost_that_falls() -> None:
    threshold = threshold_within(0.3, lambda threshold: 1 - threshold)
    assert threshold == pytest.approx(0.7, abs=0.002)
    assert 1 - threshold <= 0.3


@pytest.mark.parametrize(("decides", "groups"), [("layers", 2), ("channels", 2), ("both", 2)])
def test_an_impossible_budget_is_refused_with_the_least_possible_one(decides: Decides, groups: int) -> None:
    model = undecided_lcnet(decides, groups)
    nothing = torch.zeros(model.depth, 13, model.action_size)
    least = evaluate(model, tiny_set(), nothing, CPU).macs_ratio
    with pytest.raises(UserError, match=rf"budget of 0\.010: keeping nothing still costs {least:.3f}"):
        calibrate_threshold(model, Measurement(tiny_set(), tiny_set(), CPU), 0.01)


def test_the_least_possible_is_what_was_measured() -> None:
    with pytest.raises(UserError, match=r"keeping nothing still costs 0\.412"):
        threshold_within(0.3, lambda threshold: 0.412)


def test_the_price_is_the_smallest_that_meets_the_budget() -> None:
    prices = PriceRange(0.1, 1.6)
    found = price_within(0.6, lambda price: 1 - price / 2, prices)
    assert found == pytest.approx(0.8, rel=0.03)
    assert found >= 0.8


def test_a_model_that_keeps_less_at_a_higher_price_meets_a_budget_by_it() -> None:
    model, data = undecided_lcnet(), tiny_set()
    with torch.no_grad():
        for gate in model.gates():
            gate.keep.weight[:, -1] = -10.0
            gate.keep.bias += 5.0
    before = model.price.clone()

    def share(price: float) -> float:
        return evaluate(model, data, model.greedy(), CPU, prices=torch.full((len(data),), price)).macs_ratio

    budget, measurement = (share(0.1) + share(1.6)) / 2, Measurement(data, data, CPU, prices=PriceRange(0.1, 1.6))
    price = calibrate_price(model, measurement, budget)
    assert share(price) <= budget < share(price / 1.03)
    assert torch.equal(model.price, before)
    with pytest.raises(UserError, match=r"no price in 0\.1\.\.1\.6 meets a budget of 0\.010: at 1\.6 it still"):
        calibrate_price(model, measurement, 0.01)


def test_every_round_of_centring_starts_from_statistics_of_the_decisions_so_far() -> None:
    data = tiny_set()
    measurement, models = Measurement(data, data, CPU), [undecided_lcnet() for _ in range(2)]
    for model in models:
        model.shift_logits(2.0)
    budget = 0.7 * evaluate(models[0], data, models[0].greedy(), CPU).macs_ratio
    both = center_threshold(models[0], measurement, budget)
    first, second = (center_threshold(models[1], measurement, budget, rounds=1) for _ in range(2))
    assert first != 0 != second, "decisions change in both rounds"
    assert both == first + second
    for mine, theirs in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_budget_beyond_everything_is_refused_as_percent_would_be() -> None:
    model, measurement = undecided_lcnet(), Measurement(tiny_set(), tiny_set(), CPU)
    most = model.costs.ceiling / model.costs.dense
    meet_budget(model, measurement, most)
    with pytest.raises(UserError, match=rf"keeping everything costs {most:.4g}, got 50"):
        meet_budget(model, measurement, 50)


@pytest.mark.parametrize("prices", [PriceRange(0.3, 0.3), PriceRange(0.01, 10)], ids=["thresholds", "prices"])
def test_every_try_is_told_to_who_asks(prices: PriceRange, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = undecided_lcnet(), tiny_set()
    tries, told = [], []
    monkeypatch.setattr(
        "lcnet_rl.budget.evaluate", lambda *given, **more: tries.append(given) or evaluate(*given, **more)
    )
    meet_budget(model, Measurement(data, data, CPU, prices=prices, each=lambda: told.append(len(tries))), 0.9)
    assert len(tries) > 1
    assert told == list(range(1, len(tries) + 1))


def test_a_budget_that_is_met_stays_with_the_model() -> None:
    model, data = undecided_lcnet(), tiny_set()
    measurement = Measurement(data, data, CPU)
    usual = evaluate(model, data, model.greedy(), CPU).macs_ratio
    before = model.gates()[0].keep.bias.clone()
    said, shift = meet_budget(model, measurement, 0.8 * usual)
    torch.testing.assert_close(model.gates()[0].keep.bias, before + shift)
    assert shift < 0
    assert 0.4 * usual < evaluate(model, data, model.greedy(), CPU).macs_ratio <= 0.8 * usual
    assert "with keep threshold 0." in said
    for gate in model.gates():
        gate.keep.weight.data[:, -1] = -10.0
    said, shift = meet_budget(model, replace(measurement, prices=PriceRange(0.01, 10)), 0.5 * usual)
    assert shift == 0
    assert evaluate(model, data, model.greedy(), CPU).macs_ratio <= 0.5 * usual
    assert f"at price {float(model.price):.3g}" in said
    with pytest.raises(UserError, match="budget is a share"):
        meet_budget(model, measurement, 0.0)
