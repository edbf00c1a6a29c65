"""``lcnet-rl train``: train a skipping agent, from the command line, a preset, or a run to go on with."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import torch

from agents.finetune import OnValidation
from agents.pricing import Pricing
from agents.reinforce import Reinforce
from agents.reinforce_config import Schedule
from agents.rivals.blockdrop import BlockDrop
from agents.rivals.convnet_aig import ConvNetAIG
from agents.rivals.skipnet import SkipNet
from agents.sb3 import minibatch, train_sb3
from agents.sb3_config import PPOConfig
from envs.process import ENV_IDS
from lcnet_rl.backbones import Backbone
from lcnet_rl.commands.train_settings import AnyTrain, TrainReinforce, TrainRival, parse
from lcnet_rl.data import Dataset, load_dataset
from lcnet_rl.data.sampler import TrainingBatches, warn_if_few
from lcnet_rl.device import check_seed
from lcnet_rl.distributed import by_main, from_main, joined, main_first, world_size
from lcnet_rl.errors import UserError
from lcnet_rl.gates import Gate, Standardize
from lcnet_rl.model import LCNet
from lcnet_rl.policies import PolicyName
from lcnet_rl.progress import console
from lcnet_rl.rewards import price_range
from lcnet_rl.runs import (
    MODEL,
    PROGRESS,
    START,
    TEACHER,
    check_same_data,
    create_run,
    load_checkpoint,
    warn_if_changed,
    warn_if_edited,
)
from lcnet_rl.second import start_unsure, with_second
from lcnet_rl.starting import is_agent, starting_networks
from lcnet_rl.weights import load_backbone, load_model, save_backbone

__all__ = ["check", "parse", "run", "start_run", "starting_backbone"]

AGENTS: dict[str, type[Reinforce]] = {agent.algo: agent for agent in (Reinforce, BlockDrop, SkipNet, ConvNetAIG)}
"""The joint trainer and those of rivals."""


def run(config: AnyTrain) -> None:
    """Train, or go on training, to the end; under torchrun, as one of its processes."""
    check_seed(config.seed)
    with joined(config.device) as device:
        run_on(config, device)


def run_on(config: AnyTrain, device: torch.device) -> None:
    """``run``, once it is clear where."""
    if world_size() > 1 and not isinstance(config, TrainReinforce):
        raise UserError(f"--algo {config.algo} trains in one process: start it without torchrun, or use reinforce")
    with main_first():
        train, val = (load_dataset(config.dataset, split, config.data_root) for split in ("train", "val"))
    torch.manual_seed(config.seed)
    folder, classes = config.resume, len(train.classes)
    backbone = load_backbone(str(folder / START), classes=classes) if folder else starting_backbone(config, classes)
    if world_size() > 1 and backbone.second:
        raise UserError("a network behind another one trains in one process: leave torchrun away")
    if folder is not None:
        check_same_data(folder, train)
        by_main(warn_if_edited)(folder, config)
        teacher = load_backbone(str(folder / TEACHER), classes=classes) if config.teacher else backbone
        train_agent(config, backbone, teacher, train, val, folder, device)
    else:
        folder = start_run(config, backbone, train, val, device)
    evaluation = f"lcnet-rl evaluate {quote(str(folder))}"
    console.print(f"done; now: {evaluation} --split val (without --split on test images, once chosen)", soft_wrap=True)


def start_run(
    config: AnyTrain,
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    device: torch.device,
    on_validation: OnValidation | None = None,
) -> Path:
    """Make a run folder for training from ``backbone``, and train; returns the folder."""
    for network in filter(None, (config.init, config.second, config.teacher)):
        by_main(warn_if_changed)(Path(network), train)
    # Faulty settings are refused before there is a folder that a corrected command would find taken.
    check(config, backbone)
    teacher = load_backbone(config.teacher, classes=len(train.classes)) if config.teacher else backbone
    an_epoch = TrainingBatches(train, config.agent.batch_size, config.seed).steps_per_epoch
    if isinstance(config, TrainReinforce):
        steps = Schedule.of(config.agent, an_epoch).total
        by_main(warn_if_few)(steps, an_epoch, "--batch-size, --epochs")
    env = ENV_IDS[config.decides].removeprefix("LCNet/").removesuffix("-v0")
    where = config.runs, env, config.algo, config.seed
    folder = from_main(lambda: create_run(*where, config, config.run, train))
    by_main(save_backbone)(backbone, folder / START)
    if config.teacher:
        by_main(save_backbone)(teacher, folder / TEACHER)
    console.print(f"run folder: {folder}", soft_wrap=True)
    train_agent(config, backbone, teacher, train, val, folder, device, on_validation)
    return folder


def check(config: AnyTrain, backbone: Backbone) -> None:
    """Refuse settings that can be refused without the data and the teacher."""
    check_seed(config.seed)
    agent = starting_agent(config, backbone)
    Pricing(config.agent, agent, 1.0)
    if isinstance(config.agent, PPOConfig):
        minibatch(config.agent, agent.depth)
    if config.teacher and not config.agent.distill:
        raise UserError("--teacher is learned with the weight --distill, which is 0")
    if config.teacher and not (config.agent.train_backbone or config.agent.train_scales):
        raise UserError("--teacher has no pupil: neither the backbone (--no-train-backbone) nor scales learn here")


def starting_backbone(config: AnyTrain, classes: int | None) -> Backbone:
    """The networks that --init names, or that a run of train which it names began with, and behind them --second.

    With ``classes`` None it may be for any number of them.
    """
    networks = starting_networks(config.init, config.dataset, config.backbone, config.width, classes)
    return put_second(config, networks)


def put_second(config: AnyTrain, first: Backbone) -> Backbone:
    """``first``, and behind its networks --second, where that is asked for."""
    if config.second is None:
        if config.second_weight != 1 or config.second_mirrored:
            raise UserError("--second-weight and --second-mirrored are of the network that --second names")
        return first
    second = load_backbone(config.second, classes=first.spec.classes)
    return with_second(first, second, config.second_weight, config.second_mirrored)


def put_gates(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``backbone``, which is copied, with the gates that ``config`` asks for."""
    if backbone.second is None and not config.second_rule:
        raise UserError(
            "give a --second network: --no-second-rule (also of the preset cifar10-second) is about the gate before it"
        )
    if config.second is not None and config.second_rule and not config.confidence:
        raise UserError("the rule of the gate before --second reads the confidence: give --no-second-rule too")
    model = LCNet(
        copy.deepcopy(backbone),
        config.decides,
        config.groups,
        config.agent.keep_bias,
        config.confidence,
        price_range(config.agent.price),
        cast(PolicyName, config.algo) if isinstance(config, TrainRival) else "lc",
    )
    if config.second_rule:
        start_unsure(model)
    return model


