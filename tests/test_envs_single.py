"""The single environments against both libraries' checkers, their seeds and their pictures."""

from __future__ import annotations

import ast
import functools
import itertools
import pydoc
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from test_envs_process import tiny

from envs.settings import Settings
from envs.single import ChannelSkipEnv, LayerChannelSkipEnv, LayerSkipEnv
from lcnet_rl import ENV_IDS
from lcnet_rl.drawing import HEADER, LEADING, MARGIN, NETWORK, RAN, SIDE, draw_trace, labelled, tile
from lcnet_rl.errors import UserError
from lcnet_rl.spec import Decides

IDS = sorted(ENV_IDS.items())


def episode(env: gymnasium.Env, seed: int) -> list[Any]:
    """All that an episode under seeded actions returns."""
    env.action_space.seed(seed)
    seen: list[Any] = [env.reset(seed=seed)]
    while True:
        seen.append(env.step(env.action_space.sample()))
        if seen[-1][2]:
            return seen


@pytest.mark.parametrize(("decides", "env_id"), IDS)
@pytest.mark.parametrize("reward", ["linear", "quadratic"])
@pytest.mark.parametrize("confidence", [True, False])
def test_both_checkers_pass(decides: Decides, env_id: str, reward: str, confidence: bool) -> None:
    env = gymnasium.make(f"lcnet_rl:{env_id}", **tiny(decides, confidence=confidence, reward=reward))
    check_env(env.unwrapped)
    check_env_sb3(env.unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS.values())
def test_every_id_works_without_arguments(env_id: str) -> None:
    env = gymnasium.make(f"lcnet_rl:{env_id}")
    info = episode(env, seed=1)[-1][4]
    assert env.get_wrapper_attr("process").dataset.name == "shapes"
    assert {"is_success", "label", "prediction", "macs", "macs_ratio", "kept_blocks"} <= info.keys()


def test_the_documented_defaults_are_those_of_the_settings() -> None:
    table = (LayerSkipEnv.__doc__ or "").partition("## Arguments")[2].partition("## ")[0]
    rows = re.findall(r"^ *\| (`.*?`) *\| `(.*?)` *\|", table, re.MULTILINE)
    documented = {name: ast.literal_eval(default) for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented == {field.name: field.default for field in fields(Settings)} | {"render_mode": None}


@pytest.mark.parametrize(
    ("env_class", "decides", "bits"), [(LayerSkipEnv, "layers", 1), (ChannelSkipEnv, "channels", 2)]
)
def test_an_action_has_a_bit_a_decision(env_class: type, decides: Decides, bits: int) -> None:
    assert env_class(**tiny(decides)).action_space == gymnasium.spaces.MultiBinary(bits)


def test_a_seed_decides_the_whole_episode() -> None:
    env = LayerChannelSkipEnv(**tiny())
    first, second, other = episode(env, seed=4), episode(env, seed=4), episode(env, seed=5)
    assert repr(first) == repr(second)
    assert repr(first) != repr(other)


def test_the_flags_at_the_end_are_plain_python() -> None:
    *_, reward, terminated, truncated, info = episode(LayerChannelSkipEnv(**tiny()), seed=6)[-1]
    assert type(reward) is float
    assert (terminated, truncated) == (True, False)
    assert type(info["is_success"]) is bool
    assert info["is_success"] == (info["prediction"] == info["label"])
    assert all(type(value) in (bool, int, float) for value in info.values())


def test_an_image_can_be_chosen() -> None:
    env = LayerChannelSkipEnv(**tiny())
    _, info = env.reset(options={"index": 7})
    assert (info["index"], info["label"]) == (7, 1)
    for wrong in (12, -1, 0.5, "seven"):
        with pytest.raises(UserError, match="image number"):
            env.reset(options={"index": wrong})


@pytest.mark.parametrize("make", [gymnasium.make, functools.partial(gymnasium.make_vec, num_envs=2)])
def test_an_unknown_keyword_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="unknown keyword 'datset'; did you mean dataset"):
        make("lcnet_rl:LCNet/LayerChannelSkip-v0", datset="shapes")


@pytest.mark.parametrize(("decides", "env_id"), IDS)
def test_the_help_of_an_environment_has_the_shape_of_all_that_it_observes(decides: Decides, env_id: str) -> None:
    env = gymnasium.make(f"lcnet_rl:{env_id}", **tiny(decides)).unwrapped
    sizes = {"C": max(env.process.model.input_channels), "depth": env.process.model.depth, "1": 1, "2": 2}
    told = re.findall(r"\| `(\w+)` +\| `\((\w+),\)` +\|", pydoc.plain(pydoc.render_doc(env)))
    assert {key: (sizes[size],) for key, size in told} == {key: box.shape for key, box in env.observation_space.items()}


def test_the_help_tells_how_to_set_a_price_from_the_next_image_on() -> None:
    env = gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", **tiny("layers", price=0.25))
    env.reset()
    (told,) = re.findall(r"`(env\.unwrapped\.price = [\d.]+)`", LayerSkipEnv.__doc__ or "")
    exec(told, {"env": env})
    assert env.step(1)[0]["price"] == 0.25
    assert env.reset()[0]["price"] == 0.5


def test_a_reset_may_set_the_price_of_its_own_image() -> None:
    env = LayerSkipEnv(**tiny("layers", price=0.25))
    observation, info = env.reset(options={"index": 3, "price": 2})
    assert observation["price"] == 2
    _, _, _, _, after = env.step(1)
    assert after["reward_cost"] == pytest.approx(-2 * after["macs_ratio"])
    assert info["index"] == 3
    assert env.reset()[0]["price"] == env.price == 0.25


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf"), 1e39, "0.5", None, [0.5], True])
def test_a_reset_refuses_what_is_no_price(price: Any) -> None:
    with pytest.raises(UserError, match=r"price must be >= 0|need 1 price\(s\), each a number, got"):
        LayerSkipEnv(**tiny("layers")).reset(options={"price": price})


