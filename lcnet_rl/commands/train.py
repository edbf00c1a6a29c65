"""``lcnet-rl train``: train a skipping agent, from the command line, a preset, or a run to go on with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, cast

import torch
import tyro

from agents.finetune import OnValidation
from agents.pricing import Pricing
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from agents.rivals.blockdrop import BlockDrop, BlockDropConfig
from agents.rivals.convnet_aig import ConvNetAIG, ConvNetAIGConfig
from agents.rivals.skipnet import SkipNet, SkipNetConfig
from agents.sb3 import minibatch, train_sb3
from agents.sb3_config import A2CConfig, PPOConfig
from lcnet_rl.backbones import Backbone, create_backbone
from lcnet_rl.data import Dataset, load_dataset
from lcnet_rl.data.sampler import TrainingBatches
from lcnet_rl.device import check_seed, keep_freed_memory
from lcnet_rl.distributed import by_main, from_main, joined, main_first, world_size
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.model import LCNet
from lcnet_rl.policies import PolicyName
from lcnet_rl.progress import console
from lcnet_rl.rewards import price_range
from lcnet_rl.runs import CONFIG, START, TEACHER, create_run, read_config
from lcnet_rl.second import with_second
from lcnet_rl.settings import from_dict, read_preset
from lcnet_rl.spec import DEFAULT_GROUPS, Decides
from lcnet_rl.weights import PRETRAINED, load_backbone, load_model, pretrained, save_backbone

ENV_NAMES = {"layers": "LayerSkip", "channels": "ChannelSkip", "both": "LayerChannelSkip"}


@dataclass(frozen=True)
class Train:
    """Train an agent that decides per image which layers and filters run."""

    algo: str = "reinforce"
    """reinforce (the joint agent), ppo or a2c (stable-baselines3); or a rival: blockdrop, skipnet or convnet-aig."""
    preset: str | None = None
    """Start from these settings: a preset's name or a YAML file; further options override them."""
    resume: Path | None = None
    """Go on with this run, with its own settings."""
    dataset: str = "cifar10"
    """cifar10, shapes, or folder:PATH."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110, resnet18, resnet16-late, resnet14-wide or resnet11-pool."""
    width: int | None = None
    """Filters of the stem; the usual width when not given."""
    init: str = "auto"
    """Starting weights: a file, a pretrain run, akamaster, scratch, or auto (what comes with the project: for cifar10
    resnet20, resnet16-late, resnet14-wide, resnet11-pool, and resnet18 of width 32; for shapes resnet14 of width 8).
    Or a run of train, whose agent then goes on learning, with the settings of this one, and without --second."""
    second: str | None = None
    """A dense network that becomes one more layer behind the starting one, which L-Net runs, from the image on, for
    the images that need it: a file, a pretrain run, or akamaster."""
    teacher: str | None = None
    """A dense network whose soft labels are learned, with weight --distill, in the place of the starting one's: a file,
    a pretrain run, or akamaster."""
    decides: Decides = "both"
    """layers (L-Net), channels (C-Net), or both."""
    groups: int = DEFAULT_GROUPS
    """Filter groups a block, each kept or dropped as one; 0 decides every filter by itself."""
    confidence: bool = True
    """Whether the gates read how sure a linear probe on the pooled features is; it is billed where they do."""
    seed: int = 0
    """Decides everything random."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    data_root: Path | None = None
    """Where data sets are kept; by default LCNET_RL_DATA or the user's cache folder."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    run: Path | None = None
    """The run folder itself, instead of a new one under --runs."""


@dataclass(frozen=True)
class TrainReinforce(Train):
    """Train the joint policy-gradient agent."""

    agent: Annotated[ReinforceConfig, tyro.conf.arg(name="")] = field(default_factory=ReinforceConfig)


@dataclass(frozen=True)
class TrainPPO(Train):
    """Train stable-baselines3's PPO, with the backbone fine-tuned between its rollouts."""

    algo: str = "ppo"
    agent: Annotated[PPOConfig, tyro.conf.arg(name="")] = field(default_factory=PPOConfig)


@dataclass(frozen=True)
class TrainA2C(Train):
    """Train stable-baselines3's A2C, with the backbone fine-tuned between its rollouts."""

    algo: str = "a2c"
    agent: Annotated[A2CConfig, tyro.conf.arg(name="")] = field(default_factory=A2CConfig)


@dataclass(frozen=True)
class TrainRival(TrainReinforce):
    """Train a rival: it decides about layers only, and its gates read no confidence."""

    decides: Decides = "layers"
    confidence: bool = False


