"""The adapter keeps stable-baselines3's contracts for vectorised environments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecVideoRecorder
from test_envs_process import tiny
from test_envs_vector import arrays

from envs.sb3 import SB3VecEnv
from envs.single import LayerChannelSkipEnv
from envs.vector import LayerChannelSkipVectorEnv
from lcnet_rl.errors import UserError


def make(**settings: object) -> SB3VecEnv:
    return SB3VecEnv(LayerChannelSkipVectorEnv(4, **tiny(**settings)))


def some_actions(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2, (4, 3))


def test_an_episode_is_reported_as_monitor_does() -> None:
    env = make()
    env.seed(1)
    first = env.reset()
    assert isinstance(first, dict)
    returns = np.zeros(4)
    depth = env.env.process.model.depth
    for block in range(depth):
        observation, rewards, dones, infos = env.step(some_actions(block))
        returns += rewards
        assert rewards.dtype == np.float32
        assert all(info["TimeLimit.truncated"] is False for info in infos)
        assert dones.tolist() == [block == depth - 1] * 4
        assert all(("episode" in info) == ("terminal_observation" in info) == bool(dones[0]) for info in infos)
    for row, info in enumerate(infos):
        assert info["terminal_observation"] in env.observation_space
        assert not info["terminal_observation"]["block"].any()
        assert type(info["is_success"]) is bool
        assert type(info["macs_ratio"]) is float
        assert info["episode"]["r"] == pytest.approx(returns[row], abs=1e-6)
        assert info["episode"]["l"] == depth
        assert info["episode"]["t"] >= 0
    assert observation["block"].argmax(1).tolist() == [0] * 4
    assert [info["index"] for info in env.reset_infos] == env.env.process.episode.indices.tolist()


def test_returns_start_over_with_each_image() -> None:
    env = make(price=1.0)
    env.seed(0)
    env.reset()
    for _ in range(2):
        steps = [env.step(np.ones((4, 3))) for _ in range(env.env.process.model.depth)]
        assert steps[-1][3][0]["episode"]["r"] == pytest.approx(sum(rewards[0] for _, rewards, *_ in steps), abs=1e-5)


def test_nothing_is_shared_between_steps() -> None:
    env = make()
    env.reset()
    calls = []
    for number in range(4):
        observation, rewards, dones, infos = env.step(some_actions(number))
        calls.append(arrays((observation, rewards, dones, *(info.get("terminal_observation", {}) for info in infos))))
    for number, call in enumerate(calls):
        for other in calls[number + 1 :]:
            assert not any(np.shares_memory(one, two) for one in call for two in other)


@pytest.mark.parametrize("kind", [np.float32, np.int8, np.int64, bool])
def test_actions_of_any_number_type_mean_the_same(kind: type) -> None:
    env = make()
    env.set_options({"indices": [0, 1, 2, 3]})
    env.reset()
    rewards = env.step(some_actions(0).astype(kind))[1]
    env.set_options({"indices": [0, 1, 2, 3]})
    env.reset()
    np.testing.assert_array_equal(env.step(some_actions(0))[1], rewards)


def test_a_seed_holds_for_one_reset() -> None:
    env = make()

    def numbers() -> list[int]:
        env.reset()
        return [info["index"] for info in env.reset_infos]

    env.seed(5)
    first, then = numbers(), numbers()
    env.seed(5)
    assert numbers() == first
    assert then != first


def test_attributes_and_methods_are_those_of_the_environment_behind() -> None:
    env = make()
    env.reset()
    assert env.get_attr("process") == [env.env.process] * 4
    env.set_attr("price", 0.9)
    assert env.get_attr("price", indices=[0, 2]) == [0.9, 0.9]
    assert env.get_attr("action_space", indices=3) == [env.action_space], "of one image"
    assert env.env_is_wrapped(Monitor) == [True] * 4
    assert env.has_attr("reset")
    assert not env.has_attr("no_such_thing")
    with pytest.raises(AssertionError, match="step_async"):
        env.step_wait()
    env.close()
    assert env.env.closed


@pytest.mark.parametrize("name", ["observation_space", "action_space", "render_mode", "price", "decides"])
def test_attributes_are_read_as_those_of_single_environments(name: str) -> None:
    same = tiny()
    theirs = DummyVecEnv([lambda: LayerChannelSkipEnv(**same)] * 4)
    ours = SB3VecEnv(LayerChannelSkipVectorEnv(4, **same))
    assert ours.get_attr(name) == theirs.get_attr(name)
    assert ours.get_attr(name, indices=[0, 2]) == theirs.get_attr(name, indices=[0, 2])


def test_an_attribute_may_be_a_list() -> None:
    env = make()
    vars(env.env)["weights"] = None
    env.set_attr("weights", [1, 2, 3, 4])
    assert env.get_attr("weights", indices=1) == [[1, 2, 3, 4]]


def test_methods_are_called_once_and_pictures_are_of_each_image() -> None:
    env = SB3VecEnv(LayerChannelSkipVectorEnv(4, render_mode="ansi", **tiny()))
    env.set_options({"indices": [3, 0, 11, 3]})
    env.reset()
    assert [text.split()[1] for text in env.env_method("render", indices=[2, 1])] == ["11", "0"]
    calls = []
    vars(env.env)["count"] = lambda *args, **kwargs: calls.append((args, kwargs)) or 7
    assert env.env_method("count", 1, two=2, indices=1) == [7]
    assert calls == [((1,), {"two": 2})]


def test_what_is_of_all_images_or_there_is_not_is_refused() -> None:
    env = make()
    env.reset()
    for name in ("reset", "step", "refresh", "close"):
        with pytest.raises(UserError, match=f"use {name} itself"):
            env.env_method(name)
    with pytest.raises(UserError, match="no attribute 'prise' to set; price is one"):
        env.set_attr("prise", 5.0)


def test_what_all_images_share_is_not_set_for_some_of_them() -> None:
    env = make()
    with pytest.raises(UserError, match="price is of all images together: leave indices out"):
        env.set_attr("price", 5.0, indices=[0, 2])
    env.set_attr("price", 5.0, indices=range(4))
    assert env.get_attr("price") == [5.0] * 4


def test_frames_are_tiled() -> None:
    env = SB3VecEnv(LayerChannelSkipVectorEnv(4, render_mode="rgb_array", **tiny()))
    env.reset()
    one, frames = env.get_images()[0], env.render()
    assert one is not None
    assert frames is not None
    assert frames.shape == (2 * one.shape[0], 2 * one.shape[1], 3)
    assert make().get_images() == [None] * 4


def test_videos_run_as_fast_as_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moviepy", ModuleType("moviepy"))  # a recorder only asks whether it is there
    env = SB3VecEnv(LayerChannelSkipVectorEnv(4, render_mode="rgb_array", **tiny()))
    recorder = VecVideoRecorder(env, str(tmp_path), lambda step: False)
    assert recorder.frames_per_sec == env.env.metadata["render_fps"] == 2
    assert env.metadata["render_modes"] == ["human", "rgb_array"]


@pytest.mark.parametrize(("algorithm", "settings"), [(PPO, {"batch_size": 12}), (A2C, {})])
@pytest.mark.parametrize("confidence", [True, False])
def test_stable_baselines3_trains_on_it_and_counts_returns_and_successes(
    algorithm: type, settings: dict, confidence: bool
) -> None:
    env = make(confidence=confidence)
    watched = VecCheckNan(env, raise_exception=True)
    agent = algorithm("MultiInputPolicy", watched, n_steps=6, seed=0, device="cpu", **settings)
    agent.learn(48)
    assert len(agent.ep_info_buffer) == len(agent.ep_success_buffer) == 16


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", **tiny("layers")), "LayerSkipEnv"),
        (lambda: RecordEpisodeStatistics(LayerChannelSkipVectorEnv(2, **tiny())), "RecordEpisodeStatistics"),
        (
            lambda: gymnasium.make_vec(
                "lcnet_rl:LCNet/LayerSkip-v0", num_envs=2, vectorization_mode="sync", **tiny("layers")
            ),
            "SyncVectorEnv",
        ),
    ],
)
def test_only_a_native_vector_environment_is_wrapped(made: Callable[[], Any], named: str) -> None:
    with pytest.raises(UserError, match=rf"without wrappers .*, got .*{named}.*: make one with gymnasium\.make_vec"):
        SB3VecEnv(made())


def test_a_saved_agent_decides_alike_and_is_scored_by_its_returns(tmp_path: Path) -> None:
    env = make(price=2.0)
    agent = PPO("MultiInputPolicy", env, n_steps=6, batch_size=12, seed=0, device="cpu")
    agent.learn(48)
    agent.save(tmp_path / "agent.zip")
    loaded = PPO.load(tmp_path / "agent.zip", env=env, device="cpu")
    env.set_options({"indices": [0, 5, 7, 9]})
    observation, total, done = env.reset(), np.zeros(4), False
    while not done:
        actions = agent.predict(observation, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], actions)
        observation, rewards, dones, _ = env.step(actions)
        total, done = total + rewards, bool(dones.all())
    env.set_options({"indices": [0, 5, 7, 9]})
    mean, deviation = evaluate_policy(loaded, env, n_eval_episodes=4)
    assert mean == pytest.approx(total.mean(), abs=1e-6)
    assert deviation == pytest.approx(total.std(), abs=1e-6)


def test_options_of_each_image_are_gathered_and_other_lists_refused() -> None:
    env = make()
    env.set_options([{"index": index} for index in (3, 0, 11, 3)])
    env.reset()
    assert [info["index"] for info in env.reset_infos] == [3, 0, 11, 3]
    env.set_options([{"index": index, "price": index / 4} for index in (3, 0, 11, 3)])
    assert cast(dict, env.reset())["price"][:, 0].tolist() == [0.75, 0, 2.75, 0.75]
    assert [info["index"] for info in env.reset_infos] == [3, 0, 11, 3]
    env.set_options({"price": 2.0})
    assert cast(dict, env.reset())["price"][:, 0].tolist() == [2] * 4
    for wrong in (
        [],
        [{"index": 3}] * 3,
        [{"index": 3}, {}, {}, {}],
        [{"indices": [0, 1, 2, 3]}, {"indices": [4, 5, 6, 7]}, {}, {}],
    ):
        env.set_options(wrong)
        with pytest.raises(UserError, match="one dictionary for all images, or a list of 4"):
            env.reset()
        env.set_options()