def starting_agent(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``put_gates``, with the weights of the agent that --init names, if it does; then --second's gate is a new one.

    The agent's own gates decide as before where they read the price that it was trained at, though the MACs spent are a
    smaller share where there is a --second. Training begins with its own: --price, or 0 where that has to rise first.

    Raises:
        UserError: when that is another kind of agent.
    """
    if not is_agent(config.init):
        return put_gates(config, backbone)
    trained = load_model(Path(config.init))
    model = put_gates(config, put_second(config, trained.backbone))
    alike: dict[str, Any] = {"backbone": backbone.spec, **({"groups": 0} if config.decides == "layers" else {})}
    specs = [replace(agent.spec, **alike) for agent in (trained, model)]
    theirs, asked = ({**vars(spec), "prices": spec.prices or "one"} for spec in specs)
    if other := [f"{name} {value}, not {asked[name]}" for name, value in theirs.items() if value != asked[name]]:
        raise UserError(f"{config.init} holds another kind of agent than was asked for: {'; '.join(other)}")
    own = {key: value for key, value in trained.state_dict().items() if not key.startswith("backbone.")}
    model.load_state_dict({**model.state_dict(), **own})
    share = trained.costs.dense / model.costs.dense
    for t, standardize in enumerate(model.standardizers[: trained.depth]):
        gates = [cast(Gate, gate) for gate in (*model.l_nets[t : t + 1], *model.c_nets[t : t + 1])]
        cast(Standardize, standardize).rescale_spent(share, gates)
    return model


def train_agent(
    config: AnyTrain,
    backbone: Backbone,
    teacher: Backbone,
    train: Dataset,
    val: Dataset,
    folder: Path,
    device: torch.device,
    on_validation: OnValidation | None = None,
) -> None:
    """Train ``config.agent`` around ``backbone`` in an existing run folder, from its checkpoint where it has one."""
    resume = config.resume is not None
    model = put_gates(config, backbone) if resume else starting_agent(config, backbone)
    if isinstance(config, TrainReinforce):
        agent = AGENTS[config.algo](model, config.agent, train, val, folder, config.seed, device, teacher)
        if resume:
            agent.restore()
            total = agent.schedule.total
            decisions = total * config.agent.batch_size * model.depth
            if not goes_on(folder, agent.step, total, "steps", decisions):
                return
        agent.train(on_validation)
    else:
        total = config.agent.timesteps
        if resume and not goes_on(folder, load_checkpoint(folder).get("timesteps", 0), total, "timesteps", total):
            return
        train_sb3(model, config.agent, train, val, folder, config.seed, device, resume, on_validation, teacher)


def goes_on(folder: Path, at: int, total: int, unit: str, decisions: int) -> bool:
    """Say from where on a run goes on, or that it is finished; returns whether it goes on.

    Args:
        folder: of the run.
        at: where its checkpoint is, of ``total``.
        total: where it ends.
        unit: what ``at`` and ``total`` count.
        decisions: until its end, as its log counts them.
    """
    finished = (folder / MODEL).is_file() and last_validation(folder) >= decisions
    said = (
        f"{folder} is finished: {total:,} {unit}"
        if finished
        else f"going on with {folder} at {at:,} of {total:,} {unit}"
    )
    console.print(said, soft_wrap=True, highlight=False)
    return not finished


def last_validation(folder: Path) -> int:
    """Decisions until the last row of a run's log, if that is a validation, which the final model gets too; else -1."""
    if not (folder / PROGRESS).is_file():
        return -1
    with (folder / PROGRESS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return int(rows[-1]["time/total_timesteps"]) if rows and rows[-1].get("eval/accuracy") else -1
