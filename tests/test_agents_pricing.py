"""The price over training: schedules, the controller that meets a target, the dual variable, and ranges."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from networks import lively

from agents.pricing import Pricing, PricingConfig, scheduled
from agents.reinforce_config import ReinforceConfig
from lcnet_rl.errors import UserError


def pricing(updates: float = 4, **settings: object) -> Pricing:
    return Pricing(PricingConfig(**settings), lively(), updates)  # type: ignore[arg-type]


def test_schedules_start_free_end_whole_and_rise() -> None:
    for schedule in ("linear", "cosine"):
        points = [scheduled(schedule, i / 20) for i in range(21)]  # type: ignore[arg-type]
        assert (points[0], points[-1]) == (0, 1)
        assert all(low < high for low, high in itertools.pairwise(points))
    assert [scheduled("cosine", p) for p in (0.25, 0.5)] == pytest.approx([0.5 - 0.5**1.5, 0.5])
    assert scheduled("constant", 0) == 1


def test_a_price_follows_its_schedule() -> None:
    prices = pricing(price=0.8, price_schedule="cosine")
    seen = []
    for progress in (0.0, 0.5, 1.0):
        prices.ramp(progress)
        seen.append(prices.value)
    assert seen == pytest.approx([0, 0.4, 0.8])


@pytest.mark.parametrize(
    ("settings", "price"),
    [
        ({"price": 0.7}, 0.0),
        ({"price": 0.7, "target": 0.8}, 0.7),
        ({"price": 0.7, "reward": "lagrangian:target=0.8"}, 0.0),
    ],
)
def test_only_with_a_target_does_the_price_start_as_told(settings: dict[str, object], price: float) -> None:
    assert pricing(**settings).value == price


def test_overspending_raises_the_price_at_once_and_by_as_much_again_over_a_ramps_length() -> None:
    aimed = pricing(price=1.0, target=0.5, price_rate=2.0)
    prices = []
    for share in (0.7, 0.7, 0.5, 0.4):
        aimed.learn(share, progress=1.0)
        prices.append((aimed.value, aimed.charged.middle))
    assert [value for value, _ in prices] == pytest.approx([1.1, 1.2, 1.2, 1.15])
    assert [charged - value for value, charged in prices] == pytest.approx([0.4, 0.4, 0.0, -0.2])


def test_the_price_is_never_negative() -> None:
    aimed = pricing(price=1.0, target=0.5, price_rate=2.0)
    for _ in range(10):
        aimed.learn(0.0, progress=1.0)
        assert aimed.charged.low >= 0
    assert aimed.value == aimed.charged.middle == 0


def test_the_last_update_leaves_the_settled_price() -> None:
    aimed = pricing(price=1.0, target=0.5, price_rate=2.0)
    aimed.learn(0.7, progress=1.0, last=True)
    assert aimed.charged.middle == aimed.value == pytest.approx(1.1)


def test_while_the_target_ramps_more_may_be_spent() -> None:
    aimed = pricing(price=1.0, target=0.5, price_rate=2.0)
    aimed.learn(0.75, progress=0.5)
    assert aimed.value == pytest.approx(1.0)


def test_the_dual_variable_climbs_by_the_overspending_and_stays_where_the_target_is_met() -> None:
    dual = pricing(reward="lagrangian:target=0.5", price_rate=2.0)
    prices = []
    for share in (0.9, 0.7, 0.5, 0.5, 0.1, 0.1):
        dual.learn(share, progress=0.0)
        prices.append(dual.value)
    assert prices == pytest.approx([0.2, 0.3, 0.3, 0.3, 0.1, 0.0])


def test_a_range_opens_from_its_lowest_price() -> None:
    prices = pricing(price="0.1..1.6")
    assert (prices.now.low, prices.now.high) == (0.1, 0.1)
    prices.ramp(0.5)
    assert (prices.now.low, prices.now.high) == pytest.approx((0.1, 0.4))
    prices.ramp(1.0)
    assert (prices.now.low, prices.now.high) == pytest.approx((0.1, 1.6))


def test_a_range_draws_evenly_in_its_logarithm() -> None:
    prices = pricing(price="0.1..1.6")
    prices.ramp(1.0)
    draws = prices.draw(4000, torch.Generator().manual_seed(0))
    assert 0.1 <= float(draws.min()) < 0.11
    assert 1.5 < float(draws.max()) <= 1.6
    assert float((draws < 0.4).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert prices.value == pytest.approx(0.4)


def test_one_price_draws_nothing_from_the_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert pricing(price=0.7, target=0.8).draw(3, generator).tolist() == pytest.approx([0.7] * 3)
    assert torch.equal(generator.get_state(), before)


def test_a_restored_price_goes_on_as_if_nothing_had_happened() -> None:
    one, other = (pricing(price=1.0, target=0.5) for _ in range(2))
    one.learn(0.8, progress=1.0)
    other.restore(one.state())
    for prices in (one, other):
        prices.learn(0.6, progress=1.0)
    assert (one.now, one.push) == (other.now, other.push)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 0.01}, "target 0.01 is out of reach"),
        ({"target": 1.2}, "target is a share of dense MACs in (0, 1], got 1.2"),
        ({"target": 0.5, "reward": "lagrangian"}, "write --reward lagrangian:target=0.5"),
        ({"reward": "lagrangian:target=0"}, "lagrangian's target is a share"),
        ({"target": 0.5, "price": "0.1..1"}, "a target (here 0.5, given or the preset"),
        ({"reward": "lagrangian", "price": "0.1..1"}, "lagrangian finds one price by itself: for the range 0.1..1"),
        ({"price": "1..0.1"}, "a range of prices rises"),
        ({"price": "0..1"}, "a range of prices rises"),
        ({"price": "cheap"}, "price is a number like 0.3 or a range"),
        ({"price": "0.1.."}, "price is a number like 0.3 or a range"),
        ({"price": (0.05, 1.0)}, 'a range like "0.05..1.0", got (0.05, 1.0)'),
        ({"price": "-1"}, "price must be >= 0"),
        ({"price": float("inf")}, "price must be a finite number"),
        ({"price_schedule": "cosin"}, "did you mean cosine"),
        ({"ramp": 1.5}, "ramp must be in [0, 1]"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        pricing(**settings)
    assert message in str(caught.value)


def test_rollouts_that_are_bounded_must_be_able_to_meet_a_target() -> None:
    model, bound = lively(groups=2), 0.2
    least = model.costs.fixed / model.costs.dense
    for block in range(model.depth):
        for bits in itertools.product((0.0, 1.0), repeat=model.action_size):
            chance = math.prod(bound if bit else 1 - bound for bit in bits)
            least += chance * float(model.decisions.bill(torch.tensor([bits]), block)) / model.costs.dense
    Pricing(ReinforceConfig(target=least + 0.001, bound=bound), model, updates=4)
    with pytest.raises(UserError, match=f"with --bound 0.2 rollouts cost at least {least:.3f} of dense MACs"):
        Pricing(ReinforceConfig(target=least - 0.001, bound=bound), model, updates=4)
