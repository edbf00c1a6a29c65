"""Settings of ``lcnet-rl train``: what its command line, presets and ``config.yaml`` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import tyro

from agents.reinforce_config import ReinforceConfig
from agents.rivals.blockdrop import BlockDropConfig
from agents.rivals.convnet_aig import ConvNetAIGConfig
from agents.rivals.skipnet import SkipNetConfig
from agents.sb3_config import A2CConfig, PPOConfig
from lcnet_rl.commands.parsing import option, parse_over
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.rewards import Lagrangian, create_reward
from lcnet_rl.runs import has_agent, read_config
from lcnet_rl.settings import from_dict, read_preset
from lcnet_rl.spec import DEFAULT_GROUPS, Decides


@dataclass(frozen=True)
class Train:
    """Train an agent that decides per image which layers and filters run."""

    algo: str = "reinforce"
    """reinforce (the joint agent), ppo or a2c (stable-baselines3); or a rival: blockdrop, skipnet or convnet-aig."""
    preset: str | None = None
    """Start from these settings: cifar10-resnet20, cifar10-second (gates between networks), demo or smoke, or a YAML
    file; further options override them."""
    resume: Path | None = None
    """Go on with this run, with its own settings."""
    dataset: str = "cifar10"
    """cifar10, shapes, or folder:PATH; or held-out:NAME, half of the validation images of one of these instead of its
    training images, which networks that were trained on it have not seen, and the other half for validation."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110, resnet18, resnet16-late, resnet14-wide, resnet11-pool, or your own, MODULE:FAMILY."""
    width: int | None = None
    """Filters of the stem; by default those of the network that --init names, else the usual width."""
    init: str = "auto"
    """Starting weights: a file, a pretrain run, akamaster, scratch, or auto (what comes with the project: for cifar10
    resnet20, resnet56, resnet18, resnet16-late, resnet14-wide, resnet11-pool, some of other widths too; for shapes
    resnet14 of width 8).
    Or a run of train, whose agent then goes on learning, with this command's settings; with --second, a price or a
    target is of the MACs of all networks, and only the new gate starts from --keep-bias."""
    second: str | None = None
    """A dense network that becomes one more layer behind the starting one, or behind all those of a run that --init
    names, which L-Net runs, from the image on, for the images that need it: a file, a pretrain run, or akamaster.
    Use --preset cifar10-second, or see EXPERIMENTS.md, "Chains of two networks": with the usual settings all networks
    get worse."""
    second_weight: float = 1.0
    """Weight of that network's logits, which are added to those of the ones before; a larger one makes probabilities
    surer where it runs."""
    second_mirrored: bool = False
    """Whether that network sees the mirror image too, at twice the cost; its features are the means of both."""
    second_rule: bool = True
    """Whether the gates of further networks start from the rule to keep what the ones before are unsure of; otherwise
    they start as all gates do, and have the rule to learn."""
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
    """Where data sets are kept (of folder:PATH, the folder that holds it); by default LCNET_RL_DATA or the user's cache
    folder."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    run: Path | None = None
    """The run folder itself, instead of a new one under --runs."""


@dataclass(frozen=True)
class TrainReinforce(Train):
    """Train the joint policy-gradient agent. Other algorithms have options of their own: --algo NAME --help."""

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


def without_width(preset: dict[str, Any], backbone: Any) -> dict[str, Any]:
    """A preset's settings, without the width, which is that of its own backbone, where ``backbone`` is another one."""
    if backbone in (None, preset.get("backbone", Train.backbone)):
        return preset
    return {name: value for name, value in preset.items() if name != "width"}


def parse(arguments: Sequence[str], prog: str) -> AnyTrain:
    """Settings from the command line, over those of --preset or the run to --resume."""
    resume, preset, algo = (option(arguments, name) for name in ("--resume", "--preset", "--algo"))
    values: dict[str, Any] = {}
    if resume is not None:
        values = read_config(Path(resume))
        if not has_agent(values):
            raise UserError(f"{resume} trains a dense backbone; to go on: lcnet-rl pretrain --resume {quote(resume)}")
    elif preset is not None:
        values = read_preset(preset)
    algo = algo or str(values.get("algo", "reinforce"))
    if algo not in ALGOS:
        raise unknown_name("algo", algo, ALGOS)
    if values.get("algo", algo) != algo:
        raise UserError(f"{resume or preset} is for --algo {values['algo']}, not {algo}")
    if resume is None:
        values = without_width(values, option(arguments, "--backbone"))
    default = from_dict(ALGOS[algo], values, resume or preset or "settings")
    config: AnyTrain = parse_over(default, arguments, prog if algo == "reinforce" else f"{prog} --algo {algo}")
    if option(arguments, "--price") is not None:
        refuse_price(config.agent.reward, "--price")
    return config


def refuse_price(reward: str, given: str) -> None:
    """Refuse a price for a reward that finds its own.

    Args:
        reward: as the setting names it.
        given: what the price was given by.

    Raises:
        UserError: saying what to leave out.
    """
    if isinstance(create_reward(reward), Lagrangian):
        raise UserError(f"lagrangian finds its price by itself, from 0 on: leave {given} out")
