"""``lcnet-rl pretrain``: train a dense backbone from scratch (or from given weights)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import torch

from lcnet_rl.backbones import Backbone, create_backbone
from lcnet_rl.commands.parsing import option, parse_over
from lcnet_rl.data import load_dataset
from lcnet_rl.data.sampler import TrainingBatches, warn_if_few
from lcnet_rl.device import check_compiler, check_seed
from lcnet_rl.distributed import by_main, from_main, joined, main_first, world_size
from lcnet_rl.errors import UserError
from lcnet_rl.pretrain import DenseTraining
from lcnet_rl.progress import console
from lcnet_rl.prune import prune
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import (
    CONFIG,
    METRICS,
    START,
    TEACHER,
    check_same_data,
    create_run,
    read_config,
    warn_if_changed,
)
from lcnet_rl.settings import from_dict
from lcnet_rl.weights import load_backbone, save_backbone


@dataclass(frozen=True)
class Pretrain:
    """Train a dense backbone; the run folder's backbone.safetensors is what train --init starts from."""

    dataset: str = "cifar10"
    """cifar10, shapes, or folder:PATH."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110, resnet18, resnet16-late, resnet14-wide, resnet11-pool, or your own, MODULE:FAMILY."""
    width: int | None = None
    """Filters of the stem; the usual width when not given."""
    init: str | None = None
    """Start from these weights: a file, a pretrain run, or 'akamaster'."""
    prune: float | None = None
    """First drop filters of --init, for all images, until this share of its MACs is left (Torch-Pruning)."""
    prune_multiple: int = 1
    """Filters that --prune leaves in a block are a multiple of this, so that as many groups of C-Net can share them."""
    teacher: str | None = None
    """Learn this network's soft labels too, with weight --recipe.distill: weights as for --init."""
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    """Decides initial weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    data_root: Path | None = None
    """Where data sets are kept; by default LCNET_RL_DATA or the user's cache folder."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    run: Path | None = None
    """The run folder itself, instead of a new one under --runs."""
    resume: Path | None = None
    """Go on with this run, with its own settings."""

    def __post_init__(self) -> None:
        if self.prune is not None and self.init is None:
            raise UserError("--prune drops filters of trained weights: name them with --init")
        if self.prune is None and self.prune_multiple != 1:
            raise UserError("--prune-multiple goes with --prune")
        if (self.teacher is None) != (self.recipe.distill == 0):
            raise UserError("--teacher and --recipe.distill (above 0) go together")
        if self.recipe.whiten and self.init is not None:
            raise UserError("--recipe.whiten sets the stem's filters anew: leave it away with --init")


def parse(arguments: Sequence[str], prog: str) -> Pretrain:
    """Settings from the command line, over those of the run to --resume."""
    resume = option(arguments, "--resume")
    values = {} if resume is None else read_config(Path(resume))
    if "agent" in values:
        raise UserError(f"{resume} trains an agent; to go on: lcnet-rl train --resume {quote(str(resume))}")
    config: Pretrain = parse_over(from_dict(Pretrain, values, f"{resume}/{CONFIG}"), arguments, prog)
    return config


def run(config: Pretrain) -> None:
    """Train, then save; under torchrun, as one of its processes."""
    check_seed(config.seed)
    with joined(config.device) as device:
        run_on(config, device)


def run_on(config: Pretrain, device: torch.device) -> None:
    """``run``, once it is clear where."""
    if config.recipe.compile and world_size() > 1:
        raise UserError("--recipe.compile is for one process: leave it away, or start without torchrun")
    if config.prune is not None and config.resume is None and world_size() > 1:
        raise UserError("--prune is for one process: start without torchrun")
    if config.recipe.compile:
        check_compiler(device)
    with main_first():
        train, val = (load_dataset(config.dataset, split, config.data_root) for split in ("train", "val"))
    if config.resume is None:
        for network in filter(None, (config.init, config.teacher)):
            by_main(warn_if_changed)(Path(network), train)
    # A faulty size is refused before there is a folder.
    an_epoch = TrainingBatches(train, config.recipe.batch_size, config.seed).steps_per_epoch
    torch.manual_seed(config.seed)
    classes = len(train.classes)
    if config.resume is not None:
        folder = config.resume
        check_same_data(folder, train)
        if (folder / METRICS).is_file():
            console.print(f"{folder} is finished", soft_wrap=True)
            return
        backbone = load_backbone(str(folder / START), classes=classes)
        teacher = load_backbone(str(folder / TEACHER), classes=classes) if config.teacher else None
    else:
        by_main(warn_if_few)(config.recipe.epochs * an_epoch, an_epoch, "--recipe.batch-size, --recipe.epochs")
        backbone = starting_backbone(config, classes)
        teacher = load_backbone(config.teacher, classes=classes) if config.teacher else None
        name = f"{config.backbone}-{config.dataset.replace('/', '_').replace(':', '_')}"
        where = config.runs, name, "pretrain", config.seed
        folder = from_main(lambda: create_run(*where, config, config.run, train))
        by_main(save_backbone)(backbone, folder / START)
        if teacher is not None:
            by_main(save_backbone)(teacher, folder / TEACHER)
    training = DenseTraining(backbone, config.recipe, train, val, folder, config.seed, device, teacher)
    if config.resume is not None:
        training.restore()
    training.train()


def starting_backbone(config: Pretrain, classes: int) -> Backbone:
    """Fresh weights, or those of --init, pruned if that was asked for."""
    if not config.init:
        return create_backbone(config.backbone, classes, config.width)
    backbone = load_backbone(config.init, config.backbone, classes, config.width)
    return backbone if config.prune is None else prune(backbone, config.prune, config.prune_multiple)
