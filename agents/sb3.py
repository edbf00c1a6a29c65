"""stable-baselines3's PPO and A2C around L-Net and C-Net, with the backbone fine-tuned between rollouts.

The environment is the native vector one; the policy is the gates (``agents.gate_policy``). Between two rollouts a
callback trains backbone, scales and probes by cross-entropy on decisions sampled from the policy, and then lets the
environment begin anew, as its features are stale.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.centering import IMAGES, center
from agents.finetune import OnValidation
from agents.gate_policy import GatePolicy
from agents.sb3_config import A2CConfig, PPOConfig
from agents.sb3_finetuning import JointFinetuning
from envs.sb3 import SB3VecEnv
from envs.vector import VECTOR_ENVS
from lcnet_rl.budget import Measurement
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import recalibrate
from lcnet_rl.interrupt import Interrupted, deferred_interrupt
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.model import LCNet
from lcnet_rl.progress import Progress
from lcnet_rl.runs import CHECKPOINT, MODEL, restoring, resumable, resume_command
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.weights import save_model


def train_sb3(
    model: LCNet,
    config: PPOConfig | A2CConfig,
    setup: TrainingSetup,
    state: dict[str, Any] | None = None,
    on_validation: OnValidation | None = None,
) -> None:
    """Train ``model`` in place with PPO or A2C; checkpoints, logs and the final model go to the run folder.

    Args:
        model: with the weights to start from.
        config: the settings; their type decides the algorithm.
        setup: images (for training, of episodes and of fine-tuning), run folder, seed, device and teacher.
        state: the run's checkpoint, to go on from.
        on_validation: called after every validation; what it raises ends the training.

    Raises:
        UserError: when the policy stops being a number, where the run's checkpoint is the last good one, or when
            ``state`` is of another network or version.
        Interrupted: after Ctrl-C, with the checkpoint saved.
        KeyboardInterrupt: after Ctrl-C while the finished run is validated; its files are whole.
    """
    env = SB3VecEnv(
        VECTOR_ENVS[model.spec.decides](
            config.num_envs, dataset=setup.train, model=model, reward=config.reward, price=0.0, device=str(setup.device)
        )
    )
    algorithm = create_algorithm(env, model, config, setup.seed, setup.device)
    with restoring(setup.run / CHECKPOINT):
        begun, rollouts = (state["timesteps"], state["rollouts"]) if state is not None else (0, 0)
    log = MetricsLog(setup.run, resume_at=None if state is None else begun)
    algorithm.set_logger(Logger(folder=None, output_formats=[_Writer(log, rollouts)]))
    with (
        closing(log),
        resumable("train", setup.run),
        deferred_interrupt() as interrupt,
        Progress(type(algorithm).__name__.lower(), config.timesteps, begun) as bar,
    ):
        joint = JointFinetuning(model, config, setup, log, bar, interrupt, on_validation)

        def stop() -> Interrupted:
            return Interrupted(resume_command("train", setup.run), joint.saved_at, config.timesteps)

        joint.init_callback(algorithm)
        if state is not None:
            joint.restore(state)
        joint.warm_up()
        left = config.timesteps - algorithm.num_timesteps
        if left > 0:
            algorithm.learn(left, callback=joint, log_interval=1, reset_num_timesteps=state is None)
        if joint.stopped:
            raise stop()
        if left > 0:
            algorithm.logger.dump(algorithm.num_timesteps)  # of the last update
        joint.save()  # of before the centring, so that to resume a finished run changes nothing
        if interrupt.requested:  # in the last rollout
            raise stop()
        model.price.fill_(joint.pricing.value)
        if joint.pricing.target is not None:  # met while sampling so far, which is not the greedy share
            bar.note("measuring what greedy decisions spend")
            val, precision = setup.val.sample(IMAGES), config.precision
            measurement = Measurement(
                setup.train, val, setup.device, precision=precision, images=IMAGES, each=lambda: bar.advance(0)
            )
            center(model, measurement, joint.pricing.target)
        if interrupt.requested:  # meanwhile
            raise stop()
        recalibrate(model, setup.train, model.greedy(), setup.device, prices=joint.pricing.now)
        save_model(model, setup.run / MODEL)
        joint.validate(calibrated=True)
        if interrupt.requested:  # this run is done; what would come after it is not wanted
            raise KeyboardInterrupt


def create_algorithm(
    env: SB3VecEnv, model: LCNet, config: PPOConfig | A2CConfig, seed: int, device: torch.device
) -> OnPolicyAlgorithm:
    """PPO or A2C, by the type of ``config``, with the gates as its policy; rewards are not discounted.

    ``model`` is that of ``env``. The algorithm's ``save`` copies it into the file, and what ``load`` returns decides
    with that copy, which ``env`` never sees, unless it is given the network: ``load(file, env=env,
    custom_objects={"policy_kwargs": {"lcnet": model}})`` restores the keep layers of the gates of ``model``, and
    nothing else of it.
    """
    common: dict[str, Any] = {
        "policy": GatePolicy,
        "env": env,
        "learning_rate": config.gate_lr,
        "n_steps": config.episodes * model.depth,
        "gamma": 1.0,
        "gae_lambda": config.gae_lambda,
        "ent_coef": config.entropy,
        "vf_coef": config.value_weight,
        "max_grad_norm": config.max_grad_norm,
        "policy_kwargs": {"lcnet": model},
        "stats_window_size": config.num_envs * config.episodes,  # a rollout's, so that no longer memory has to be saved
        "seed": seed,
        "device": device,
    }
    if isinstance(config, PPOConfig):
        return PPO(
            **common,
            batch_size=minibatch(config, model.depth),
            n_epochs=config.passes,
            clip_range=config.clip,
            target_kl=config.target_kl,
        )
    return A2C(**common, use_rms_prop=False)


def minibatch(config: PPOConfig, depth: int) -> int:
    """Rows of PPO's minibatches, for a network of ``depth`` blocks.

    Raises:
        UserError: when the settings allow far smaller ones only than they ask for.
    """
    return largest_divisor(config.num_envs * config.episodes * depth, config.minibatch)


def largest_divisor(rows: int, most: int) -> int:
    """The largest divisor of ``rows`` up to ``most``: minibatches of one size, as PPO wants them.

    Raises:
        UserError: when that is a far smaller one.
    """
    divisor = max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)
    if divisor < 2 or 4 * divisor < min(rows, most):
        raise UserError(
            f"the {rows} rows of a rollout divide into minibatches of {divisor} at most, not of {most} or nearly so: "
            "choose another --num-envs or --minibatch"
        )
    return divisor


class _Writer(KVWriter):
    """stable-baselines3's scalars, into the run's own log."""

    def __init__(self, log: MetricsLog, done: int) -> None:
        """Write to ``log``, where ``done`` iterations were logged before."""
        self._log, self._done = log, done

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        scalars = {
            name: float(value) for name, value in key_values.items() if isinstance(value, int | float | np.number)
        }
        scalars.pop("time/total_timesteps", None)
        if "time/iterations" in scalars:
            scalars["time/iterations"] += self._done
        self._log.write(step, scalars)

    def close(self) -> None:
        """Nothing: the log is closed by whoever opened it."""
