"""The engine: the model's logits without the arithmetic of what is dropped."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Convolutions, images, lively
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lcnet_rl.backbones import pool
from lcnet_rl.engine import Engine, packed
from lcnet_rl.engine.convolution import onednn_computes
from lcnet_rl.engine.crossover import Crossover, Line
from lcnet_rl.engine.packed import Chunk
from lcnet_rl.evaluate import replay
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides


def assert_same(model: LCNet, engine: Engine, actions: torch.Tensor, count: int) -> None:
    with torch.no_grad():
        expected, got = model.run(images(count), replay(actions)), engine.run(images(count), replay(actions))
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(got.macs, expected.macs)
    states = [engine.begin(images(count))]
    seen = [states[0].features.clone()]
    for action in actions:
        states.append(engine.advance(states[-1], action))
        seen.append(states[-1].features.clone())
    torch.testing.assert_close(engine.classify(states[-1]).detach(), expected.logits, atol=1e-4, rtol=1e-4)
    for state, features in zip(states, seen, strict=True):
        assert torch.equal(state.features, features), "who steps by hand may still look at states that are behind"
        torch.testing.assert_close(state.pooled[:, : features.shape[1]], pool(features), atol=1e-5, rtol=1e-5)


def test_consuming_a_state_leaves_those_before_it_alone() -> None:
    model = lively("resnet14")
    engine = Engine(model)
    first = engine.begin(images(3))
    features = first.features.clone()
    second = engine.advance(first, torch.zeros(3, engine.action_size))
    engine.consume(second, torch.ones(3, engine.action_size))
    assert torch.equal(first.features, features)


def test_an_engine_for_a_range_reads_the_price_as_the_model_does() -> None:
    model = lively(prices=PriceRange(0.1, 2))
    engine, decided = Engine(model), []
    for price in (0.1, 0.5, 2.0):
        with torch.no_grad():
            expected = model.run(images(9), model.greedy(), price)
            got = engine.run(images(9), engine.greedy(), price)
        assert torch.equal(got.actions, model.decisions.executed(expected.actions))
        torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
        decided.append(got.actions)
    assert not torch.equal(decided[0], decided[2])


def test_one_engine_takes_batches_of_any_size_and_so_does_its_copy() -> None:
    model = lively("resnet11-pool", second="resnet8")
    engine = Engine(model)
    for count in (0, 1, 5, 0, 3):
        actions = torch.ones(model.depth, count, model.action_size)
        assert_same(model, engine, actions, count)
    assert_same(model, copy.deepcopy(engine), torch.ones(model.depth, 2, model.action_size), 2)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_a_copy_of_a_used_engine_has_weights_of_its_own(copied: Callable[[Engine], Engine]) -> None:
    model = lively()
    engine = Engine(model)
    engine.tune(4)
    assert_same(model, engine, torch.ones(model.depth, 4, model.action_size), 4)
    other = copied(engine)
    other.crossover = None
    with torch.no_grad():
        for parameter in engine.parameters():
            parameter.zero_()
    actions = torch.ones(model.depth, 4, model.action_size)
    actions[:, :, 1] = 0  # a set of groups that was not wanted before the copy was made
    assert_same(model, other, actions, 4)


def test_tuning_consumes_no_random_numbers() -> None:
    engine, before = Engine(lively()), torch.get_rng_state()
    engine.tune(2)
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=40)
@given(
    name=st.sampled_from(["resnet8", "resnet14", "resnet18", "resnet14-wide", "resnet11-pool"]),
    decides=st.sampled_from(["layers", "channels", "both"]),
    groups=st.sampled_from([0, 1, 2, 4]),
    confidence=st.booleans(),
    count=st.integers(0, 5),
    keep=st.floats(0, 1),
    together=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_decisions_give_the_models_logits(
    name: str, decides: Decides, groups: int, confidence: bool, count: int, keep: float, together: bool, seed: int
) -> None:
    model = lively(name, decides, groups, confidence=confidence)
    engine = Engine(model)
    for gates in engine.block_gates:
        gates.together = together or decides != "both"
    draws = torch.rand(model.depth, count, model.action_size, generator=torch.Generator().manual_seed(seed))
    assert_same(model, engine, (draws < keep).float(), count)


def crossover(engine: Engine, fastest: int) -> Crossover:
    """One in which the fastest plan is always the chunks (0), all filters of the images in them (1), or of all (2)."""
    plain, one = Line(0.0, 1.0), Line(100.0, 0.0)
    kept = [(plain,) * 4, (one, one, one, plain), (one,) * 4][fastest]
    whole = [one, one, plain][fastest]
    return Crossover((kept,) * engine.depth, (whole,) * engine.depth, tuple(packed.all for packed in engine.packed))


@pytest.mark.parametrize("decides", ["both", "channels"])
@pytest.mark.parametrize("fastest", [0, 1, 2])
def test_every_way_of_the_crossover_gives_the_models_logits(fastest: int, decides: Decides) -> None:
    model = lively(decides=decides)
    engine = Engine(model)
    engine.crossover = crossover(engine, fastest)
    actions = (torch.rand(model.depth, 7, model.action_size, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    actions[:, 0, :1] = float(decides == "both")
    actions[:, 0, 1:] = 0  # kept, and no filter of it
    assert_same(model, engine, actions, 7)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_actions_may_be_of_any_type_of_number(dtype: torch.dtype) -> None:
    model = lively()
    actions = torch.randint(0, 2, (model.depth, 5, model.action_size), generator=torch.Generator().manual_seed(0))
    assert_same(model, Engine(model), actions.to(dtype), 5)


def test_the_crossover_takes_the_fastest_plan() -> None:
    slow, fast = Line(10.0, 1.0), Line(1.0, 1.0)
    chunks = [Chunk(1, 3), Chunk(2, 4)]

    def planned(few: Line, all_groups: Line, whole: Line) -> list[Chunk]:
        return Crossover(((few, all_groups),), (whole,), (3,)).plan(0, chunks, 10)

    assert planned(few=fast, all_groups=slow, whole=slow) == chunks
    assert planned(few=slow, all_groups=fast, whole=slow) == [Chunk(3, 7)]
    assert planned(few=slow, all_groups=slow, whole=fast) == [Chunk(3, 10)]
    assert planned(few=Line(3.0, 1.0), all_groups=Line(5.0, 1.0), whole=slow) == [Chunk(3, 7)], "two chunks start twice"
    assert Crossover(((fast, fast),), (fast,), (3,)).plan(0, [], 10) == []


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("decides", ["layers", "channels", "both"])
def test_the_arithmetic_executed_is_the_arithmetic_billed(decides: Decides, confidence: bool) -> None:
    engine = Engine(lively(decides=decides, width=16, confidence=confidence))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outcome = engine.run(images(16), engine.greedy())
    assert len(outcome.macs.unique()) > 1
    assert outcome.excess == 0
    assert counter.get_total_flops() == 2 * outcome.macs.sum()


@pytest.mark.parametrize("decides", ["both", "channels"])
@pytest.mark.parametrize("fastest", [0, 1, 2])
def test_excess_is_what_a_plan_of_the_crossover_computes_beyond_the_bill(fastest: int, decides: Decides) -> None:
    engine = Engine(lively(decides=decides))
    engine.crossover = crossover(engine, fastest)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outcome = engine.run(images(16), engine.greedy())
    assert (outcome.excess > 0) == (fastest > 0)
    assert counter.get_total_flops() == 2 * (outcome.macs.sum() + outcome.excess)


def test_excess_is_what_was_executed_beyond_the_bill_where_every_filter_is_decided_about() -> None:
    engine = Engine(lively(groups=0))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outcome = engine.run(images(16), engine.greedy())
    assert outcome.excess > 0
    assert counter.get_total_flops() == 2 * (outcome.macs.sum() + outcome.excess)


@pytest.mark.parametrize("confidence", [True, False])
def test_greedy_decides_as_the_model_does(confidence: bool) -> None:
    model = lively(confidence=confidence)
    engine = Engine(model)
    with torch.no_grad():
        expected = model.run(images(32), model.greedy(0.6)).actions
        got = engine.run(images(32), engine.greedy(0.6)).actions
    assert torch.equal(got, model.decisions.executed(expected))


def test_a_skipped_block_runs_no_convolution() -> None:
    engine = Engine(lively())
    actions = torch.zeros(engine.depth, 4, engine.action_size)
    actions[1, 2] = 1
    with torch.no_grad(), Convolutions() as convolutions:
        engine.run(images(4), replay(actions))
    assert convolutions.batches == [4, 1, 1], "the stem, then both convolutions of one block for one image"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_every_relu_is_part_of_a_convolution() -> None:
    model = lively("resnet11-pool", second="resnet11-pool")
    actions = torch.ones(model.depth, 4, model.action_size)
    with torch.no_grad(), Convolutions() as usual:
        model.run(images(4), replay(actions))
    engine = Engine(model)
    with torch.no_grad(), Convolutions() as fused:
        engine.run(images(4), replay(actions))
    assert len(fused.batches) == len(usual.batches) == 2 * (1 + 3 + 3 * 2)
    assert (usual.relus, fused.relus) == (2 * (1 + 3 + 3 * 2), 0)


@pytest.mark.parametrize(("name", "second"), [("resnet8", None), ("resnet11-pool", "resnet18")])
def test_without_onednn_the_logits_are_the_same(monkeypatch: pytest.MonkeyPatch, name: str, second: str | None) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = lively(name, second=second)
    actions = (torch.rand(model.depth, 9, model.action_size, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    with torch.no_grad(), Convolutions() as convolutions:
        assert_same(model, Engine(model), actions, 9)
    assert len(convolutions.batches) > 7


@pytest.mark.parametrize("groups", [4, 8])
@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_batches_of_many_chunks_give_the_models_logits(
    monkeypatch: pytest.MonkeyPatch, groups: int, keep: float
) -> None:
    monkeypatch.setattr(packed, "CACHED", 8 * 32 * 32 * 4 * 7)  # seven images in the first block
    model = lively(groups=groups)
    engine = Engine(model)
    assert [block.most for block in engine.packed] == [7, 14, 28]
    draws = torch.rand(model.depth, 33, model.action_size, generator=torch.Generator().manual_seed(0))
    assert_same(model, engine, (draws < keep).float(), 33)


def test_tuning_measures_every_block() -> None:
    model = lively()
    engine = Engine(model)
    engine.tune(4)
    assert engine.crossover is not None
    assert [len(lines) for lines in engine.crossover.kept] == [4, 4, 4]
    actions = torch.ones(model.depth, 4, model.action_size)
    actions[:, 1, 2:] = 0
    assert_same(model, engine, actions, 4)


def test_bfloat16_stays_near_float32() -> None:
    model = lively(width=16)
    engine = Engine(model, torch.bfloat16)
    actions = (torch.rand(model.depth, 8, model.action_size, generator=torch.Generator().manual_seed(0)) < 0.7).float()
    with torch.no_grad():
        expected, got = model.run(images(8), replay(actions)), engine.run(images(8), replay(actions))
    assert got.logits.dtype == torch.float32
    assert (got.logits - expected.logits).abs().max() < 0.05 * expected.logits.abs().max()
    assert torch.equal(got.macs, expected.macs)


def test_an_engine_says_how_much_it_holds_with_the_copies_for_sets_of_groups() -> None:
    model = lively(width=16, second="resnet8")
    engine = Engine(model)
    weights = [part.weight.nbytes for part in model.backbone.modules() if isinstance(part, nn.Conv2d)]
    assert engine.nbytes == pytest.approx(sum(weights), rel=0.1)
    blocks = sum(block.conv1.weight.nbytes + block.conv2.weight.nbytes for block in model.backbone.own_blocks)
    times = 2 if onednn_computes(torch.float32) else 1  # as they are, and as oneDNN wants them
    held = sum(weights) + (times - 1) * (sum(weights) - blocks) + times * blocks
    for kept, more in ((4, 0.0), (1, 0.25), (2, 0.5)):
        actions = torch.ones(model.depth, 2, model.action_size)
        actions[:-1, :, 1 + kept :] = 0
        engine.run(images(2), replay(actions))
        held += more * blocks * times
        assert engine.nbytes == pytest.approx(held, rel=0.1)


def test_an_engine_lets_go_of_what_it_has_classified() -> None:
    engine = Engine(lively())
    state = engine.begin(images(2))
    features = weakref.ref(state.features)
    for _ in range(engine.depth):
        state = engine.consume(state, engine.greedy()(engine.observe(state)))
    engine.classify(state)
    del state
    gc.collect()
    assert features() is None


def test_the_engine_has_its_own_weights() -> None:
    model = lively()
    engine = Engine(model)
    with torch.no_grad():
        before = engine.run(images(2), engine.greedy()).logits
        for parameter in model.parameters():
            parameter.mul_(2)
        after = engine.run(images(2), engine.greedy()).logits
    assert torch.equal(before, after)


def test_threads_that_share_an_engine_do_not_see_each_others_images() -> None:
    class Raced(Engine):
        """As if another thread looked at its own images as soon as this one has noted what it saw."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_observed" and value is not None and value[0] is first:
                assert len(self.observe(second).pooled) == 3

    engine = Raced(lively())
    first, second = engine.begin(images(2)), engine.begin(images(5)[2:])
    assert len(engine.observe(first).pooled) == 2
