"""The native vector environments: the same as single ones, in lockstep, with gymnasium's SAME_STEP conventions."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import FlattenObservation
from test_envs_process import tiny

from envs.single import LayerChannelSkipEnv
from envs.vector import LayerChannelSkipVectorEnv, SkipVectorEnv
from lcnet_rl import ENV_IDS
from lcnet_rl.errors import UserError
from lcnet_rl.spec import Decides

IDS = sorted(ENV_IDS.items())
INDICES = [3, 0, 11, 3]


def make_vec(decides: Decides = "both", **others: Any) -> SkipVectorEnv:
    env = gymnasium.make_vec(f"lcnet_rl:{ENV_IDS[decides]}", num_envs=4, **tiny(decides), **others)
    assert isinstance(env, SkipVectorEnv)
    return env


def arrays(tree: Any) -> list[np.ndarray]:
    """Every array in nested dictionaries, tuples and object arrays."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in arrays(value)]
    if isinstance(tree, tuple) or (isinstance(tree, np.ndarray) and tree.dtype == object):
        return [leaf for value in tree for leaf in arrays(value)]
    return [tree] if isinstance(tree, np.ndarray) else []


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal keys, types and, up to rounding, values, however nested."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, dict):
            assert_same(ours[key], value)
        elif value.dtype == object:
            for one, two in zip(ours[key], value, strict=True):
                assert_same(one, two)
        else:
            assert ours[key].dtype == value.dtype, key
            np.testing.assert_allclose(ours[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(("decides", "env_id"), IDS)
@pytest.mark.parametrize("reward", ["linear", "quadratic", "confidence"])
@pytest.mark.parametrize("confidence", [True, False])
def test_an_episode_equals_gymnasiums_vector_of_single_environments(
    decides: Decides, env_id: str, reward: str, confidence: bool
) -> None:
    same = tiny(decides, confidence=confidence, reward=reward)
    ours = gymnasium.make_vec(f"lcnet_rl:{env_id}", num_envs=4, vectorization_mode="vector_entry_point", **same)
    theirs = SyncVectorEnv(
        [lambda: gymnasium.make(f"lcnet_rl:{env_id}", **same)] * 4, autoreset_mode=AutoresetMode.SAME_STEP
    )
    # SyncVectorEnv hands the same options to all, so its sub-environments are reset one by one.
    begun = [env.reset(options={"index": index}) for env, index in zip(theirs.envs, INDICES, strict=True)]
    observation, infos = ours.reset(options={"indices": INDICES})
    assert infos["index"].tolist() == INDICES
    for row, (first, info) in enumerate(begun):
        assert_same({key: values[row] for key, values in observation.items()}, first)
        assert {key: infos[key][row] for key in info} == pytest.approx(info)
    ours.action_space.seed(2)
    while True:
        actions = ours.action_space.sample()
        one, two = ours.step(actions), theirs.step(actions)
        ended = one[2].all()
        for mine, other in zip(one[1:4], two[1:4], strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
        if ended:
            break
        assert_same(one[0], two[0])
        assert_same(one[4], two[4])
    assert one[4].keys() == two[4].keys()
    assert_same(
        {"obs": one[4]["final_obs"], **one[4]["final_info"]}, {"obs": two[4]["final_obs"], **two[4]["final_info"]}
    )


def test_the_step_that_ends_an_image_shows_the_next_one() -> None:
    env = make_vec()
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=1, options={"indices": INDICES})
    depth = env.process.model.depth
    for block in range(2 * depth):
        observation, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
        assert terminations.all() == terminations.any() == (block % depth == depth - 1)
        assert not truncations.any()
        assert ("final_info" in infos) == terminations.all()
        assert observation["block"].argmax(1).tolist() == [(block + 1) % depth] * 4
        if block == depth - 1:
            final = infos["final_info"]
            assert final["index"].tolist() == INDICES
            np.testing.assert_allclose(final["reward_task"] + final["reward_cost"], rewards)
            assert infos["_final_obs"].all()
            assert not infos["final_obs"][2]["block"].any()
            assert infos["final_obs"][0] in env.single_observation_space
            alone = LayerChannelSkipEnv(model=env.process.model, dataset=env.process.dataset)
            for row, index in enumerate(infos["index"]):
                first, info = alone.reset(options={"index": index})
                assert info["label"] == infos["label"][row]
                assert_same({key: values[row] for key, values in observation.items()}, first)


def test_actions_of_one_bit_may_be_a_number_an_image() -> None:
    env, bills = make_vec("layers"), []
    for number in (np.array, lambda row: np.array(row)[:, None], list):
        env.reset(options={"indices": INDICES})
        bills.append([env.step(number(row))[4]["macs"].tolist() for row in ([1, 0, 1, 0], [0, 0, 1, 1])])
    assert bills[0] == bills[1] == bills[2]
    assert len(set(bills[0][1])) > 2


@pytest.mark.parametrize(("decides", "shape"), [("layers", (3,)), ("layers", (4, 2)), ("layers", ()), ("both", (4,))])
def test_actions_of_another_shape_are_refused_by_their_own_shape(decides: Decides, shape: tuple[int, ...]) -> None:
    env = make_vec(decides)
    env.reset()
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        env.step(np.ones(shape))


def test_a_seed_decides_all_episodes() -> None:
    def played(seed: int) -> str:
        env = make_vec()
        env.action_space.seed(0)
        seen = [env.reset(seed=seed)]
        return repr([*seen, *(env.step(env.action_space.sample()) for _ in range(7))])

    assert played(3) == played(3)
    assert played(3) != played(4)


def test_everything_returned_is_new() -> None:
    env = make_vec()
    calls = [arrays(env.reset(seed=0))]
    calls += [arrays(env.step(env.action_space.sample())) for _ in range(4)]
    for number, call in enumerate(calls):
        for other in calls[number + 1 :]:
            assert not any(np.shares_memory(one, two) for one in call for two in other)


def test_observations_are_in_their_space() -> None:
    env = make_vec()
    observation, _ = env.reset()
    assert observation in env.observation_space
    for _ in range(4):
        assert env.step(env.action_space.sample())[0] in env.observation_space


def test_images_in_lockstep_are_not_reset_one_by_one() -> None:
    env = make_vec()
    env.reset(options={"reset_mask": np.ones(4, dtype=np.bool_)})
    with pytest.raises(UserError, match="lockstep"):
        env.reset(options={"reset_mask": np.array([True, False, True, True])})


@pytest.mark.parametrize("mask", [np.ones(3, dtype=np.bool_), np.ones(4), True, "yes", np.ones((4, 1), dtype=np.bool_)])
def test_what_is_no_mask_of_all_images_is_refused(mask: Any) -> None:
    with pytest.raises(UserError, match="reset_mask must be 4 times True or False, got"):
        make_vec().reset(options={"reset_mask": mask})


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 2, 12], [[0, 1, 2, 3]], [[0], [1, 2], 3, 4]])
def test_wrong_image_numbers_are_refused(indices: list) -> None:
    with pytest.raises(UserError, match="image number"):
        make_vec().reset(options={"indices": indices})


