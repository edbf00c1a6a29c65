"""What a network and its engine refuse, each with one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from networks import images, lively
from torch import nn

from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.export import Agreement, OnnxNetwork, dynamic_model
from lcnet_rl.export.layout import Layout
from lcnet_rl.model import LCNet

BOTH = pytest.mark.parametrize("build", [lambda model: model, Engine], ids=["model", "engine"])
Build = Callable[[LCNet], LCNet]


def test_what_an_engine_cannot_do_it_refuses() -> None:
    engine = Engine(lively())
    with pytest.raises(UserError, match="cannot be trained"):
        engine.train()
    with pytest.raises(UserError, match="laid out already"):
        Engine(engine)
    for threshold in (0.0, 1.0):
        for decider in (engine.greedy, lively().greedy):
            with pytest.raises(UserError, match=r"a threshold is in \(0, 1\)"):
                decider(threshold)
    with pytest.raises(UserError, match="float32 or bfloat16"):
        Engine(lively(), torch.float16)
    with pytest.raises(UserError, match="at least one image, got 0"):
        engine.tune(0)
    with pytest.raises(UserError, match="price must be >= 0"):
        engine.begin(images(2), price=-1)
    state = engine.begin(images(2))
    with pytest.raises(UserError, match="zeros and ones only"):
        engine.advance(state, torch.full((2, engine.action_size), 0.5))


@BOTH
@pytest.mark.parametrize("shape", [(1, 5), (3, 5), (2, 7), (2, 4), (5,)])
def test_an_action_of_another_shape_is_refused(build: Build, shape: tuple[int, ...]) -> None:
    model = build(lively())
    with pytest.raises(UserError, match=r"an action about 2 images is \(2, 5\)"):
        model.advance(model.begin(images(2)), torch.ones(shape))


@BOTH
def test_after_the_last_block_there_is_nothing_to_advance(build: Build) -> None:
    model = build(lively())
    state = model.begin(images(2))
    for _ in range(model.depth):
        state = model.advance(state, torch.ones(2, model.action_size))
    with pytest.raises(UserError, match="all 3 blocks are done"):
        model.advance(state, torch.ones(2, model.action_size))


@BOTH
@pytest.mark.parametrize(
    "number", [-1, -1.0, np.float32(-1), np.array(-1.0), np.array([0.5, -1]), float("nan"), np.inf]
)
def test_a_price_that_is_none_is_refused_whoevers_number_it_is(build: Build, number: Any) -> None:
    with pytest.raises(UserError, match="price must be >= 0"):
        build(lively()).begin(images(2), number)


@BOTH
@pytest.mark.parametrize("number", [1, 1.0, np.float32(1), np.ones(2), torch.ones(2), [1, 1.0]])
def test_a_price_may_be_any_kind_of_number(build: Build, number: Any) -> None:
    assert build(lively()).begin(images(2), number).price.tolist() == [1, 1]


def test_prices_for_another_number_of_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"one for each of 2 images, got prices \(3,\)"):
        Engine(lively()).begin(images(2), price=torch.ones(3))


@pytest.mark.parametrize("build", [Engine, lambda model: dynamic_model(model, Layout())], ids=["engine", "onnx"])
def test_what_is_no_trained_network_is_no_start_for_an_engine_or_a_file(build: Callable[[Any], Any]) -> None:
    for wrong in (lively().backbone, nn.Identity()):
        with pytest.raises(UserError, match=f"an LCNet is wanted .* not a {type(wrong).__name__}"):
            build(wrong)
    with pytest.raises(UserError, match="laid out already"):
        build(Engine(lively()))


def test_gates_go_on_this_projects_networks() -> None:
    with pytest.raises(UserError, match=r"gates go on .* not on Identity"):
        LCNet(cast(Any, nn.Identity()))


def test_a_file_may_be_named_by_a_string() -> None:
    with pytest.raises(UserError, match=r"no file at nowhere\.onnx"):
        OnnxNetwork("nowhere.onnx")


@pytest.mark.parametrize(
    ("decisions", "predictions", "bills", "error", "good"),
    [
        (200, 200, 200, 0.0, True),
        (198, 198, 198, 0.0, True),
        (197, 200, 197, 0.0, False),
        (200, 197, 200, 0.0, False),
        (200, 200, 199, 0.0, False),
        (200, 200, 200, 0.01, False),
    ],
)
def test_a_file_that_does_something_else_is_refused(
    decisions: int, predictions: int, bills: int, error: float, good: bool
) -> None:
    agreement = Agreement(200, decisions, predictions, bills, error)
    if good:
        agreement.check()
    else:
        with pytest.raises(UserError, match="does not do what the engine does"):
            agreement.check()
