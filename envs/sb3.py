"""A native vector environment as stable-baselines3 wants it.

stable-baselines3 takes its own ``VecEnv``, with a list of dictionaries for infos and the last observation of an episode
in ``terminal_observation``. Episodes are reported in ``info["episode"]`` as its ``Monitor`` does, so returns are logged
without a wrapper, and ``is_success`` is logged as ``rollout/success_rate``, which here is the accuracy.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from envs.vector import SkipVectorEnv
from lcnet_rl.errors import UserError


class SB3VecEnv(VecEnv):
    """Wraps a ``LayerSkipVectorEnv`` or one of its siblings, which stays reachable as ``env``.

    Attributes and methods are those of the one environment behind all images, as its own ``get_attr``, ``set_attr`` and
    ``call`` have them: a value is repeated for each index, ``set_attr("price", 0.5)`` holds for all, and ``env_method``
    calls once.
    """

    def __init__(self, env: SkipVectorEnv) -> None:
        """Wrap ``env``, which nobody else may step from now on.

        Raises:
            UserError: for anything but a native vector environment, for example one inside a wrapper.
        """
        if not isinstance(env, SkipVectorEnv):
            raise UserError(
                f"SB3VecEnv takes a native vector environment without wrappers (it records episodes), got {env}: "
                'make one with gymnasium.make_vec(ID, num_envs=N, vectorization_mode="vector_entry_point")'
            )
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata["render_fps"] = env.metadata["render_fps"]
        self._started = time.monotonic()
        self._returns = np.zeros(env.num_envs)
        self._actions: NDArray[Any] | None = None

    def reset(self) -> VecEnvObs:
        """Begin new images, with the seed of ``seed`` and the options of ``set_options`` if they were called.

        These are options of the vector environment, for all images, or a list of ``{"index": i}``, ``{"price": p}`` or
        both, one an image.

        Raises:
            UserError: for other lists of options, as images go through the network in lockstep.
        """
        observation, infos = self.env.reset(seed=self._seeds[0], options=self._shared_options())
        self.reset_infos = self._split(infos)
        self._returns = np.zeros(self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take actions, (num_envs, action_size), of any number type."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Run or skip one block of every image. All arrays are new."""
        assert self._actions is not None, "step_async comes first"
        observation, rewards, terminations, _, infos = self.env.step(self._actions)
        self._actions = None
        self._returns += rewards
        ended = bool(terminations[0])  # lockstep: all or none
        rows = self._split(infos["final_info"] if ended else infos)
        for row in rows:
            row["TimeLimit.truncated"] = False
        if ended:
            elapsed = round(time.monotonic() - self._started, 6)
            for row, last, earned in zip(rows, infos["final_obs"], self._returns.tolist(), strict=True):
                row["terminal_observation"] = last
                row["episode"] = {"r": earned, "l": self.env.process.model.depth, "t": elapsed}
            self._returns = np.zeros(self.num_envs)
            self.reset_infos = self._split(infos)
        return observation, rewards.astype(np.float32), terminations, rows

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> list[NDArray[np.uint8] | None]:
        """The frames of ``render_mode="rgb_array"``, none of a finished image; None each without it."""
        frames = self.env.render() if self.render_mode == "rgb_array" else None
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environment, once an index; a space is that of one image."""
        value = getattr(self.env, attr_name)
        # The environment's own would call a method, where stable-baselines3 may only ask whether there is one.
        values = [value] * self.num_envs if callable(value) else self.env.get_attr(attr_name)
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, which all images share.

        Raises:
            UserError: for an attribute that there is not, or some images only.
        """
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise UserError(f"{attr_name} is of all images together: leave indices out")
        self.env.set_attr(attr_name, [value] * self.num_envs)  # there, a list has a value for each image

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list:
        """Call a method of the environment once, and return its result once an index; ``render`` has one for each.

        Raises:
            UserError: for ``reset``, ``step``, ``refresh`` and ``close``, which are of all images together.
        """
        results = self.env.call(method_name, *method_args, **method_kwargs)
        return [results[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True of ``Monitor``, whose episode reports this environment makes itself."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _shared_options(self) -> dict[str, Any]:
        """The options of all images as the vector environment takes them."""
        options = self._options
        each = {"index": "indices", "price": "prices"}
        names = set().union(*options)
        if len(options) == self.num_envs and names <= each.keys() and all(set(one) == names for one in options):
            return {each[name]: [one[name] for one in options] for name in names}
        # set_options repeats one dictionary; a list of its own is let through where it says the same.
        if len(options) != self.num_envs or any(repr(one) != repr(options[0]) for one in options):
            raise UserError(
                f"set_options takes one dictionary for all images, or a list of {self.num_envs} with the same of index "
                f"and price in each; got {options!r}"
            )
        return options[0]

    def _split(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """Arrays with masks to one dictionary of Python numbers an image."""
        names = [key for key in infos if not key.startswith("_") and not key.startswith("final_")]
        columns = [infos[key].tolist() for key in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
