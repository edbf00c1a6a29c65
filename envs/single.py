"""The single environments: one image at a time, gymnasium's plain interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from envs.observations import Arrays
from envs.process import Infos, Process, check_options
from envs.rendering import check_render_mode, render
from envs.settings import settings_of
from lcnet_rl.spec import Decides


class SkipEnv(gymnasium.Env):
    """What the three single environments share; they differ in what is decided.

    ## Attributes
    - `process`: model (`process.model`), data set, reward shape.
    - `price`, a number or a range: may be set; takes effect with the next image. Of an environment from
      `gymnasium.make` it is `env.unwrapped.price`: a wrapper would keep `env.price = 0.5` to itself.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # type: ignore[misc]
    decides: ClassVar[Decides]

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        """Make an environment.

        Args:
            render_mode: None, ``"ansi"`` or ``"rgb_array"``.
            **settings: see ``envs.settings.Settings``.

        Raises:
            UserError: for settings that make no environment.
        """
        self.render_mode = check_render_mode(render_mode)
        self.process = Process(self.decides, settings_of(settings))
        self.observation_space = self.process.observation_space
        self.action_space = self.process.action_space

    @property
    def price(self) -> float | str:
        """Reward lost by spending the dense model's MACs once, or the range that it is drawn from."""
        return self.process.price

    @price.setter
    def price(self, price: float | str) -> None:
        self.process.price = price

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Begin a new image: a random one, or number ``options["index"]``; at the price ``options["price"]``, if given.

        Raises:
            UserError: for an image number that does not exist, a price that is none, or another option.
        """
        super().reset(seed=seed)
        options = check_options(options, ("index", "price"))
        if "index" in options:
            indices = self.process.check_indices([options["index"]], 1)
        else:
            indices = self.process.draw(1, self.np_random)
        if "price" in options:
            prices = self.process.check_prices([options["price"]], 1)
        else:
            prices = self.process.draw_prices(1, self.np_random)
        infos = self.process.begin(indices, prices)
        return self._observe(), _only(infos)

    def step(self, action: ArrayLike) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Run or skip the next block.

        Args:
            action: (action_size,), 1 = keep; where that is one bit, also a number.

        Raises:
            ResetNeeded: when there is no image, or its last block has run.
            ValueError: for an action of another shape, or with other numbers than 0 and 1.
        """
        given, right = np.asarray(action), self.process.action_space.shape
        if right == (1,) and not given.shape:
            given = given[None]
        if given.shape != right:
            raise ValueError(f"an action must have shape {right}, got {given.shape}")
        rewards, terminated, infos = self.process.step(given[None])
        return self._observe(), float(rewards[0]), terminated, False, _only(infos)

    def render(self) -> Any:
        """A text or a picture of what ran so far, or None without a render mode.

        Raises:
            ResetNeeded: when there is no image yet.
        """
        return None if self.render_mode is None else render(self.process, 0, self.render_mode)

    def _observe(self) -> Arrays:
        return {key: values[0] for key, values in self.process.observe().items()}


def _only(infos: Infos) -> dict[str, Any]:
    """Infos of a batch of one image, as Python numbers."""
    return {key: values[0].item() for key, values in infos.items()}