@dataclass(frozen=True)
class TrainBlockDrop(TrainRival):
    """Train BlockDrop's one-shot policy."""

    algo: str = "blockdrop"
    agent: Annotated[BlockDropConfig, tyro.conf.arg(name="")] = field(default_factory=BlockDropConfig)


@dataclass(frozen=True)
class TrainSkipNet(TrainRival):
    """Train SkipNet's recurrent gates with hybrid reinforcement learning."""

    algo: str = "skipnet"
    agent: Annotated[SkipNetConfig, tyro.conf.arg(name="")] = field(default_factory=SkipNetConfig)


@dataclass(frozen=True)
class TrainConvNetAIG(TrainRival):
    """Train ConvNet-AIG's gates through Gumbel noise, to target rates."""

    algo: str = "convnet-aig"
    agent: Annotated[ConvNetAIGConfig, tyro.conf.arg(name="")] = field(default_factory=ConvNetAIGConfig)


AnyTrain = TrainReinforce | TrainPPO | TrainA2C
ALGOS: dict[str, type[Any]] = {
    "reinforce": TrainReinforce,
    "ppo": TrainPPO,
    "a2c": TrainA2C,
    "blockdrop": TrainBlockDrop,
    "skipnet": TrainSkipNet,
    "convnet-aig": TrainConvNetAIG,
}
AGENTS: dict[str, type[Reinforce]] = {
    "reinforce": Reinforce,
    "blockdrop": BlockDrop,
    "skipnet": SkipNet,
    "convnet-aig": ConvNetAIG,
}
"""The joint trainer and those of rivals."""


def parse(arguments: Sequence[str], prog: str) -> AnyTrain:
    """Settings from the command line, over those of --preset or the run to --resume."""
    resume, preset, algo = (_option(arguments, name) for name in ("--resume", "--preset", "--algo"))
    values: dict[str, Any] = {}
    if resume is not None:
        values = read_config(Path(resume))
        if "agent" not in values:
            raise UserError(f"{resume} trains a dense backbone; to go on: lcnet-rl pretrain --resume {quote(resume)}")
    elif preset is not None:
        values = read_preset(preset)
    algo = algo or values.get("algo", "reinforce")
    if algo not in ALGOS:
        raise unknown_name("algo", algo, ALGOS)
    if values.get("algo", algo) != algo:
        raise UserError(f"{resume or preset} is for --algo {values['algo']}, not {algo}")
    kind = ALGOS[algo]
    default = from_dict(kind, values, resume or preset or "settings")
    config = tyro.cli(kind, args=list(arguments), prog=prog, default=default)
    if resume is not None and _elsewhere(config, default) != default:
        raise UserError(
            f"--resume goes on with the settings in {Path(resume) / CONFIG}; leave options other than --device and "
            "--data-root away"
        )
    return config


def _elsewhere(config: AnyTrain, default: AnyTrain) -> AnyTrain:
    """``config``, but for the settings in which a run that goes on may differ."""
    return replace(config, resume=default.resume, device=default.device, data_root=default.data_root)


