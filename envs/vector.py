"""The native vector environments: many images in lockstep, one batched block a step.

All sub-environments are at the same block at all times, so all end together, and in that very step new images are drawn
(autoreset mode SAME_STEP). Rewards, observations and infos are those of ``envs.single``; infos are arrays (num_envs,)
with masks, as gymnasium's ``SyncVectorEnv`` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from envs.observations import Arrays
from envs.process import Infos, Process, check_options
from envs.rendering import check_render_mode, render
from envs.settings import settings_of
from lcnet_rl.errors import UserError
from lcnet_rl.spec import Decides


class SkipVectorEnv(VectorEnv):
    """What the three vector environments share; they differ in what is decided.

    ## Arguments
    - `num_envs`: images at a time.
    - `render_mode`: None, `"ansi"` or `"rgb_array"`.
    - everything in `envs.settings.Settings`, by keyword.

    ## Reset options
    - `indices`: (num_envs,) the images to classify, instead of random ones.
    - `price`, a number, or `prices`, (num_envs,): of these images only, instead of the environment's own.

    ## Attributes
    - `process`: model (`process.model`), data set, reward shape.
    - `price`, a number or a range: may be set; takes effect with the next images. Inside a wrapper it is
      `env.unwrapped.price`: the wrapper would keep `env.price = 0.5` to itself.

    `call`, `get_attr` and `set_attr` are as in gymnasium's vector environments, with one value for all images.

    Whoever changes the model's weights between two steps calls `refresh`, or `reset` for new images.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 2,
    }
    decides: ClassVar[Decides]

    def __init__(
        self, num_envs: int = 1, render_mode: str | None = None, max_episode_steps: int | None = None, **settings: Any
    ) -> None:
        """Make ``num_envs`` environments.

        Args:
            num_envs: images at a time.
            render_mode: None, ``"ansi"`` or ``"rgb_array"``.
            max_episode_steps: at least the network's depth, so that it ends no episode; None and -1 are no limit.
            **settings: see ``envs.settings.Settings``.

        Raises:
            UserError: for settings that make no environment.
        """
        if not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise UserError(f"num_envs must be a whole number >= 1, got {num_envs!r}")
        self.render_mode = check_render_mode(render_mode)
        self.num_envs = num_envs
        self.process = Process(self.decides, settings_of(settings))
        depth = self.process.model.depth
        if max_episode_steps is not None and max_episode_steps != -1 and max_episode_steps < depth:
            raise UserError(
                f"max_episode_steps={max_episode_steps} cuts episodes of {depth} blocks short, which images in "
                'lockstep cannot be: leave it out, or use vectorization_mode="sync"'
            )
        self.single_observation_space = self.process.observation_space
        self.single_action_space = self.process.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def price(self) -> float | str:
        """Reward lost by spending the dense model's MACs once, or the range that it is drawn from."""
        return self.process.price

    @price.setter
    def price(self, price: float | str) -> None:
        self.process.price = price

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Arrays, Infos]:
        """Begin new images.

        Raises:
            UserError: for a list of seeds, image numbers that do not exist, prices that are none, a ``reset_mask`` that
                is none or spares some images, or another option.
        """
        if isinstance(seed, Sequence | np.ndarray):  # as the sub-environments of gymnasium's own take them
            raise UserError(f"seed is one integer for all images, as they are drawn together; got {seed!r}")
        super().reset(seed=seed)
        options = check_options(options, ("indices", "price", "prices", "reset_mask"))
        mask = np.asarray(options.get("reset_mask", [True] * self.num_envs))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise UserError(
                f"reset_mask must be {self.num_envs} times True or False, got {options['reset_mask']!r:.80}"
            )
        if not mask.all():
            raise UserError("images go through the network in lockstep: reset all of them, or none")
        if "indices" in options:
            indices = self.process.check_indices(options["indices"], self.num_envs)
        else:
            indices = self.process.draw(self.num_envs, self.np_random)
        infos = self.process.begin(indices, self._prices(options))
        return self.process.observe(), self._masked(infos)

    def step(
        self, actions: ArrayLike
    ) -> tuple[Arrays, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Run or skip one block of every image; after the last block, begin new ones.

        Args:
            actions: (num_envs, action_size), 1 = keep, of any number type; (num_envs,) too, where an action is one bit.

        Raises:
            ResetNeeded: when there are no images yet.
            ValueError: for actions of another shape, or with other numbers than 0 and 1.
        """
        if self.action_space.shape == (self.num_envs, 1) and np.shape(actions) == (self.num_envs,):
            actions = np.asarray(actions)[:, None]
        rewards, ended, infos = self.process.step(actions)
        terminations, truncations = np.full(self.num_envs, ended), np.zeros(self.num_envs, dtype=np.bool_)
        if not ended:
            return self.process.observe(), rewards, terminations, truncations, self._masked(infos)
        last = {"final_obs": _rows(self.process.observe()), "final_info": self._masked(infos)}
        begun = self.process.begin(self.process.draw(self.num_envs, self.np_random), self._prices({}))
        return self.process.observe(), rewards, terminations, truncations, self._masked({**begun, **last})

    def refresh(self) -> Arrays:
        """Recompute the images in flight after the model's weights were changed, and observe them anew.

        They keep the decisions taken so far. An agent that trains the backbone amid an episode continues from what this
        returns, in place of the last observation it got.
        """
        self.process.refresh()
        return self.process.observe()

    def render(self) -> tuple[Any, ...] | None:
        """A text or a picture an image, or None without a render mode.

        After the step that ends images it shows the next ones; a single environment shows a finished one.

        Raises:
            ResetNeeded: when there is no image yet.
        """
        if self.render_mode is None:
            return None
        return tuple(render(self.process, index, self.render_mode) for index in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """An attribute, or what a method returns, one value an image, as gymnasium's ``SyncVectorEnv`` has it.

        There is one environment behind all images: a method is called once, and a value is the same for each, but for
        ``render``, which has one for each.

        Raises:
            UserError: for ``reset``, ``step``, ``refresh`` and ``close``, which are of all images together.
            AttributeError: for a name that there is not.
        """
        if name in ("reset", "step", "refresh", "close"):
            raise UserError(f"{name} is of all images together: use {name} itself, not call({name!r})")
        # What gymnasium asks is the space of one.
        value = getattr(self, f"single_{name}" if name in ("observation_space", "action_space") else name)
        result = value(*args, **kwargs) if callable(value) else value
        return result if name == "render" and result else (result,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute, one value an image; see ``call``."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute, such as ``price``, for all images: to one value, or to a list with the same for each.

        Raises:
            UserError: for an attribute that there is not, a list of another length, or one of different values.
        """
        if not hasattr(self, name):
            raise UserError(f"there is no attribute {name!r} to set; price is one")
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs or list(each) != [each[0]] * self.num_envs:
            raise UserError(
                f"{name} is one for all images: give one value, or the same {self.num_envs} times, got {values!r:.80} "
                '(prices for each image are an option: reset(options={"prices": [...]}))'
            )
        setattr(self, name, each[0])

    def _prices(self, options: Mapping[str, Any]) -> NDArray[np.float32]:
        """Those that the options of a reset name, or drawn ones, (num_envs,)."""
        if "price" in options and "prices" in options:
            raise UserError("give price, one for all images, or prices, one each, not both")
        if "price" in options:
            return np.repeat(self.process.check_prices([options["price"]], 1), self.num_envs)
        if "prices" in options:
            return self.process.check_prices(options["prices"], self.num_envs)
        return self.process.draw_prices(self.num_envs, self.np_random)

    def _masked(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        """``infos`` with ``_name`` beside every name: which sub-environments it is true of, here all."""
        return {**infos, **{f"_{key}": np.ones(self.num_envs, dtype=np.bool_) for key in infos}}


class LayerSkipVectorEnv(SkipVectorEnv):
    """Many images whose residual blocks are run or skipped; ``LayerSkipEnv`` has the particulars."""

    decides = "layers"


class ChannelSkipVectorEnv(SkipVectorEnv):
    """Many images whose filter groups are run or dropped; ``ChannelSkipEnv`` has the particulars."""

    decides = "channels"


class LayerChannelSkipVectorEnv(SkipVectorEnv):
    """Many images whose blocks and filter groups are run or dropped; ``LayerChannelSkipEnv`` has the particulars."""

    decides = "both"


VECTOR_ENVS: dict[Decides, type[SkipVectorEnv]] = {
    env.decides: env for env in (LayerSkipVectorEnv, ChannelSkipVectorEnv, LayerChannelSkipVectorEnv)
}
"""By what they decide."""


def _rows(observation: Arrays) -> NDArray[np.object_]:
    """One dictionary an image, (num_envs,): the form gymnasium gives ``final_obs`` in."""
    rows = np.empty(len(observation["block"]), dtype=object)
    rows[:] = [dict(zip(observation, values, strict=True)) for values in zip(*observation.values(), strict=True)]
    return rows
