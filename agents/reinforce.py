"""The joint agent: policy gradients for the keep decisions, back-propagation for backbone and scales, in the same step.

REINFORCE (Williams, 1992) with the variance taken out where the problem allows it; see ``agents.estimators``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from agents.alarms import warn_if_missed
from agents.centering import IMAGES, center
from agents.deciders import Chooser, drawn, greedy_keeps, random_keeps
from agents.estimators import decision_information, policy_entropy, policy_loss
from agents.finetune import Finetuner, OnValidation
from agents.pricing import Pricing
from agents.reinforce_config import ReinforceConfig, Schedule
from agents.rollout import Rollout, mean_field, sample
from agents.validation import Validation
from agents.window import Window
from lcnet_rl import distributed, job
from lcnet_rl.batchnorm import prepare
from lcnet_rl.budget import Measurement
from lcnet_rl.device import autocast
from lcnet_rl.errors import UserError, diverged
from lcnet_rl.evaluate import recalibrate
from lcnet_rl.interrupt import Interrupted, deferred_interrupt
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.model import LCNet
from lcnet_rl.optim import decayed, triangle
from lcnet_rl.progress import Progress
from lcnet_rl.rewards import create_reward, judge
from lcnet_rl.runs import CHECKPOINT, MODEL, load_checkpoint, restoring, resumable, resume_command
from lcnet_rl.seeds import Stream
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import save_tree
from lcnet_rl.weights import are_finite, save_model

DRIFT = 0.005
"""How far the share of dense MACs may move while polishing, without a target, before decisions are centred again."""


class Reinforce:
    """One training run; its state is what a checkpoint holds."""

    algo = "reinforce"

    def __init__(self, model: LCNet, config: ReinforceConfig, setup: TrainingSetup) -> None:
        """Prepare to train ``model`` in place.

        Args:
            model: with the weights to start from.
            config: the settings.
            setup: images, run folder, seed, device and teacher.
        """
        self.model, self.config, self.setup = model.to(setup.device), config, setup
        prepare(model)
        self.reward = create_reward(config.reward)
        self.batches = setup.batches(config.batch_size, config.augmentation)
        self.schedule = Schedule.of(config, self.batches.steps_per_epoch)
        self.finetuner = Finetuner(model, config, setup.teacher)
        policy = decayed(model.policy_parameters(), config.gate_weight_decay)
        self.gate_optimizer = torch.optim.Adam(policy, lr=config.gate_lr)
        self.pricing = Pricing(config, model, self.schedule.integral)
        self.held: float | None = None
        self.step, self.resumed = 0, False
        self.validation = Validation(model, config, setup)
        self.window = Window()

    def train(self, on_validation: OnValidation | None = None) -> None:
        """Train from the current step to the end; checkpoints, logs and the final model go to the run folder.

        Args:
            on_validation: called after every validation; what it raises ends the training.

        Raises:
            UserError: when a loss, gradient or weight is no number (what is saved is), or a process is lost.
            Interrupted: after Ctrl-C, with the checkpoint saved.
            KeyboardInterrupt: after Ctrl-C while the finished run is validated; its files are whole.
        """
        config, schedule, run = self.config, self.schedule, self.setup.run
        log = MetricsLog(run, resume_at=self.timesteps(self.step) if self.resumed else None)
        eval_steps = {round(schedule.total * (i + 1) / config.evals) for i in range(config.evals - 1)}
        eval_steps -= {schedule.total}  # the end is validated in any case
        if self.step == 0:
            self.save()
        began, first = time.monotonic(), self.step
        with (
            closing(log),
            resumable("train", run),
            deferred_interrupt(twice_stops=job.world_size() == 1) as interrupt,
            Progress(self.algo, schedule.total, first) as bar,
        ):
            figures = ""

            def hold() -> None:
                bar.note("measuring what greedy decisions spend")
                self.hold_to_target(each=lambda: bar.advance(0))
                bar.note(figures)

            while self.step < schedule.total:
                if self.step == schedule.polish and config.polish:
                    hold()
                scalars = self.joint_step()
                self.step += 1
                if schedule.policy < self.step == schedule.polish:
                    warn_if_missed(self.policy_share(scalars["rollout/macs_ratio"]), self.pricing.target)
                stop = job.any_process(interrupt.requested)
                # What comes after the last step may take minutes, so that one is saved too.
                last = self.step == schedule.total
                due = self.step in eval_steps or self.step % config.save_every == 0 or stop or last
                if due:
                    self.check_weights()
                self.window.add(scalars)
                if self.step % config.log_every == 0 or last:
                    rate = self.timesteps(self.step - first) / (time.monotonic() - began)
                    log.write(self.timesteps(self.step), {**self.window.means(), "time/fps": rate})
                    figures = f"{scalars['rollout/macs_ratio']:.1%} of MACs, price {self.pricing.now}"
                    bar.note(figures)
                if self.step in eval_steps:
                    if self.step > schedule.middle_of_polish:
                        hold()
                    self.validate(log, on_validation)
                if due:
                    self.save()
                if stop:
                    raise Interrupted(resume_command("train", run), self.step, schedule.total)
                bar.advance()
            hold()
            if job.any_process(interrupt.requested):  # meanwhile
                raise Interrupted(resume_command("train", run), self.step, schedule.total)
            job.by_main(save_model)(self.model, run / MODEL)
            self.validate(log, on_validation, calibrated=True)
            if job.any_process(interrupt.requested):  # this run is done; what would come after it is not wanted
                raise KeyboardInterrupt

    def timesteps(self, step: int) -> int:
        """Blocks decided before ``step``, as the log counts them: of one rollout an image."""
        return step * self.config.batch_size * self.model.depth

    def joint_step(self) -> dict[str, float]:
        """Sample, score, update: one batch through policy, backbone, scales and probes.

        Returns:
            Scalars for the log, of the global batch.
        """
        config, model, schedule = self.config, self.model, self.schedule
        images, labels = self.batches(self.step)
        learning = schedule.policy <= self.step < schedule.polish
        if learning:
            self.pricing.ramp(schedule.ramped(self.step))
        prices = self.pricing.draw(len(images), self.setup.generator(self.step, Stream.PRICES))
        model.price.fill_(self.pricing.value)
        model.train()
        if model.policy and self.step >= schedule.polish:
            model.policy.eval()  # what it decides must not depend on the batch any more

        with autocast(self.setup.device, config.precision):
            rollout, policy_objective = self.collect(images, labels, prices, learning)
            task = self.finetuner.task_loss(images, labels, rollout)
        probe = self.finetuner.probe_loss(labels, rollout)
        loss = task + policy_objective
        if self.step < schedule.polish:
            # Later the decisions have to stay what the backbone settles on, so the probes, which gates read, stay too.
            loss = loss + probe
        updated = self.update(loss)

        outcome = self.outcome(rollout, labels, prices + self.pricing.push)
        if learning:
            self.learn_price(outcome["rollout/macs_ratio"])
        scalars = {
            **outcome,
            "train/task_loss": float(task.detach()),
            "train/policy_loss": float(policy_objective.detach()) if learning else 0.0,
            "train/probe_loss": float(probe.detach()) / model.depth,
            "train/entropy": float(policy_entropy(rollout).detach()),
            "train/information": float(decision_information(rollout).detach()),
            **updated,
            "train/price": self.pricing.value,
        }
        return distributed.mean_scalars(scalars)

    def update(self, loss: Tensor) -> dict[str, float]:
        """One step of all optimisers down the gradient of ``loss``, clipped; returns scalars of it.

        Raises:
            UserError: when the loss or a gradient is no number.
        """
        config, model = self.config, self.model
        if not math.isfinite(float(distributed.global_mean(loss.detach()))):
            raise self.diverged("the loss")
        self.finetuner.zero_grad()
        self.gate_optimizer.zero_grad()
        if loss.requires_grad:  # unless it is polishing, and nothing but the policy was to learn
            loss.backward()
            distributed.average_gradients(model.parameters())
        task_norm = self.finetuner.clip()
        policy_norm = float(torch.nn.utils.clip_grad_norm_(model.policy_parameters(), config.max_grad_norm))
        if not math.isfinite(task_norm + policy_norm):
            raise self.diverged("the gradient")
        factor = triangle(self.step, self.schedule.total, 0.1)
        self.finetuner.step(factor)
        for group in self.gate_optimizer.param_groups:
            group["lr"] = config.gate_lr * self.schedule.settling(self.step)
        self.gate_optimizer.step()
        return {
            "train/task_grad_norm": task_norm,
            "train/policy_grad_norm": policy_norm,
            "train/learning_rate": config.lr * factor,
        }

    def outcome(self, rollout: Rollout, labels: Tensor, charged: Tensor) -> dict[str, float]:
        """Scalars of what came of the batch's episodes, rewarded at the prices ``charged`` (B,)."""
        judged = judge(rollout.logits.detach(), labels)
        return {
            "rollout/ep_rew_mean": float(self.reward(judged, rollout.shares, charged.expand_as(rollout.shares)).mean()),
            "rollout/ep_len_mean": float(self.model.depth),
            "rollout/success_rate": float(judged.correct.mean()),
            "rollout/macs_ratio": float(distributed.global_mean(rollout.shares.mean())),
        }

    def collect(self, images: Tensor, labels: Tensor, prices: Tensor, learning: bool) -> tuple[Rollout, Tensor]:
        """Run the batch as this phase runs it; ``prices`` (B,) are those that the gates read.

        Returns:
            The passes whose executed paths train the backbone, and the policy's loss (0 outside the policy phase).
        """
        config, model = self.config, self.model
        generator = self.setup.generator(self.step, Stream.DECISIONS)
        zero = torch.zeros((), device=self.setup.device)
        if self.step < self.schedule.policy:
            return self.roll(images, prices, 1, random_keeps(config.warmup_keep, generator)), zero
        if not learning:
            return self.roll(images, prices, 1, greedy_keeps), zero
        field, greedy, charged = None, None, prices + self.pricing.push
        if config.control_variate == "first-order" or config.baseline == "mean-field":
            field = mean_field(model, images, labels, prices, self.reward, config.bound, charged)
        if config.baseline == "self-critical":
            with torch.no_grad(), model.statistics_frozen():
                greedy = self.roll(images, prices, 1, greedy_keeps)
            # Some versions of PyTorch would use the weights that this pass cast, without a graph, in the next one too.
            torch.clear_autocast_cache()
        rollout = self.roll(images, prices, config.rollouts, drawn(generator, config.rollouts), config.bound)
        estimator = (config.baseline, config.cost_gradient, field, greedy, config.control_variate)
        objective = policy_loss(rollout, labels, charged, self.reward, *estimator)
        bonus = config.entropy * policy_entropy(rollout) + config.information * decision_information(rollout)
        return rollout, objective - bonus

    def roll(self, images: Tensor, prices: Tensor, rollouts: int, decide: Chooser, bound: float = 0.0) -> Rollout:
        """Passes of this step over ``images``; see ``agents.rollout.sample``."""
        return sample(self.model, images, prices, rollouts, bound, decide)

    def policy_share(self, share: float) -> float:
        """The mean share of dense MACs of the policy, whose rollouts spent ``share``."""
        return share

    def learn_price(self, share: float) -> None:
        """With a target: move the price after a step whose rollouts spent ``share`` of the dense MACs."""
        last = self.step == self.schedule.polish - 1
        self.pricing.learn(share, self.schedule.ramped(self.step), last)

    def hold_to_target(self, each: Callable[[], object] = lambda: None) -> None:
        """Shift keep logits so that greedy decisions at 1/2 spend the target on validation images.

        All of them, or of several networks the last one's. Before polishing, as the sampled share is not the
        greedy one; at the validations of its second half and at the end, as features have moved since. Without
        a target they are held to what they spent before polishing.
        BatchNorm is left with the statistics of the greedy policy. ``each`` is called after every measurement.
        """
        model, setup, prices = self.model, self.setup, self.pricing.now
        model.price.fill_(self.pricing.value)
        precision, val = self.config.precision, setup.val.sample(IMAGES)
        measurement = Measurement(
            setup.train, val, setup.device, precision=precision, prices=prices, images=IMAGES, each=each
        )
        target = self.pricing.target
        if target is None:
            measurement.recalibrate(model)
            share = measurement.share(model)
            self.held = share if self.held is None else self.held
            target = self.held if abs(share - self.held) > DRIFT else None
        if target is not None:
            center(model, measurement, target, rounds=3)
        recalibrate(model, setup.train, model.greedy(), setup.device, prices=prices)

    def validate(self, log: MetricsLog, on_validation: OnValidation | None, calibrated: bool = False) -> None:
        """Log a validation, and tell of it; see ``agents.validation``."""
        settled = self.step - self.schedule.policy >= self.schedule.ramp
        scalars = self.validation.validate(self.pricing.now, self.step, settled, calibrated)
        log.write(self.timesteps(self.step), scalars)
        if on_validation:
            on_validation(self.step / self.schedule.total, scalars)

    def check_weights(self) -> None:
        """Raise UserError if a weight is not a number: it is neither to be saved nor to be called the best."""
        if job.any_process(not are_finite(self.model)):
            raise self.diverged("a weight")

    @job.by_main
    def save(self) -> None:
        """Write the checkpoint: everything that the next step depends on. Random states follow from the step."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "finetuner": self.finetuner.state(),
            "gates": self.gate_optimizer.state_dict(),
            "step": self.step,
            "pricing": self.pricing.state(),
            "held": self.held,
            "best": self.validation.state(),
            "window": self.window.state(),
        }
        save_tree(state, self.setup.run / CHECKPOINT)

    def restore(self) -> None:
        """Take up the run's checkpoint.

        Raises:
            UserError: when it is missing, damaged, or of another network or version.
        """
        state = load_checkpoint(self.setup.run)
        with restoring(self.setup.run / CHECKPOINT):
            self.model.load_state_dict(state["model"])
            self.finetuner.restore(state["finetuner"])
            self.gate_optimizer.load_state_dict(state["gates"])
            self.pricing.restore(state["pricing"])
            self.held = state["held"]
            self.step, self.resumed = state["step"], True
            self.validation.restore(state["best"])
            self.window.restore(state["window"])

    def diverged(self, what: str) -> UserError:
        """The error for a loss, gradient or weight that is not a number."""
        config = self.config
        return diverged(f"{what} of step {self.step}", f"--lr ({config.lr:g})", f"--gate-lr ({config.gate_lr:g})")
