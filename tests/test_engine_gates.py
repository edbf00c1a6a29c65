"""How an engine asks its gates: whichever way, the decisions, scales and bill are the model's, and excess is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from networks import images, lively
from torch.utils.flop_counter import FlopCounterMode

from lcnet_rl.engine import Engine, gates
from lcnet_rl.engine.gates import BlockGates
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides


def asking(model: LCNet, together: bool) -> Engine:
    """An engine that was not tuned, but for this."""
    engine = Engine(model)
    for of_block in engine.block_gates:
        of_block.together = together
    return engine


@pytest.mark.parametrize("second", [None, "resnet8"])
@pytest.mark.parametrize("prices", [None, PriceRange(0.1, 2)])
@pytest.mark.parametrize("groups", [0, 4])
def test_asking_together_decides_and_scales_as_the_model_does(
    groups: int, prices: PriceRange | None, second: str | None
) -> None:
    model = lively(groups=groups, prices=prices, second=second)
    engine = asking(model, together=True)
    with torch.no_grad():
        expected = model.run(images(32), model.greedy(0.6), 0.5)
        got = engine.run(images(32), engine.greedy(0.6), 0.5)
    executed = model.decisions.executed(expected.actions)
    assert torch.equal(got.actions, executed)
    assert len(executed.unique(dim=1)[0]) > 1
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(got.macs, expected.macs)


@pytest.mark.parametrize("prices", [None, PriceRange(0.1, 2)])
def test_what_c_net_is_asked_in_vain_is_excess(prices: PriceRange | None) -> None:
    model = lively(prices=prices, width=16)
    engine = asking(model, together=True)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outcome = engine.run(images(16), engine.greedy(), 0.5)
    skipped = (outcome.actions[:, :, 0] == 0).sum(1).tolist()
    assert sum(skipped) > 0
    assert outcome.excess == sum(
        count * block.if_kept for count, block in zip(skipped, engine.costs.blocks, strict=True)
    )
    assert counter.get_total_flops() == 2 * (outcome.macs.sum() + outcome.excess)


def test_until_it_is_tuned_an_engine_asks_c_net_only_about_what_l_net_keeps() -> None:
    assert [of_block.together for of_block in Engine(lively(second="resnet8")).block_gates] == [False] * 3 + [True]


@pytest.mark.parametrize("decides", ["layers", "channels"])
def test_a_single_gate_is_always_asked_in_one_layer(decides: Decides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "median_seconds", lambda *_: pytest.fail("there is nothing to time"))
    engine = Engine(lively(decides=decides))
    for of_block in engine.block_gates:
        of_block.tune(4)
        assert of_block.together


@pytest.mark.parametrize(("seconds", "together"), [([1.0, 2.0], True), ([2.0, 1.0], False)])
def test_tuning_keeps_the_way_that_took_less_time(
    seconds: list[float], together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(lively())
    timed: list[bool] = []
    clock: Iterator[float] = iter(seconds)

    def pretend(ask: Callable[[int], object], count: int, device: torch.device) -> float:
        ask(count)
        timed.append(first.together)
        return next(clock)

    first = engine.block_gates[0]
    monkeypatch.setattr(gates, "median_seconds", pretend)
    first.tune(6)
    assert timed == [True, False]
    assert first.together == together


def test_tuning_an_engine_tunes_its_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = []
    monkeypatch.setattr(BlockGates, "tune", lambda of_block, count: tuned.append((of_block, count)))
    engine = Engine(lively())
    engine.tune(3)
    assert tuned == [(of_block, 3) for of_block in engine.block_gates]


def test_threads_that_share_gates_do_not_get_each_others_answers() -> None:
    class Raced(BlockGates):
        """As if another thread asked about its own images as soon as this one has noted an answer."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_answered" and value is not None and value[0] is one:
                interrupted.append(len(self.decide(other, 0.0)))

    interrupted: list[int] = []
    model = lively(decides="layers")
    raced = Raced(Engine(model).block_gates[0].l_net, None)
    features = torch.randn(5, raced._weight.shape[1], generator=torch.Generator().manual_seed(0))
    one, other = features[:2], features[2:]
    assert len(raced.decide(one, 0.0)) == 2
    assert interrupted == [3]


@pytest.mark.parametrize("together", [True, False])
def test_gates_compute_in_float32_under_autocast(together: bool) -> None:
    engine = asking(lively(), together)
    features = torch.rand(4, engine.block_gates[0]._weight.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = engine.block_gates[0].scales(features, torch.ones(4))
        with torch.autocast("cpu", torch.bfloat16):
            other = engine.block_gates[0].scales(features.clone(), torch.ones(4))
    for one, same in zip(plain, other, strict=True):
        assert one is not None
        assert same is not None
        assert same.dtype == torch.float32
        torch.testing.assert_close(one, same)


def test_an_engines_decisions_are_not_shifted_behind_its_back() -> None:
    with pytest.raises(UserError, match="shift the model's"):
        Engine(lively()).shift_logits(1.0)


def test_tuning_asks_c_net_about_half_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, kept = Engine(lively()), []
    first = engine.block_gates[0]
    usual = first.scales

    def noting(features: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        kept.append(float(keep.mean()))
        return usual(features, keep)

    monkeypatch.setattr(first, "scales", noting)
    first.tune(64)
    assert set(kept) == {0.5}
