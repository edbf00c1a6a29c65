"""Settings of the joint policy-gradient agent: the command line, presets and config.yaml are these fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from agents.estimators import Baseline, ControlVariate, CostGradient
from agents.pricing import PricingConfig
from lcnet_rl.errors import UserError
from lcnet_rl.rewards import create_reward, is_linear, is_smooth
from lcnet_rl.settings import check_values


@dataclass(frozen=True)
class ReinforceConfig(PricingConfig):
    """Three phases: ``warmup``, in which the backbone learns to live with random skips; policy and backbone together;
    and ``polish``, in which the backbone settles on the greedy decisions."""

    epochs: float = 12.0
    """Passes over the training images, all phases together."""
    rollouts: int = 2
    """Policy rollouts per image and step; two or more give a leave-one-out baseline."""
    warmup: float = 0.15
    """Share of the steps spent with random skips before the policy learns."""
    polish: float = 0.3
    """Share of the steps spent on the greedy decisions at the end."""
    baseline: Baseline = "leave-one-out"
    """leave-one-out, batch-mean, self-critical (the greedy pass), or mean-field."""
    cost_gradient: CostGradient = "exact"
    """exact: differentiate each step's expected cost; sampled: reinforce it."""
    control_variate: ControlVariate = "none"
    """first-order: split off the reward's linear part around a mean-field pass (MuProp, Q-Prop)."""
    entropy: float = 0.01
    """Bonus on the decisions' mean entropy, per nat."""
    information: float = 0.03
    """Bonus on the mutual information between image and decision, per nat; against one decision for all images."""
    bound: float = 0.03
    """Keep probabilities stay in [bound, 1 - bound] while sampling, so exploration never ends."""
    gate_lr: float = 2e-3
    """Learning rate of the keep decisions (Adam), until the ramp's end; then it falls, to 0 where --polish begins."""
    gate_weight_decay: float = 0.0
    """L2 penalty on the weights of the gates' keep layers, against overfitting where training images are few."""
    log_every: int = 20
    """Steps between rows of the log."""
    save_every: int = 200
    """Steps between checkpoints."""
    evals: int = 8
    """Validations, evenly spread over the run. Those in the second half of polishing also hold the decisions to what
    they are to spend, so their number is part of the training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline == "leave-one-out" and self.rollouts < 2:
            raise UserError(
                "baseline leave-one-out compares rollouts of an image: use --rollouts 2 or another --baseline"
            )
        if self.baseline == "batch-mean" and self.rollouts * self.batch_size < 2:
            raise UserError(
                "baseline batch-mean compares images: use a --batch-size of 2 or more, or another --baseline"
            )
        first_order = self.control_variate == "first-order" or self.baseline == "mean-field"
        reward = create_reward(self.reward)
        if first_order and not is_smooth(reward):
            raise UserError(
                f"reward {self.reward} has no finite gradient by what it judges: use --control-variate none, and "
                "--baseline batch-mean instead of mean-field"
            )
        if self.cost_gradient == "exact" and not reward.pays_by_step:
            if is_linear(reward):
                raise UserError(
                    f"reward {self.reward} does not say that it pays by step: set pays_by_step = True in its class, or "
                    "use --cost-gradient sampled"
                )
            raise UserError(f"reward {self.reward} is not task - price * share: use --cost-gradient sampled")
        check_values(self, lambda value: value >= 1, "be at least 1", "rollouts", "log_every", "save_every", "evals")
        check_values(self, lambda value: value > 0, "be > 0", "epochs", "gate_lr")
        check_values(self, lambda value: value >= 0, "be >= 0", "entropy", "information", "gate_weight_decay")
        check_values(self, lambda value: 0 <= value <= 1, "be in [0, 1]", "warmup", "polish")
        check_values(self, lambda value: 0 <= value < 0.5, "be in [0, 0.5)", "bound")
        if self.warmup + self.polish >= 1:
            raise UserError("warmup and polish leave no steps for the policy: their sum must be below 1")

    @property
    def always_kept(self) -> float:
        """The bound, as the price is moved by what rollouts spend."""
        return self.bound


def refuse_unused(config: ReinforceConfig, algo: str, names: Iterable[str]) -> None:
    """Refuse settings that ``algo`` does nothing with, so that nobody thinks that they have an effect.

    Raises:
        UserError: when one of ``names`` is set to another value than its default.
    """
    defaults = {field.name: field.default for field in fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise UserError(f"{algo} has no use for --{name.replace('_', '-')}: leave it out")


@dataclass(frozen=True)
class Schedule:
    """When each phase begins, in steps."""

    total: int
    policy: int
    """First step on which the policy learns."""
    polish: int
    """First step of greedy decisions."""
    ramp: int
    """Steps over which price or target ramp, from ``policy`` on."""
    integral: int
    """Steps over which a target's controller gathers what is overspent; see ``PricingConfig.integral_share``."""

    @staticmethod
    def of(config: ReinforceConfig, steps_per_epoch: int) -> Schedule:
        """The schedule of ``config``; however few the steps are, one is the policy's."""
        total = max(1, round(config.epochs * steps_per_epoch))
        policy = min(round(config.warmup * total), total - 1)
        polish = max(round((1 - config.polish) * total), policy + 1)
        ramp, integral = (max(1, round(share * (polish - policy))) for share in (config.ramp, config.integral_share))
        return Schedule(total, policy, polish, ramp, integral)

    @property
    def middle_of_polish(self) -> float:
        """From here on, features move slowly enough for greedy decisions to be held to the target once more."""
        return (self.polish + self.total) / 2

    def ramped(self, step: int) -> float:
        """How far the ramp has come, in [0, 1]."""
        return min(1.0, max(0.0, (step + 1 - self.policy) / self.ramp))

    def settling(self, step: int) -> float:
        """Factor on how fast the policy moves: 1 up to the ramp's end, then falling linearly to 0 at ``polish``.

        Adam moves every weight by the same amount, however noisy its gradient; only a falling rate averages that out.
        """
        ramped = self.policy + self.ramp
        return min(1.0, max(0.0, (self.polish - step) / max(1, self.polish - ramped)))
