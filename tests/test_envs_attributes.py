"""``call``, ``get_attr`` and ``set_attr`` of the native vector environments: as gymnasium's own have them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from test_envs_process import tiny
from test_envs_vector import INDICES, make_vec

from envs.vector import SkipVectorEnv
from lcnet_rl.errors import UserError


@pytest.mark.parametrize("name", ["price", "observation_space", "action_space", "render_mode", "decides", "render"])
def test_attributes_are_read_as_those_of_gymnasiums_vector_of_single_environments(name: str) -> None:
    ours, theirs = (
        gymnasium.make_vec("lcnet_rl:LCNet/LayerSkip-v0", num_envs=3, vectorization_mode=mode, **tiny("layers"))
        for mode in ("vector_entry_point", "sync")
    )
    assert isinstance(ours, SkipVectorEnv)
    assert isinstance(theirs, SyncVectorEnv)
    ours.reset()
    theirs.reset()
    assert ours.call(name) == theirs.call(name) == ours.get_attr(name) == theirs.get_attr(name)
    assert len(ours.call(name)) == 3


@pytest.mark.parametrize("values", [2.0, [2.0] * 4, (2,) * 4])
def test_a_price_set_as_in_gymnasiums_vector_environments_holds_for_all_images(values: Any) -> None:
    env = make_vec()
    env.set_attr("price", values)
    assert env.get_attr("price") == (2.0,) * 4
    assert (env.reset()[0]["price"] == 2).all()
    env.set_attr("price", "0.1..0.9")
    assert env.call("price") == ("0.1..0.9",) * 4


def test_an_array_is_one_value_for_all_images() -> None:
    env, weights = make_vec(), np.ones(2)
    vars(env)["weights"] = None
    env.set_attr("weights", weights)
    assert all(value is weights for value in env.get_attr("weights"))


def test_methods_are_called_once_and_pictures_are_of_each_image() -> None:
    env = make_vec(render_mode="ansi")
    env.reset(options={"indices": INDICES})
    assert [text.split()[1] for text in env.call("render")] == ["3", "0", "11", "3"]
    calls = []
    vars(env)["count"] = lambda *args, **kwargs: calls.append((args, kwargs)) or 7
    assert env.call("count", 1, two=2) == (7,) * 4
    assert calls == [((1,), {"two": 2})]


@pytest.mark.parametrize("values", [[1.0, 2.0, 1.0, 1.0], [1.0] * 3, []])
def test_different_values_for_images_that_share_one_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError, match=r"price is one for all images: .* the same 4 times, got \["):
        make_vec().set_attr("price", values)


def test_what_cannot_be_called_or_set_for_each_image_is_refused() -> None:
    env = make_vec()
    for name in ("reset", "step", "refresh", "close"):
        with pytest.raises(UserError, match=f"use {name} itself, not call"):
            env.call(name)
    with pytest.raises(UserError, match="no attribute 'prise' to set"):
        env.set_attr("prise", 2.0)
    with pytest.raises(AttributeError, match="prise"):
        env.get_attr("prise")
    with pytest.raises(UserError, match="price must be >= 0"):
        env.set_attr("price", -1.0)
