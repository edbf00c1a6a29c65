"""L-Net and C-Net as a stable-baselines3 policy: action logits from the gates, and a value head of its own."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from envs.observations import block_numbers, gate_features
from lcnet_rl.errors import diverged
from lcnet_rl.model import LCNet


class GatePolicy(MultiInputActorCriticPolicy):
    """An actor-critic policy whose actor is the keep layers of an LCNet's gates, shared with it, not copied."""

    def __init__(self, *args: Any, lcnet: LCNet, **kwargs: Any) -> None:
        """As ``MultiInputActorCriticPolicy``, and ``lcnet``, whose gates decide."""
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

    def consulted(self, obs: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Which bits (rows, action_size) were decisions; the others change nothing, and only add noise to ratios."""
        (lcnet,) = self._lcnet
        blocks = block_numbers(obs)
        asked = torch.zeros_like(actions)
        for block in blocks.unique().tolist():
            rows = (blocks == block).nonzero()[:, 0]
            asked[rows] = lcnet.decisions.consulted(actions[rows], block)
        return asked

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The gates' Bernoulli distribution of an action."""
        assert isinstance(obs, dict)
        return self.action_dist.proba_distribution(action_logits=self.keep_logits(obs))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (rows, action_size), values (rows, 1) and log-probabilities (rows,)."""
        actions = self.get_distribution(obs).get_actions(deterministic=deterministic)
        values, log_likelihood, _ = self.evaluate_actions(obs, actions)
        return actions, values, log_likelihood

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (rows, 1), log-probabilities (rows,) and entropies (rows,) of given actions, over the gates asked."""
        assert isinstance(obs, dict)
        decisions = torch.distributions.Bernoulli(logits=self.keep_logits(obs))
        asked = self.consulted(obs, actions)
        log_likelihood = (decisions.log_prob(actions) * asked).sum(1)
        return self.predict_values(obs), log_likelihood, (decisions.entropy() * asked).sum(1)
