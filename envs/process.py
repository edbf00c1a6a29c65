"""The decision process that single and vector environments are shells around.

It holds the model, the images, the reward shape and the price, and takes a batch of images through the network block
by block: ``begin`` is a reset, ``step`` a step, both batched, with rewards and infos. Rewards are reckoned in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from envs.network import ENV_IDS, PRICE, dataset_of, model_of, prices_of, reward_of
from envs.observations import Arrays, encode, encode_end, observation_space
from lcnet_rl.data import Dataset, Split
from lcnet_rl.device import one_thread_if_forked, resolve_device
from lcnet_rl.drawing import trace
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import Shape, judge, price_range
from lcnet_rl.spec import Decides
from lcnet_rl.state import State

__all__ = ["ENV_IDS", "PRICE", "Infos", "Process", "Settings", "check_options", "settings_of"]

Infos = dict[str, NDArray[Any]]
"""Name to one value an image, (B,)."""


@dataclass(frozen=True, eq=False)
class Settings:
    """What an environment can be made with, by keyword."""

    dataset: str | Dataset | None = None
    """Name of a data set (``shapes``, ``cifar10``, ``folder:PATH``), or a ``Dataset``; None is the run's own, and
    ``shapes`` where no run is given."""
    split: Split = "train"
    """``train``, ``val`` or ``test``, for a data set given by name."""
    data_root: Path | str | None = None
    """Where data lives; None is where the run had its own, and the user's cache folder for a data set given by name."""
    model: LCNet | None = None
    """The network to decide for: used, not copied; moved to ``device`` and put into eval mode."""
    run: Path | str | None = None
    """A run folder of ``lcnet-rl train`` whose final model is the network."""
    init: Path | str | None = None
    """Where neither is given, weights of the backbone that fresh gates are put on: ``auto`` (what comes with the
    project for that data set, backbone and width), a file, a run of ``pretrain``, ``akamaster``, or ``scratch``
    (random, always the same), which None is. The probes are untrained, so ``confidence`` says nothing yet."""
    backbone: str | None = None
    """Name of a backbone to put fresh gates on; None is what the file of ``init`` holds, else ``resnet8``."""
    width: int | None = None
    """Filters of the backbone's first stage; None is the usual width."""
    groups: int | None = None
    """Filter groups a block, each kept or dropped as one; 0 decides every filter by itself. None is what the network
    has, and 4 where gates are fresh."""
    confidence: bool | None = None
    """Whether the policy sees the confidence of a probe on the pooled features, billed. None is what the network has,
    and yes where gates are fresh."""
    reward: str | Shape | None = None
    """Reward shape, with parameters after a colon: ``linear``, ``quadratic:penalty=0.5``, ...; ``MODULE:FUNCTION``; a
    function or a ``Reward``. None is what the run was trained for, else ``linear``."""
    price: float | str | None = None
    """Reward lost by spending the dense model's MACs once; a range like ``"0.05..1.0"`` draws one for every image. None
    is what the model or run was trained at or for, and 0.3 where it was not trained. A price means something with its
    reward only: with a trained ``model``, give the reward that it was trained for."""
    device: str = "cpu"
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto``."""

    def __post_init__(self) -> None:
        if self.price is not None:
            price_range(self.price)
        if self.model is not None and self.run is not None:
            raise UserError("give a model or a run, not both")
        if self.run is not None and Path(self.run).is_file():
            folder = Path(self.run).parent
            raise UserError(
                f"run is a folder, but {self.run} is a file: give {folder}, or what load_model reads as model"
            )
        if self.init is not None and not (self.model is None and self.run is None):
            raise UserError("init is what fresh gates are put on: leave it out where a model or a run is given")


class Process:
    """B images on their way through one network, in lockstep.

    ``model``, ``dataset`` and ``reward`` are for reading; setting ``price`` takes effect with the next images, and so
    does setting ``prices``, the range that it is drawn from.
    """

    def __init__(self, decides: Decides, settings: Settings) -> None:
        """Load what ``settings`` name.

        Args:
            decides: the decisions of this environment; a model or run with others is refused.
            settings: everything else.

        Raises:
            UserError: for names, values or a model that do not fit; the message says what would.
        """
        one_thread_if_forked()
        self.device = resolve_device(settings.device)
        self.dataset = dataset_of(settings)
        if not len(self.dataset):
            raise UserError(f"data set {self.dataset.name} holds no image")
        self.model = model_of(decides, settings, self.dataset).to(self.device).eval()
        self.reward = reward_of(settings)
        self.prices = prices_of(settings, self.model)
        self.images, self.labels = self.dataset.images.to(self.device), self.dataset.labels.to(self.device)
        self.observation_space: spaces.Dict = observation_space(self.model)
        self.action_space = spaces.MultiBinary(int(self.model.action_size))
        self.indices: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.actions: list[Tensor] = []
        self.logits: Tensor | None = None
        self._state: State | None = None

    @property
    def price(self) -> float | str:
        """Reward lost by spending the dense model's MACs once, for images that begin from now on; or a range."""
        return self.prices.low if self.prices.is_one else str(self.prices)

    @price.setter
    def price(self, price: float | str) -> None:
        self.prices = price_range(price)

    @property
    def state(self) -> State:
        """The images in flight.

        Raises:
            ResetNeeded: when there are none yet.
        """
        if self._state is None:
            raise ResetNeeded("call reset() first: there is no image yet")
        return self._state

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """``count`` image numbers, uniformly at random."""
        return random.integers(len(self.dataset), size=count, dtype=np.int64)

    def draw_prices(self, count: int, random: np.random.Generator) -> NDArray[np.float32]:
        """``count`` prices; random only where there is a range of them."""
        quantiles = np.zeros(count) if self.prices.is_one else random.random(count)
        return self.prices.at(torch.from_numpy(quantiles)).float().numpy()

    def check_indices(self, indices: ArrayLike, count: int) -> NDArray[np.int64]:
        """Image numbers from a caller, (count,).

        Raises:
            UserError: when there are too few, too many, or one that the data set does not have.
        """
        chosen = np.array(indices)
        if chosen.shape != (count,) or not np.issubdtype(chosen.dtype, np.integer):
            raise UserError(f"need {count} image number(s), got {indices!r}")
        if chosen.min() < 0 or chosen.max() >= len(self.dataset):
            raise UserError(f"image numbers must be in 0..{len(self.dataset) - 1}, got {indices!r}")
        return chosen.astype(np.int64)

    @torch.no_grad()
    def begin(self, indices: NDArray[np.int64], prices: NDArray[np.float32] | None = None) -> Infos:
        """Run the stem on new images, (B,), at the given prices (B,); None is the only or the middle one."""
        self._eval()
        self.indices = indices
        self.actions, self.logits = [], None
        chosen = torch.from_numpy(indices).to(self.device)
        self._labels = self.labels[chosen]
        price = self.prices.middle if prices is None else torch.from_numpy(prices)
        self._state = self.model.begin(self.images[chosen], price)
        self._potential = self._potentials()
        self._ran = torch.zeros(len(indices), dtype=torch.int64, device=self.device)
        # The stem's MACs are already spent, but no step has paid for them yet: the first one does.
        self._paid = torch.zeros_like(self._state.spent)
        return self._infos(self._state.spent)

    @torch.no_grad()
    def observe(self) -> Arrays:
        """What the policy may see of every image now, as new arrays."""
        if self.logits is not None:
            return encode_end(self.model, self.state, self.logits)
        return encode(self.model, self.model.observe(self.state))

    @torch.no_grad()
    def step(self, actions: ArrayLike) -> tuple[NDArray[np.float64], bool, Infos]:
        """Run or skip the next block for every image.

        Args:
            actions: (B, action_size), 1 = keep.

        Returns:
            Rewards (B,), whether that was the last block, and infos.

        Raises:
            ResetNeeded: when the last block has run.
            ValueError: for actions of another shape, or with other numbers than 0 and 1.
        """
        state = self.state
        if state.block == self.model.depth:
            raise ResetNeeded("every block has run: call reset() for the next image")
        self._eval()
        action = self._check_actions(actions)
        keep, filters = self.model.split(action, state.block)
        self._ran = self._ran + (keep * filters.amax(1) > 0)
        self._state = state = self.model.advance(state, action)
        self.actions.append(action)
        ended = state.block == self.model.depth
        spent = self.model.total_macs(state) if ended else state.spent
        if ended:
            self.logits = self.model.classify(state)
        task, cost = self._rewards(state.price.double(), spent)
        before, self._potential = self._potential, self._potentials()
        shaping = self._potential - before
        self._paid = spent
        infos = self._infos(spent)
        infos["reward_task"], infos["reward_cost"], infos["reward_shaping"] = map(_numpy, (task, cost, shaping))
        if self.logits is not None:
            prediction = self.logits.argmax(1)
            infos["prediction"], infos["is_success"] = _numpy(prediction), _numpy(prediction == self._labels)
        return _numpy(task + cost + shaping), ended, infos

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the images in flight up to date with a model whose weights were changed from outside.

        They are run again from the stem under the decisions taken so far. What is billed and paid stays.
        """
        self._eval()
        state = self.model.begin(self.images[torch.from_numpy(self.indices).to(self.device)], self.state.price)
        for action in self.actions:
            state = self.model.advance(state, action)
        self._state = state
        if self.logits is not None:
            self.logits = self.model.classify(state)

    def trace(self, index: int) -> list[tuple[bool, list[bool]]]:
        """What ran of image ``index`` of the batch: for each block so far, whether it did, and which filter groups."""
        return trace(self.model, (action[index] for action in self.actions))

    def macs(self, index: int) -> int:
        """MACs billed for image ``index`` of the batch so far, with the head once it is classified."""
        state = self.state
        return int((state.spent if self.logits is None else self.model.total_macs(state))[index])

    def _rewards(self, price: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Task and cost parts, (B,) each, of the step that brings the bill to ``spent``."""
        dense, zero = self.model.costs.dense, torch.zeros_like(spent)
        by_step = self.reward.pays_by_step
        cost = -price * (spent - self._paid) / dense if by_step else torch.zeros_like(spent)
        if self.logits is None:
            return zero, cost
        judged = judge(self.logits, self._labels).double()
        task = self.reward(judged, zero, price)
        if not by_step:
            cost = self.reward(judged, spent / dense, price) - task
        return task, cost

    def _potentials(self) -> Tensor:
        """The reward's potential of the images' states, (B,): 0 once they are classified."""
        state = self.state
        if not self.reward.has_potential or self.logits is not None:
            return torch.zeros_like(state.spent)
        probes = judge(self.model.observe(state).probe_logits, self._labels)
        return self.reward.potential(probes.double().log_prob)

    def _infos(self, spent: Tensor) -> Infos:
        return {
            "index": self.indices.copy(),
            "label": _numpy(self._labels).copy(),
            "macs": _numpy(spent.long()),
            "macs_ratio": _numpy(spent / self.model.costs.dense),
            "kept_blocks": _numpy(self._ran).copy(),
        }

    def _check_actions(self, actions: ArrayLike) -> Tensor:
        given = np.array(actions, dtype=np.float32)
        right = (len(self.indices), self.model.action_size)
        if given.shape != right:
            raise ValueError(f"actions must have shape {right}, got {given.shape}")
        if not np.isin(given, (0, 1)).all():
            raise ValueError("actions must be 0 (drop) or 1 (keep)")
        return torch.from_numpy(given).to(self.device)

    def _eval(self) -> None:
        # Whoever fine-tunes the model between two steps leaves it in training mode.
        if self.model.training:
            self.model.eval()


def settings_of(keywords: Mapping[str, Any]) -> Settings:
    """The settings that keywords of an environment name.

    Raises:
        UserError: for one that there is not, or a value that makes no environment.
    """
    known = [field.name for field in fields(Settings)]
    for name in keywords:
        if name not in known:
            raise unknown_name("keyword", name, known)
    return Settings(**keywords)


def check_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> Mapping[str, Any]:
    """The options of a reset, which may be none.

    Raises:
        UserError: for one that is not known, which would else be ignored.
    """
    for name in options or {}:
        if name not in known:
            raise unknown_name("reset option", str(name), known)
    return options or {}


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()
