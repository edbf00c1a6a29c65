"""Between a stable-baselines3 algorithm's rollouts: fine-tune the backbone, move the price, validate, save."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents.alarms import warn_if_missed
from agents.deciders import drawn, random_keeps
from agents.finetune import Finetuner, OnValidation
from agents.pricing import Pricing
from agents.random_state import get_random_state, set_random_state
from agents.rollout import sample
from agents.sb3_config import SB3Config
from agents.validation import Validation
from envs.sb3 import SB3VecEnv
from lcnet_rl.batchnorm import restored_statistics
from lcnet_rl.device import autocast
from lcnet_rl.errors import diverged
from lcnet_rl.interrupt import Interrupt, Interrupted
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.model import LCNet
from lcnet_rl.progress import Progress
from lcnet_rl.runs import CHECKPOINT, restoring, resume_command
from lcnet_rl.seeds import Stream
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import save_tree
from lcnet_rl.weights import are_finite


class JointFinetuning(BaseCallback):
    """Between rollouts: fine-tune the backbone, begin new images, move the price, validate, save."""

    def __init__(
        self,
        model: LCNet,
        config: SB3Config,
        setup: TrainingSetup,
        log: MetricsLog,
        bar: Progress,
        interrupt: Interrupt,
        on_validation: OnValidation | None,
    ) -> None:
        super().__init__()
        self.lcnet, self.config, self.setup = model, config, setup
        self.finetuner = Finetuner(model, config, setup.teacher)
        self.batches = setup.batches(config.batch_size, config.augmentation)
        self.rollout_timesteps = config.num_envs * config.episodes * model.depth
        self.pricing = Pricing(config, model, config.integral_share * config.timesteps / self.rollout_timesteps)
        self.step, self.rollouts_done = 0, 0
        self.validation = Validation(model, config, setup)
        self.log, self.bar, self.interrupt, self.on_validation = log, bar, interrupt, on_validation
        self._shares: list[float] = []
        self._random_state: dict[str, Any] = {}
        self._pending: dict[str, float] = {}
        self.saved_at = self._begun_at = -1
        self.stopped = False

    def warm_up(self) -> None:
        """Teach the backbone to live with random skips, as far as that is not done.

        Raises:
            Interrupted: after Ctrl-C, with the checkpoint saved.
        """
        if self.step == self.rollouts_done == 0:
            self.save()
        while self.step < self.config.warmup_steps:
            generator = self.setup.generator(self.step, Stream.DECISIONS)
            self.finetune_step(generator, random_decisions=True)
            self.bar.note(f"warm-up {self.step}/{self.config.warmup_steps}")
            self.bar.advance(0)
            if self.interrupt.requested:
                self.save()
                raise Interrupted(resume_command("train", self.setup.run), 0, self.config.timesteps)

    def finetune_step(self, generator: torch.Generator, random_decisions: bool = False) -> None:
        """One step of backbone, scales and probes on decisions sampled from the policy, or at random in the warm-up.

        They are those at the price that a model saved now decides at; on the way to a target, rollouts read more.
        """
        images, labels = self.batches(self.step)
        model, config = self.lcnet, self.config
        prices = self.pricing.draw(len(images), self.setup.generator(self.step, Stream.PRICES))
        decide = random_keeps(config.warmup_keep, generator) if random_decisions else drawn(generator)
        model.train()
        with autocast(self.setup.device, config.precision):
            rollout = sample(model, images, prices, 1, 0.0, decide)
            loss = self.finetuner.task_loss(images, labels, rollout)
        loss = loss + self.finetuner.probe_loss(labels, rollout)
        self.finetuner.zero_grad()
        loss.backward()
        norm = self.finetuner.clip()
        if not math.isfinite(float(loss.detach()) + norm):
            raise diverged(f"the loss of step {self.step}", f"--lr ({config.lr:g})")
        self.finetuner.step(factor=1.0 - 0.9 * min(1.0, self.done))
        model.eval()
        self.step += 1

    @property
    def done(self) -> float:
        """Share of the timesteps that are behind us."""
        return self.num_timesteps / self.config.timesteps

    def ramped(self, to_come: int = 0) -> float:
        """How far the price's ramp has come, in [0, 1], after ``to_come`` more timesteps."""
        done = (self.num_timesteps + to_come) / self.config.timesteps
        return min(1.0, done / max(self.config.ramp, 1e-9))

    def _on_rollout_start(self) -> None:
        env = self.training_env
        assert isinstance(env, SB3VecEnv)
        self._begun_at = self.num_timesteps
        self.pricing.ramp(self.ramped(self.rollout_timesteps))
        self.lcnet.price.fill_(self.pricing.value)
        if self._random_state:
            set_random_state(env, self._random_state)
            self._random_state = {}
            for name, value in self._pending.items():
                self.logger.record(name, value)
        else:
            # Here the last update is done and nothing of the next has begun, so this state can be gone on from exactly.
            due = self.rollouts_done % self.config.eval_every == 0
            if due and self.rollouts_done:
                self.validate()
            if due or self.interrupt.requested:
                self.save()
        if self.rollouts_done:
            for _ in range(self.config.finetune):
                self.finetune_step(self.setup.generator(self.step, Stream.DECISIONS))
        # Every rollout begins with new images: the old ones' features, and their price, are out of date.
        env.env.process.prices = self.pricing.charged
        self.model._last_obs = env.reset()  # type: ignore[assignment]
        self._shares = []

    def _on_step(self) -> bool:
        if self.interrupt.requested and self.saved_at == self._begun_at:
            self.stopped = True
            return False
        for info in self.locals["infos"]:
            if "episode" in info:
                self._shares.append(info["macs_ratio"])
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts_done += 1
        share = float(np.mean(self._shares))
        self.pricing.learn(share, self.ramped(), last=self.done >= 1)
        if self.done >= 1:
            warn_if_missed(share, self.pricing.target)
        self.logger.record("rollout/macs_ratio", share)
        self.logger.record("train/price", self.pricing.value)
        self.bar.note(f"{share:.1%} of MACs, price {self.pricing.now}")
        self.bar.advance(self.rollout_timesteps)

    def validate(self, calibrated: bool = False) -> None:
        """Log a validation; see ``agents.validation``."""
        self.check_weights()
        settled = self.done >= self.config.ramp
        # A rollout sees the features that training left, validated or not.
        with restored_statistics(self.lcnet.norms()):
            scalars = self.validation.validate(self.pricing.now, self.num_timesteps, settled, calibrated)
        self.log.write(self.num_timesteps, scalars)
        if self.on_validation:
            self.on_validation(1.0 if calibrated else self.done, scalars)

    def check_weights(self) -> None:
        """Raise UserError if a weight is not a number: it is neither to be saved nor to be called the best."""
        if not (are_finite(self.lcnet) and are_finite(self.model.policy)):
            config = self.config
            raise diverged("a weight", f"--lr ({config.lr:g})", f"--gate-lr ({config.gate_lr:g})")

    def save(self) -> None:
        """Write the checkpoint: everything that the next rollout depends on.

        Raises:
            UserError: when a weight is not a number.
        """
        env = self.training_env
        assert isinstance(env, SB3VecEnv)
        self.check_weights()
        policy = self.model.policy
        state = {
            "model": self.lcnet.state_dict(),
            "policy": policy.state_dict(),
            "optimizer": policy.optimizer.state_dict(),
            "finetuner": self.finetuner.state(),
            "pricing": self.pricing.state(),
            "step": self.step,
            "rollouts": self.rollouts_done,
            "timesteps": self.num_timesteps,
            "best": self.validation.state(),
            "random": get_random_state(env),
            "updates": self.model._n_updates,
            "pending": {name: float(value) for name, value in self.logger.name_to_value.items()},
        }
        save_tree(state, self.setup.run / CHECKPOINT)
        self.saved_at = self.num_timesteps

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint, once the algorithm is known (``init_callback``).

        Raises:
            UserError: when it is of another network or version.
        """
        algorithm = self.model
        with restoring(self.setup.run / CHECKPOINT):
            self.lcnet.load_state_dict(state["model"])
            algorithm.policy.load_state_dict(state["policy"])
            algorithm.policy.optimizer.load_state_dict(state["optimizer"])
            self.finetuner.restore(state["finetuner"])
            self.pricing.restore(state["pricing"])
            self.step, self.rollouts_done = state["step"], state["rollouts"]
            algorithm.num_timesteps = self.num_timesteps = state["timesteps"]
            self.validation.restore(state["best"])
            algorithm._n_updates, self._pending = state["updates"], state["pending"]
            # Before the first rollout, those that the seed gives are the right ones.
            self._random_state = state["random"] if self.rollouts_done else {}