def _option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option that decides how the others are read; of several, the last one, as everywhere."""
    value = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument == name and following is not None:
            value = following
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def run(config: AnyTrain) -> None:
    """Train, or go on training, to the end; under torchrun, as one of its processes."""
    check_seed(config.seed)
    with joined(config.device) as device:
        run_on(config, device)


def run_on(config: AnyTrain, device: torch.device) -> None:
    """``run``, once it is clear where."""
    if world_size() > 1 and not isinstance(config, TrainReinforce):
        raise UserError(f"--algo {config.algo} trains in one process: start it without torchrun, or use reinforce")
    if world_size() > 1 and config.second is not None:
        raise UserError("--second trains in one process: start it without torchrun")
    with main_first():
        train, val = (load_dataset(config.dataset, split, config.data_root) for split in ("train", "val"))
    torch.manual_seed(config.seed)
    if config.resume is not None:
        folder = config.resume
        classes = len(train.classes)
        backbone = load_backbone(str(folder / START), classes=classes)
        teacher = load_backbone(str(folder / TEACHER), classes=classes) if config.teacher else backbone
        console.print(f"going on with {folder}", soft_wrap=True, markup=False)
        train_agent(config, backbone, teacher, train, val, folder, device)
    else:
        folder = start_run(config, starting_backbone(config, len(train.classes)), train, val, device)
    console.print(f"done; now: lcnet-rl evaluate {quote(str(folder))}", soft_wrap=True, markup=False)


def start_run(
    config: AnyTrain,
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    device: torch.device,
    on_validation: OnValidation | None = None,
) -> Path:
    """Make a run folder for training from ``backbone``, and train; returns the folder."""
    # Faulty settings are refused before there is a folder that a corrected command would find taken.
    agent = starting_agent(config, backbone)
    Pricing(config.agent, agent, 1.0)
    teacher = choose_teacher(config, backbone)
    TrainingBatches(train, config.agent.batch_size, config.seed)
    if isinstance(config.agent, PPOConfig):
        minibatch(config.agent, agent.depth)
    env = ENV_NAMES[config.decides]
    folder = from_main(lambda: create_run(config.runs, env, config.algo, config.seed, config, config.run))
    by_main(save_backbone)(backbone, folder / START)
    if config.teacher:
        by_main(save_backbone)(teacher, folder / TEACHER)
    console.print(f"run folder: {folder}", soft_wrap=True, markup=False)
    train_agent(config, backbone, teacher, train, val, folder, device, on_validation)
    return folder


def starting_backbone(config: AnyTrain, classes: int) -> Backbone:
    """The dense network that --init names, or that a run of train which it names began with, and behind it --second."""
    if config.second is None:
        return first_backbone(config, classes)
    if is_agent(config.init):
        raise UserError(f"--init goes on with the networks that {config.init} has: leave --second away")
    return with_second(first_backbone(config, classes), load_backbone(config.second, classes=classes))


def first_backbone(config: AnyTrain, classes: int) -> Backbone:
    """The same without --second."""
    if config.init == "scratch":
        return create_backbone(config.backbone, classes, config.width)
    init = config.init
    if is_agent(init):
        init = str(Path(init) / START)
    if init == "auto":
        weights = pretrained(config.dataset, config.backbone, config.width)
        if weights is None:
            widths = [width for data, name, width in PRETRAINED if (data, name) == (config.dataset, config.backbone)]
            known = f" (there is one of --width {widths[0]})" if widths else ""
            width = "" if config.width is None else f" --width {config.width}"
            raise UserError(
                f"no pretrained {config.backbone} of that width for {config.dataset} comes with the project{known}; "
                f"train one with 'lcnet-rl pretrain --dataset {config.dataset} --backbone {config.backbone}{width}' "
                "and give it with --init, or start untrained with --init scratch"
            )
        init = str(weights)
    return load_backbone(init, config.backbone, classes, config.width)


def choose_teacher(config: AnyTrain, backbone: Backbone) -> Backbone:
    """The dense network that --teacher names, else ``backbone``, with which training starts."""
    if not config.teacher:
        return backbone
    if not config.agent.distill:
        raise UserError("--teacher is learned with the weight --distill, which is 0")
    return load_backbone(config.teacher, classes=backbone.spec.classes)


def is_agent(init: str) -> bool:
    """Whether --init names a run of train."""
    return (Path(init) / CONFIG).is_file() and (Path(init) / START).is_file() and "agent" in read_config(Path(init))


def put_gates(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``backbone``, which is copied, with the gates that ``config`` asks for."""
    return LCNet(
        copy.deepcopy(backbone),
        config.decides,
        config.groups,
        config.agent.keep_bias,
        config.confidence,
        price_range(config.agent.price),
        cast(PolicyName, config.algo) if isinstance(config, TrainRival) else "lc",
    )


def starting_agent(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``put_gates``, with the weights of the agent that --init names, if it does.

    Raises:
        UserError: when that is another kind of agent.
    """
    model = put_gates(config, backbone)
    if is_agent(config.init):
        trained = load_model(Path(config.init))
        theirs, asked = (asdict(agent.spec) for agent in (trained, model))
        if other := [f"{name} {value}, not {asked[name]}" for name, value in theirs.items() if value != asked[name]]:
            raise UserError(f"{config.init} holds another kind of agent than was asked for: {'; '.join(other)}")
        model.load_state_dict(trained.state_dict())
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
    keep_freed_memory()
    resume = config.resume is not None
    model = put_gates(config, backbone) if resume else starting_agent(config, backbone)
    if isinstance(config, TrainReinforce):
        agent = AGENTS[config.algo](model, config.agent, train, val, folder, config.seed, device, teacher)
        if resume:
            agent.restore()
        agent.train(on_validation)
    else:
        train_sb3(model, config.agent, train, val, folder, config.seed, device, resume, on_validation, teacher)