def test_a_list_of_seeds_is_refused() -> None:
    with pytest.raises(UserError, match=r"one integer for all images.*\[1, 2, 3, 4\]"):
        make_vec().reset(seed=cast(Any, [1, 2, 3, 4]))


def test_an_unknown_reset_option_is_refused() -> None:
    with pytest.raises(UserError, match="unknown reset option 'index'"):
        make_vec().reset(options={"index": 3})


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_there_is_nothing_to_render_before_the_first_images(mode: str) -> None:
    with pytest.raises(ResetNeeded):
        make_vec(render_mode=mode).render()


ASYNC = """
import gymnasium, torch
if __name__ == "__main__":
    torch.ones(512, 512) @ torch.ones(512, 512)
    envs = gymnasium.make_vec("lcnet_rl:LCNet/LayerSkip-v0", num_envs=2, vectorization_mode="async")
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.close()
"""


@pytest.mark.slow
def test_asynchronous_workers_step_where_torch_has_several_threads(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ASYNC)
    started = subprocess.Popen(
        [sys.executable, str(program)], env={**os.environ, "OMP_NUM_THREADS": "2"}, start_new_session=True
    )
    try:
        assert started.wait(timeout=120) == 0
    finally:
        with suppress(ProcessLookupError):  # workers that wait for ever outlive their parent
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def test_gymnasiums_wrappers_of_observations_want_the_synchronous_environments() -> None:
    with pytest.raises(ValueError, match="autoreset_mode"):
        FlattenObservation(make_vec())
    same = gymnasium.make_vec(f"lcnet_rl:{ENV_IDS['both']}", num_envs=4, vectorization_mode="sync", **tiny())
    assert FlattenObservation(same).reset()[0].ndim == 2


