"""The decision process that single and vector environments are shells around.

It holds the model, the images, the reward shape and the price, and takes a batch of images through the network block
by block: ``begin`` is a reset, ``step`` a step, both batched, with rewards and infos. Rewards are reckoned in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from envs.network import dataset_of, model_of, prices_of, reward_of
from envs.observations import Arrays, encode, encode_end, observation_space, to_numpy
from envs.settings import Settings
from lcnet_rl.device import one_thread_if_forked, resolve_device
from lcnet_rl.drawing import trace
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.rewards import check_price, judge, price_range
from lcnet_rl.spec import Decides
from lcnet_rl.state import State

Infos = dict[str, NDArray[Any]]
"""Name to one value an image, (B,)."""


@dataclass(eq=False)
class Episode:
    """B images from ``begin`` to the next one, with what their next step's rewards and infos are reckoned from."""

    indices: NDArray[np.int64]
    """(B,), the images' numbers in the data set."""
    labels: Tensor
    """(B,)."""
    state: State
    """Before the next block."""
    potential: Tensor
    """(B,), the reward's potential of ``state``, float64."""
    paid: Tensor
    """(B,), the MACs that steps were charged for, float64."""
    ran: Tensor
    """(B,), how many blocks ran, int64."""
    actions: list[Tensor] = field(default_factory=list)
    """(B, action_size), one a block so far."""
    logits: Tensor | None = None
    """(B, classes), once the last block is done."""


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
        self._episode: Episode | None = None

    @property
    def price(self) -> float | str:
        """Reward lost by spending the dense model's MACs once, for images that begin from now on; or a range."""
        return self.prices.low if self.prices.is_one else str(self.prices)

    @price.setter
    def price(self, price: float | str) -> None:
        self.prices = price_range(price)

    @property
    def episode(self) -> Episode:
        """The images in flight.

        Raises:
            ResetNeeded: when there are none yet.
        """
        if self._episode is None:
            raise ResetNeeded("call reset() first: there is no image yet")
        return self._episode

    @property
    def state(self) -> State:
        """Where they are in the network."""
        return self.episode.state

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
        wrong = UserError(f"need {count} image number(s), got {indices!r}")
        try:
            chosen = np.array(indices)
        except ValueError as error:  # lists of unlike lengths
            raise wrong from error
        if chosen.shape != (count,) or not np.issubdtype(chosen.dtype, np.integer):
            raise wrong
        if chosen.min() < 0 or chosen.max() >= len(self.dataset):
            raise UserError(f"image numbers must be in 0..{len(self.dataset) - 1}, got {indices!r}")
        return chosen.astype(np.int64)

    def check_prices(self, prices: ArrayLike, count: int) -> NDArray[np.float32]:
        """Prices from a caller, (count,).

        Raises:
            UserError: when there are too few or too many, or one is no number, negative or infinite.
        """
        wrong = UserError(f"need {count} price(s), each a number, got {prices!r}")
        try:
            chosen = np.array(prices)
        except ValueError as error:  # lists of unlike lengths
            raise wrong from error
        if chosen.shape != (count,) or chosen.dtype.kind not in "iuf":
            raise wrong
        return np.array([check_price(price) for price in chosen], dtype=np.float32)

    @torch.no_grad()
    def begin(self, indices: NDArray[np.int64], prices: NDArray[np.float32] | None = None) -> Infos:
        """Run the stem on new images, (B,), at the given prices (B,); None is the only or the middle one."""
        self._eval()
        chosen = torch.from_numpy(indices).to(self.device)
        labels, price = self.labels[chosen], self.prices.middle if prices is None else torch.from_numpy(prices)
        state = self.model.begin(self.images[chosen], price)
        self._episode = Episode(
            indices,
            labels,
            state,
            potential=self._potentials(state, labels),
            # The stem's MACs are already spent, but no step has paid for them yet: the first one does.
            paid=torch.zeros_like(state.spent),
            ran=torch.zeros(len(indices), dtype=torch.int64, device=self.device),
        )
        return self._infos(state.spent)

    @torch.no_grad()
    def observe(self) -> Arrays:
        """What the policy may see of every image now, as new arrays."""
        episode = self.episode
        if episode.logits is not None:
            return encode_end(self.model, episode.state, episode.logits)
        return encode(self.model, self.model.observe(episode.state))

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
            UserError: where a reward that pays by step turns out to be something else than a task minus its cost.
        """
        episode, state = self.episode, self.state
        if state.block == self.model.depth:
            raise ResetNeeded("every block has run: call reset() for the next image")
        self._eval()
        action = self._check_actions(actions)
        keep, filters = self.model.decisions.split(action, state.block)
        episode.ran = episode.ran + (keep * filters.amax(1) > 0)
        episode.state = state = self.model.advance(state, action)
        episode.actions.append(action)
        ended = state.block == self.model.depth
        spent = self.model.total_macs(state) if ended else state.spent
        if ended:
            episode.logits = self.model.classify(state)
        task, cost = self._rewards(episode, spent)
        before, episode.potential = episode.potential, self._potentials(state, episode.labels)
        shaping = episode.potential - before
        episode.paid = spent
        infos = self._infos(spent)
        infos["reward_task"], infos["reward_cost"], infos["reward_shaping"] = map(to_numpy, (task, cost, shaping))
        if episode.logits is not None:
            prediction = episode.logits.argmax(1)
            infos["prediction"], infos["is_success"] = to_numpy(prediction), to_numpy(prediction == episode.labels)
        return to_numpy(task + cost + shaping), ended, infos

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the images in flight up to date with a model whose weights were changed from outside.

        They are run again from the stem under the decisions taken so far. What is billed and paid stays.
        """
        self._eval()
        episode = self.episode
        chosen = torch.from_numpy(episode.indices).to(self.device)
        state = self.model.begin(self.images[chosen], episode.state.price)
        for action in episode.actions:
            state = self.model.advance(state, action)
        episode.state = state
        if episode.logits is not None:
            episode.logits = self.model.classify(state)

    def trace(self, index: int) -> list[tuple[bool, list[bool]]]:
        """What ran of image ``index`` of the batch: for each block so far, whether it did, and which filter groups."""
        return trace(self.model.decisions, (action[index] for action in self.episode.actions))

    def macs(self, index: int) -> int:
        """MACs billed for image ``index`` of the batch so far, with the head once it is classified."""
        episode = self.episode
        return int((episode.state.spent if episode.logits is None else self.model.total_macs(episode.state))[index])

    def _rewards(self, episode: Episode, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Task and cost parts, (B,) each, of the step that brings the bill to ``spent`` (B,)."""
        dense, zero, price = self.model.costs.dense, torch.zeros_like(spent), episode.state.price.double()
        by_step = self.reward.pays_by_step
        cost = -price * (spent - episode.paid) / dense if by_step else torch.zeros_like(spent)
        if episode.logits is None:
            return zero, cost
        judged = judge(episode.logits, episode.labels).double()
        task = self.reward(judged, zero, price)
        # Called where steps have paid, too: its real share may show that a function is not linear, which raises.
        whole = self.reward(judged, spent / dense, price)
        return task, cost if by_step else whole - task

    def _potentials(self, state: State, labels: Tensor) -> Tensor:
        """The reward's potential of images whose labels (B,) are those, (B,): 0 after the last block."""
        if not self.reward.has_potential or state.block == self.model.depth:
            return torch.zeros_like(state.spent)
        probes = judge(self.model.observe(state).probe_logits, labels)
        return self.reward.potential(probes.double().log_prob)

    def _infos(self, spent: Tensor) -> Infos:
        episode = self.episode
        return {
            "index": episode.indices.copy(),
            "label": to_numpy(episode.labels).copy(),
            "macs": to_numpy(spent.long()),
            "macs_ratio": to_numpy(spent / self.model.costs.dense),
            "kept_blocks": to_numpy(episode.ran).copy(),
        }

    def _check_actions(self, actions: ArrayLike) -> Tensor:
        given = np.array(actions, dtype=np.float32)
        right = (len(self.episode.indices), self.model.action_size)
        if given.shape != right:
            raise ValueError(f"actions must have shape {right}, got {given.shape}")
        if not np.isin(given, (0, 1)).all():
            raise ValueError("actions must be 0 (drop) or 1 (keep)")
        return torch.from_numpy(given).to(self.device)

    def _eval(self) -> None:
        # Whoever fine-tunes the model between two steps leaves it in training mode.
        if self.model.training:
            self.model.eval()


def check_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> Mapping[str, Any]:
    """The options of a reset, which may be none.

    Raises:
        UserError: for one that is not known, which would else be ignored.
    """
    for name in options or {}:
        if name not in known:
            raise unknown_name("reset option", str(name), known)
    return options or {}