def test_an_unknown_reset_option_is_refused() -> None:
    env = gymnasium.make("lcnet_rl:LCNet/LayerChannelSkip-v0", **tiny())
    with pytest.raises(UserError, match="unknown reset option 'indices'"):
        env.reset(options={"indices": [3]})


@pytest.mark.parametrize("shape", [(1, 3), (2,), ()])
def test_an_action_of_another_shape_is_refused_by_its_own_shape(shape: tuple[int, ...]) -> None:
    env = gymnasium.make("lcnet_rl:LCNet/LayerChannelSkip-v0", **tiny())
    env.reset()
    with pytest.raises(ValueError, match=re.escape(f"must have shape (3,), got {shape}")):
        env.step(np.ones(shape, dtype=np.int8))


def test_an_action_of_one_bit_may_be_a_number() -> None:
    env = gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", **tiny("layers"))
    bills = []
    for actions in ((1, 0, np.int8(1)), ([1], [0], [1])):
        env.reset(options={"index": 3})
        bills.append([env.step(action)[4]["macs"] for action in actions])
    assert bills[0] == bills[1]
    assert len(set(bills[0])) == 3


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_there_is_nothing_to_render_before_the_first_image(mode: str) -> None:
    with pytest.raises(ResetNeeded):
        LayerSkipEnv(render_mode=mode, **tiny("layers")).render()


def test_all_images_are_drawn() -> None:
    env = LayerChannelSkipEnv(**tiny())
    env.reset(seed=0)
    assert {env.reset()[1]["index"] for _ in range(150)} == set(range(12))


def test_the_text_tells_what_ran() -> None:
    env = LayerChannelSkipEnv(render_mode="ansi", **tiny())
    env.reset(options={"index": 7})
    assert "image 7 of tiny/train: b" in env.render()
    for action in ([1, 0, 1], [0, 1, 1], [1, 1, 1]):
        *_, info = env.step(action)
    lines = env.render().splitlines()
    assert lines[1:4] == ["block   0  [.#]", "block   1  skip", "block   2  [##]"]
    assert f"{info['macs']:,}" in lines[4]
    assert lines[5].endswith("(right)" if info["is_success"] else "(wrong)")


def test_pictures_keep_their_size_and_change_with_what_ran() -> None:
    env = LayerChannelSkipEnv(render_mode="rgb_array", **tiny())
    env.reset(options={"index": 0})
    frames = [env.render()]
    for action in ([1, 0, 1], [0, 1, 1], [1, 1, 1]):
        env.step(action)
        frames.append(env.render())
    assert all(frame.dtype == np.uint8 and frame.shape == frames[0].shape for frame in frames)
    assert all(not np.array_equal(one, two) for one, two in itertools.pairwise(frames))


def test_rendering_without_a_mode_gives_nothing_and_an_unknown_mode_is_refused() -> None:
    env = LayerChannelSkipEnv(**tiny())
    env.reset()
    assert env.render() is None
    with pytest.raises(UserError, match="render mode"):
        LayerChannelSkipEnv(render_mode="human", **tiny())


def test_traces_of_any_depth_and_number_of_filters_are_drawn_in_one_size_and_tiled() -> None:
    image = np.zeros((3, 32, 32), dtype=np.uint8)
    deep = draw_trace(image, [(True, [True, False] * 32)] * 54, depth=54, caption="a caption " * 20, right=True)
    shallow = draw_trace(image, [(False, [False])], depth=3)
    every_filter = draw_trace(image, [(True, [True, False] * 256)], depth=3)
    assert deep.shape == shallow.shape == every_filter.shape
    height, width, _ = deep.shape
    assert tile([deep, shallow, deep], columns=2).shape == (2 * height, 2 * width, 3)


def test_a_further_network_has_a_colour_of_its_own() -> None:
    def colours(ran: bool, networks: int) -> set[tuple[int, ...]]:
        picture = draw_trace(np.zeros((3, 32, 32), np.uint8), [(True, [True]), (ran, [ran])], 2, networks=networks)
        return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}

    assert {RAN, NETWORK} <= colours(True, networks=2)
    assert NETWORK not in colours(True, networks=1) | colours(False, networks=2)
    assert RAN not in colours(True, networks=3)


def test_a_caption_of_two_lines_makes_room_for_both() -> None:
    image = np.zeros((3, 32, 32), dtype=np.uint8)
    one, two = (draw_trace(image, [], depth=3, caption=caption) for caption in ("first", "first\nsecond"))
    assert two.shape == (one.shape[0] + LEADING, *one.shape[1:])
    line = slice(MARGIN + 6 * 32 + 20, MARGIN + 6 * 32 + 20 + LEADING)
    assert two[line].min() < 128 < one[line].min()


def test_a_title_longer_than_the_grid_is_shown_whole() -> None:
    wide = labelled(np.zeros((100, 100, 3), dtype=np.uint8), "a title that is longer than its grid is wide")
    assert wide[:HEADER, 100:].min() < 128
    assert wide[:HEADER, -MARGIN:].min() == 255


def test_labels_stand_above_and_beside_a_grid_which_stays_as_it_is() -> None:
    grid = np.zeros((400, 900, 3), dtype=np.uint8)
    picture = labelled(grid, "title", ("easy", "hard"))
    assert np.array_equal(picture[HEADER:, SIDE:], grid)
    above, beside = picture[:HEADER], picture[HEADER:, :SIDE]
    for part in (above, beside[:200], beside[200:]):
        assert part.min() < 128 < part.max()