def test_the_price_can_be_raised_between_images() -> None:
    env = make_vec(price=0.0)
    env.reset()
    env.price = 0.5
    assert (env.reset()[0]["price"] == np.float32(0.5)).all()


@pytest.mark.parametrize("own", [0.25, "0.1..0.9"])
def test_a_reset_may_set_the_prices_of_its_own_images(own: float | str) -> None:
    env = LayerChannelSkipVectorEnv(4, **tiny(price=own))
    prices = [0.5, 0.0, 3.0, 1.5]
    assert env.reset(options={"price": 2})[0]["price"].tolist() == [[2]] * 4
    assert env.reset(options={"prices": prices})[0]["price"][:, 0].tolist() == prices
    _, _, _, _, infos = env.step(env.action_space.sample())
    np.testing.assert_allclose(infos["reward_cost"], -np.array(prices) * infos["macs_ratio"])
    for _ in range(2):
        observation, *_ = env.step(env.action_space.sample())
    assert (observation["price"] < 1).all(), "the next images have the environment's own"
    assert (observation["price"] > 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"price": -1}, "price must be >= 0 .* got -1"),
        ({"price": [0.1, 0.2, 0.3, 0.4]}, r"need 1 price\(s\), each a number"),
        ({"prices": 0.5}, r"need 4 price\(s\), each a number, got 0.5"),
        ({"prices": [0.1, 0.2]}, r"need 4 price\(s\)"),
        ({"prices": [0.1, 0.2, 0.3, np.nan]}, "price must be >= 0 .* got nan"),
        ({"prices": ["a", "b", "c", "d"]}, r"need 4 price\(s\)"),
        ({"price": 0.5, "prices": [0.5] * 4}, "not both"),
    ],
)
def test_a_reset_refuses_what_are_no_prices(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_vec().reset(options=options)


def brighten(env: SkipVectorEnv) -> None:
    with torch.no_grad():
        env.process.model.backbone.stem.conv.weight.mul_(1.5)


def test_refresh_observes_the_images_in_flight_as_the_changed_network_does() -> None:
    env, changed = make_vec(), make_vec()
    env.reset(seed=0)
    actions = env.action_space.sample()
    seen = env.step(actions)[0]
    brighten(env)
    again = env.refresh()
    brighten(changed)
    changed.reset(seed=0)
    assert not np.array_equal(again["pooled"], seen["pooled"])
    for key, values in changed.step(actions)[0].items():
        np.testing.assert_array_equal(again[key], values)
        assert not np.shares_memory(again[key], seen[key])


@pytest.mark.parametrize("limit", [3, 100, -1, None])
def test_a_step_limit_that_no_episode_exceeds_is_accepted(limit: int | None) -> None:
    env = make_vec(max_episode_steps=limit)
    env.reset()
    for ended in (False, False, True):
        _, _, terminations, truncations, _ = env.step(env.action_space.sample())
        assert terminations.tolist() == [ended] * 4
        assert not truncations.any()


@pytest.mark.parametrize("limit", [2, 0, -2])
def test_a_step_limit_below_the_depth_is_refused(limit: int) -> None:
    with pytest.raises(UserError, match=rf'^max_episode_steps={limit} .* 3 blocks .* vectorization_mode="sync"'):
        make_vec(max_episode_steps=limit)


def test_there_is_a_rendering_of_each_image_where_there_is_a_mode() -> None:
    env = make_vec(render_mode="ansi")
    env.reset()
    assert len(env.render() or ()) == 4
    assert make_vec().render() is None


def test_no_environment_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="num_envs"):
        LayerChannelSkipVectorEnv(0, **tiny())


@pytest.mark.parametrize("env_id", ENV_IDS.values())
def test_every_id_works_without_arguments(env_id: str) -> None:
    env = gymnasium.make_vec(f"lcnet_rl:{env_id}", num_envs=2)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[1].shape == (2,)
