"""L-Net and C-Net as a stable-baselines3 policy: action logits from the gates, and a value head of its own."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from envs.observations import block_numbers, gate_features
from lcnet_rl.errors import UserError, diverged
from lcnet_rl.model import LCNet


class GatePolicy(MultiInputActorCriticPolicy):
    """An actor-critic policy whose actor is the keep layers of an LCNet's gates, shared with it, not copied.

    It has no file of its own: a run's checkpoint holds it, and ``lcnet_rl.weights.save_model`` writes the network with
    its gates. ``create_algorithm`` says how to load what an algorithm's ``save`` wrote.
    """

    def __init__(self, *args: Any, lcnet: LCNet, **kwargs: Any) -> None:
        """As ``MultiInputActorCriticPolicy``, and ``lcnet``, whose gates decide.

        Raises:
            UserError: for a ``net_arch``.
        """
        if "net_arch" in kwargs:
            raise UserError("GatePolicy takes no net_arch: gates are its actor, and the value has two layers of 64")
        # In a tuple, so that torch does not count the backbone among the policy's parameters.
        self._lcnet = (lcnet,)
        super().__init__(*args, **{**kwargs, "net_arch": {"pi": [], "vf": [64, 64]}})

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        (lcnet,) = self._lcnet
        self.action_net = nn.Identity()
        self.keeps = nn.ModuleList([gate.keep for gate in lcnet.gates()])
        options: dict[str, Any] = {**self.optimizer_kwargs, "lr": lr_schedule(1)}
        self.optimizer = self.optimizer_class(self.parameters(), **options)

    def save(self, path: str) -> None:
        """Nothing: what it wrote could not be loaded without the network.

        Raises:
            UserError: always.
        """
        raise UserError("GatePolicy decides with a network's gates: save that with lcnet_rl.weights.save_model")

    def keep_logits(self, obs: dict[str, Tensor]) -> Tensor:
        """Logits (rows, action_size) of observations that may be before different blocks.

        Raises:
            UserError: when a logit is not a number.
        """
        (lcnet,) = self._lcnet
        blocks = block_numbers(obs)
        logits = torch.zeros(len(blocks), lcnet.action_size, device=blocks.device)
        for block in blocks.unique().tolist():
            rows = (blocks == block).nonzero()[:, 0]
            features = gate_features(lcnet, {key: value[rows] for key, value in obs.items()}, block)
            logits = logits.index_copy(0, rows, lcnet.keep_logits(block, features))
        if not bool(logits.isfinite().all()):
            raise diverged("the policy", "--lr", "--gate-lr")
        return logits

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The gates' Bernoulli distribution of an action."""
        assert isinstance(obs, dict)
        return self.action_dist.proba_distribution(action_logits=self.keep_logits(obs))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (rows, action_size), values (rows, 1) and log-probabilities (rows,)."""
        assert isinstance(obs, dict)
        logits = self.keep_logits(obs)
        actions = self.action_dist.proba_distribution(action_logits=logits).get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), self._over_asked(obs, logits, actions)[0]

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (rows, 1), log-probabilities (rows,) and entropies (rows,) of given actions, over the gates asked."""
        assert isinstance(obs, dict)
        return self.predict_values(obs), *self._over_asked(obs, self.keep_logits(obs), actions)

    def _over_asked(self, obs: dict[str, Tensor], logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies, (rows,) each, of actions, over the gates that were asked.

        Other bits change nothing, and would only add noise to ratios.
        """
        (lcnet,) = self._lcnet
        decisions = torch.distributions.Bernoulli(logits=logits)
        asked = lcnet.decisions.consulted(actions, block_numbers(obs))
        return (decisions.log_prob(actions) * asked).sum(1), (decisions.entropy() * asked).sum(1)
