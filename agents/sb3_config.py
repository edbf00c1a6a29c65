"""Settings of stable-baselines3's algorithms around the gates."""

from __future__ import annotations

from dataclasses import dataclass

from agents.pricing import PricingConfig
from lcnet_rl.errors import UserError
from lcnet_rl.settings import check_values


@dataclass(frozen=True)
class SB3Config(PricingConfig):
    """What PPO and A2C share. A rollout is ``episodes`` images in each of ``num_envs`` environments."""

    timesteps: int = 400_000
    """Environment steps (blocks decided), all environments together."""
    num_envs: int = 256
    """Images in lockstep."""
    episodes: int = 2
    """Images an environment classifies between two updates."""
    gate_lr: float = 1e-3
    """Learning rate of policy and critic (Adam)."""
    entropy: float = 0.003
    """Bonus on the entropy of an action, all bits together, per nat."""
    value_weight: float = 0.5
    """Weight of the critic's loss."""
    gae_lambda: float = 0.95
    """Generalised advantage estimation."""
    warmup_steps: int = 300
    """Steps in which the backbone learns to live with random skips, before the policy learns."""
    finetune: int = 4
    """Backbone steps on sampled decisions between two rollouts."""
    eval_every: int = 20
    """Rollouts between validations and checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(self, lambda v: v >= 1, "be at least 1", "timesteps", "num_envs", "episodes", "eval_every")
        check_values(self, lambda v: v >= 0, "be >= 0", "entropy", "value_weight", "warmup_steps", "finetune")
        check_values(self, lambda v: 0 <= v <= 1, "be in [0, 1]", "gae_lambda")
        check_values(self, lambda v: v > 0, "be > 0", "gate_lr")


@dataclass(frozen=True)
class PPOConfig(SB3Config):
    """Proximal policy optimisation (Schulman et al., 2017)."""

    minibatch: int = 1152
    """Rows of an optimiser step, at most; the largest divisor of a rollout's rows up to this is used."""
    passes: int = 4
    """Passes over each rollout."""
    clip: float = 0.2
    """Clip range of the probability ratio."""
    target_kl: float | None = 0.05
    """Stop the passes early once the policy has moved this far; ratios over many bits explode otherwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(self, lambda v: v >= 1, "be at least 1", "passes")
        check_values(self, lambda v: v >= 2, "be at least 2", "minibatch")
        check_values(self, lambda v: v > 0, "be > 0", "clip")
        if self.target_kl is not None and not self.target_kl > 0:
            raise UserError(f"target_kl must be > 0, or None for no limit, got {self.target_kl}")


@dataclass(frozen=True)
class A2CConfig(SB3Config):
    """Advantage actor-critic (Mnih et al., 2016)."""

    episodes: int = 1
    """Images an environment classifies between two updates."""