class LayerSkipEnv(SkipEnv):
    """Classify an image, deciding before each residual block whether to run or to skip it.

    ## Description
    A residual network classifies one image an episode (LC-Net, Xia et al., 2020, arXiv 2007.15151). Before every block
    the agent sees pooled features of the block's input and decides; a skipped block costs nothing but its gate and its
    shortcut. The agent wants the prediction right and the multiply-accumulate operations (MACs) few. Where the model
    has networks behind the first (`lcnet_rl.second`), the last decisions are whether these run, as more blocks; what
    the networks before give to the head is then `pooled`.

    ## Action Space
    `MultiBinary(1)`: 1 runs the block, 0 skips it.

    ## Observation Space
    A `Dict` of float32 boxes; C is the widest block input, shares are of the dense network's MACs.

    | Key          | Shape      | Range       | Meaning                                                               |
    |--------------|------------|-------------|-----------------------------------------------------------------------|
    | `pooled`     | `(C,)`     | [0, max]    | global average of the block's input, zeros beyond its channels        |
    | `confidence` | `(2,)`     | [0, 1]      | largest probability and normalised entropy of a probe on `pooled`      |
    | `block`      | `(depth,)` | {0, 1}      | one-hot: the block to be decided                                      |
    | `spent`      | `(1,)`     | [0, >1]     | share of MACs spent so far; gates are billed, so it can pass 1        |
    | `price`      | `(1,)`     | [0, max]    | reward lost by spending the dense MACs once                           |

    After the last block `pooled` and `block` are zero, `confidence` is the head's, and `spent` is the whole bill.
    There is no `confidence` with the argument `confidence=False`, nor for a model without.

    ## Rewards
    `linear`: every step pays `-price` times the share of MACs it spent, the first step the stem's too and the last step
    the head's; a right prediction earns 1 with the last step. `confidence` earns the log-probability of the label, at
    least -5, instead of 1 or 0. `quadratic` pays nothing before the last step, then `1 - price * share^2`, or
    `-penalty` for a wrong prediction. `potential` and `confidence-gain` also pay, each step, for the rise of what a
    probe says of the label, and take the last such probability back in the end. All shapes, with their formulas, are
    in `lcnet_rl/rewards/shapes.py`.
    `info["reward_task"]`, `info["reward_cost"]` and `info["reward_shaping"]` add up to the reward.

    ## Starting State
    An image drawn uniformly at random from the data set, with the stem run; or as `reset(options={...})` says:

    | Option       | Meaning                                                                                           |
    |--------------|---------------------------------------------------------------------------------------------------|
    | `index`      | the image's number in the data set                                                                |
    | `price`      | a number, for this image only, instead of the environment's `price` or one drawn from its range   |

    ## Episode End
    Terminated after the last block, when the head classifies; never truncated.

    `info` holds `index`, `label`, `macs`, `macs_ratio` and `kept_blocks` (so far) always, the reward's parts after a
    step, and `prediction` and `is_success` at the end.

    ## Arguments
    ```python
    gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", dataset="cifar10", backbone="resnet20", init="auto", price=0.3)
    gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", run="runs/my-run")
    ```

    | Argument             | Default      | Meaning                                                                   |
    |----------------------|--------------|---------------------------------------------------------------------------|
    | `dataset`            | `None`       | `shapes`, `cifar10`, `folder:PATH`, or a `lcnet_rl.data.Dataset`; `None`  |
    |                      |              | is the run's own, and `shapes` for fresh gates; with a `model` it is      |
    |                      |              | needed                                                                    |
    | `split`              | `"train"`    | `train`, `val`, or `test`, whose images are for a policy that is done     |
    | `data_root`          | `None`       | where data lives                                                          |
    | `model`              | `None`       | an `LCNet`, used and not copied (`gymnasium.make(env.spec)` copies it)    |
    | `run`                | `None`       | a run folder of `lcnet-rl train`, whose final model is used               |
    | `init`               | `None`       | where neither is given, what fresh gates are put on: `"auto"` (the        |
    |                      |              | weights that come with the project), a file, a run folder of `pretrain`,  |
    |                      |              | `"akamaster"`, or `"scratch"`: random weights, as `None`                  |
    | `backbone`, `width`  | `None`       | of that network; `None` is what the file of `init` holds, else `resnet8`  |
    | `groups`             | `None`       | filter groups a block; 0 decides every filter by itself; `None` is what   |
    |                      |              | the model or run has, and 4 where neither is given                        |
    | `confidence`         | `None`       | whether the agent sees the confidence of a probe, which is then billed;   |
    |                      |              | `None` is what the model or run has, and yes where neither is given       |
    | `reward`             | `None`       | name of a shape, with parameters after a colon; or `"module:function"`;   |
    |                      |              | or a function, or a `Reward`; `None` is what the run was trained for,     |
    |                      |              | else `linear`                                                             |
    | `price`              | `None`       | reward lost by spending the dense MACs once, or a range `"0.05..1.0"`;    |
    |                      |              | `None` is what the model or run was trained for, 0.3 if it was not        |
    | `device`             | `"cpu"`      | where the network runs                                                    |
    | `render_mode`        | `None`       | `"ansi"` (a text) or `"rgb_array"` (the image over what ran so far)       |

    A price means something with its reward only: what a run was trained at for `confidence` is too much for `linear`.
    Fresh gates come with probes that are not trained, so `confidence` says nothing there.

    The price may be set later: `env.unwrapped.price = 0.5`, or a range, holds from the next image on (`env.price = 0.5`
    would only set an attribute of the wrapper that `gymnasium.make` puts around).

    ## Vectorized environment
    `gymnasium.make_vec("lcnet_rl:LCNet/LayerSkip-v0", num_envs=512)` takes its images through the network in lockstep,
    one batched block a step, and draws new ones in the step that ends the old ones (autoreset mode SAME_STEP).
    `envs.sb3.SB3VecEnv` makes it an environment for stable-baselines3.

    ## Version History
    - v0: first version.
    """

    decides = "layers"


