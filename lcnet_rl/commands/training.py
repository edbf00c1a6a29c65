"""A run folder of ``lcnet-rl train``: made, filled by training, and gone on with."""

from __future__ import annotations

from pathlib import Path

import torch

from agents.alarms import warn_if_price_is_idle
from agents.finetune import OnValidation
from agents.reinforce import Reinforce
from agents.reinforce_config import Schedule
from agents.rivals.blockdrop import BlockDrop
from agents.rivals.convnet_aig import ConvNetAIG
from agents.rivals.skipnet import SkipNet
from agents.sb3 import train_sb3
from lcnet_rl import ENVIRONMENTS
from lcnet_rl.backbones import Backbone
from lcnet_rl.commands.building import check, put_gates, starting_agent
from lcnet_rl.commands.train_settings import AnyTrain, TrainReinforce
from lcnet_rl.data import Dataset
from lcnet_rl.data.sampler import full_batches, warn_if_few
from lcnet_rl.device import warn_if_slow
from lcnet_rl.job import by_main, from_main
from lcnet_rl.metrics_log import last_validation
from lcnet_rl.progress import say
from lcnet_rl.runs import MODEL, START, TEACHER, create_run, load_checkpoint
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.unchanged import check_knows, warn_if_changed
from lcnet_rl.weights import load_backbone, save_backbone

AGENTS: dict[str, type[Reinforce]] = {agent.algo: agent for agent in (Reinforce, BlockDrop, SkipNet, ConvNetAIG)}
"""The joint trainer and those of rivals."""


def start_run(
    config: AnyTrain,
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    device: torch.device,
    on_validation: OnValidation | None = None,
) -> Path:
    """Make a run folder for training from ``backbone``, and train; returns the folder."""
    for network in map(Path, filter(None, (config.init, config.second, config.teacher))):
        check_knows(network, train)
        by_main(warn_if_changed)(network, train)
    # Faulty settings are refused before there is a folder that a corrected command would find taken.
    check(config, backbone)
    teacher = load_backbone(config.teacher, classes=len(train.classes)) if config.teacher else backbone
    an_epoch = full_batches(train, config.agent.batch_size)
    steps = Schedule.of(config.agent, an_epoch).total if isinstance(config, TrainReinforce) else None
    where = config.runs, ENVIRONMENTS[config.decides], config.algo, config.seed
    folder = from_main(lambda: create_run(*where, config, config.run, train))
    by_main(save_backbone)(backbone, folder / START)
    if config.teacher:
        by_main(save_backbone)(teacher, folder / TEACHER)
    say(f"run folder: {folder}")
    by_main(warn_if_price_is_idle)(config.agent.reward)
    if steps is not None:
        by_main(warn_if_few)(steps, an_epoch, "--batch-size, --epochs")
    train_agent(config, backbone, TrainingSetup(train, val, folder, config.seed, device, teacher), on_validation)
    return folder


def train_agent(
    config: AnyTrain, backbone: Backbone, setup: TrainingSetup, on_validation: OnValidation | None = None
) -> None:
    """Train ``config.agent`` around ``backbone`` in an existing run folder, from its checkpoint where it has one."""
    by_main(warn_if_slow)(config.agent.precision, setup.device)
    resume = config.resume is not None
    model = put_gates(config, backbone) if resume else starting_agent(config, backbone)
    if isinstance(config, TrainReinforce):
        agent = AGENTS[config.algo](model, config.agent, setup)
        if resume:
            agent.restore()
            total = agent.schedule.total
            if not goes_on(setup.run, agent.step, total, "steps", agent.timesteps(total)):
                return
        agent.train(on_validation)
    else:
        state, total = load_checkpoint(setup.run) if resume else None, config.agent.timesteps
        if state is not None and not goes_on(setup.run, state.get("timesteps", 0), total, "timesteps", total):
            return
        train_sb3(model, config.agent, setup, state, on_validation)


def goes_on(folder: Path, at: int, total: int, unit: str, timesteps: int) -> bool:
    """Say from where on a run goes on, or that it is finished; returns whether it goes on.

    Args:
        folder: of the run.
        at: where its checkpoint is, of ``total``.
        total: where it ends.
        unit: what ``at`` and ``total`` count.
        timesteps: until its end, as its log counts them.
    """
    finished = (folder / MODEL).is_file() and last_validation(folder) >= timesteps
    said = (
        f"{folder} is finished: {total:,} {unit}"
        if finished
        else f"going on with {folder} at {at:,} of {total:,} {unit}"
    )
    say(said)
    return not finished