class ChannelSkipEnv(SkipEnv):
    """Classify an image, deciding in each residual block which groups of its filters to run.

    ## Description
    As in `LayerSkipEnv`, but without a bit for the block: it runs with the filters of its first convolution that the
    agent keeps, and is skipped where there are none. A dropped filter saves its share of both convolutions.

    ## Action Space
    `MultiBinary(groups)`: bit `g` keeps filter group `g`. With `groups=0` there is a bit a filter of the widest block,
    and narrower blocks ignore the bits that they have no filter for.

    ## Observation Space
    | Key          | Shape      | Range       | Meaning                                                               |
    |--------------|------------|-------------|-----------------------------------------------------------------------|
    | `pooled`     | `(C,)`     | [0, max]    | global average of the block's input, zeros beyond its channels        |
    | `confidence` | `(2,)`     | [0, 1]      | largest probability and normalised entropy of a probe on `pooled`      |
    | `block`      | `(depth,)` | {0, 1}      | one-hot: the block to be decided                                      |
    | `spent`      | `(1,)`     | [0, >1]     | share of MACs spent so far; gates are billed, so it can pass 1        |
    | `price`      | `(1,)`     | [0, max]    | reward lost by spending the dense MACs once                           |

    ## Rewards
    As in `LayerSkipEnv`.

    ## Starting State
    A random image, or the one of `reset(options={"index": i})`, with the stem run; `price` is an option, too.

    ## Episode End
    Terminated after the last block; never truncated. `info` is as in `LayerSkipEnv`.

    ## Arguments
    As in `LayerSkipEnv`; `groups` sets the size of the action.

    ## Vectorized environment
    `gymnasium.make_vec("lcnet_rl:LCNet/ChannelSkip-v0", num_envs=512)`, see `LayerSkipEnv`.

    ## Version History
    - v0: first version.
    """

    decides = "channels"


class LayerChannelSkipEnv(SkipEnv):
    """Classify an image, deciding before each residual block whether to run it, and with which groups of its filters.

    ## Description
    Both decisions of LC-Net at once: `LayerSkipEnv` for the block, `ChannelSkipEnv` inside a block that runs.

    ## Action Space
    `MultiBinary(1 + groups)`: bit 0 runs the block, bit `1 + g` keeps filter group `g`. Where bit 0 is 0, or all others
    are, the block is skipped. With `groups=0` there is a bit a filter of the widest block, and narrower blocks ignore
    the bits that they have no filter for.

    ## Observation Space
    | Key          | Shape      | Range       | Meaning                                                               |
    |--------------|------------|-------------|-----------------------------------------------------------------------|
    | `pooled`     | `(C,)`     | [0, max]    | global average of the block's input, zeros beyond its channels        |
    | `confidence` | `(2,)`     | [0, 1]      | largest probability and normalised entropy of a probe on `pooled`      |
    | `block`      | `(depth,)` | {0, 1}      | one-hot: the block to be decided                                      |
    | `spent`      | `(1,)`     | [0, >1]     | share of MACs spent so far; gates are billed, so it can pass 1        |
    | `price`      | `(1,)`     | [0, max]    | reward lost by spending the dense MACs once                           |

    ## Rewards
    As in `LayerSkipEnv`. C-Net is billed where bit 0 is 1.

    ## Starting State
    A random image, or the one of `reset(options={"index": i})`, with the stem run; `price` is an option, too.

    ## Episode End
    Terminated after the last block; never truncated. `info` is as in `LayerSkipEnv`.

    ## Arguments
    As in `LayerSkipEnv`; `groups` sets the size of the action.

    ## Vectorized environment
    `gymnasium.make_vec("lcnet_rl:LCNet/LayerChannelSkip-v0", num_envs=512)`, see `LayerSkipEnv`.

    ## Version History
    - v0: first version.
    """

    decides = "both"
