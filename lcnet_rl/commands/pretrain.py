"""``lcnet-rl pretrain``: train a dense backbone from scratch (or from given weights)."""

from __future__ import annotations

from pathlib import Path

import torch

from lcnet_rl.backbones import Backbone, create_backbone
from lcnet_rl.commands.pretrain_settings import Pretrain, parse
from lcnet_rl.data import load_training
from lcnet_rl.data.sampler import full_batches, warn_if_few
from lcnet_rl.device import check_compiler, warn_if_slow
from lcnet_rl.errors import UserError
from lcnet_rl.job import by_main, from_main, joined, main_first, world_size
from lcnet_rl.pretrain import DenseTraining
from lcnet_rl.progress import say
from lcnet_rl.prune import prune
from lcnet_rl.runs import METRICS, START, TEACHER, check_free, create_run
from lcnet_rl.seeds import check_seed
from lcnet_rl.starting import with_fresh_head
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.unchanged import check_knows, check_same_data, known_classes, warn_if_changed, warn_if_edited
from lcnet_rl.weights import load_backbone, save_backbone

__all__ = ["parse", "run"]


def run(config: Pretrain) -> None:
    """Train, then save; under torchrun, as one of its processes."""
    check_seed(config.seed)
    with joined(config.device) as device:
        run_on(config, device)


def run_on(config: Pretrain, device: torch.device) -> None:
    """``run``, once it is clear where."""
    if config.recipe.compile and world_size() > 1:
        raise UserError("--recipe.compile is for one process: leave it out, or start without torchrun")
    if config.prune is not None and config.resume is None and world_size() > 1:
        raise UserError("--prune is for one process: start without torchrun")
    if config.recipe.compile:
        check_compiler(device)
    if config.resume is None and config.run is not None:
        by_main(check_free)(config.run)
    with main_first():
        train, val = load_training(config.dataset, config.data_root)
    if config.resume is None:
        for network in filter(None, (config.init, config.teacher)):
            by_main(warn_if_changed)(Path(network), train)
        if config.teacher:
            check_knows(Path(config.teacher), train)
    # A faulty size is refused before there is a folder.
    an_epoch = full_batches(train, config.recipe.batch_size)
    torch.manual_seed(config.seed)
    classes = len(train.classes)
    if config.resume is not None:
        folder = config.resume
        check_same_data(folder, train)
        if (folder / METRICS).is_file():
            say(f"{folder} is finished")
            return
        backbone = load_backbone(str(folder / START), classes=classes)
        teacher = load_backbone(str(folder / TEACHER), classes=classes) if config.teacher else None
        by_main(warn_if_edited)(folder, config, "from here on the run is trained by other code")
    else:
        backbone = network_to_train(config, train.classes)
        teacher = load_backbone(config.teacher, classes=classes) if config.teacher else None
        where = config.runs, f"{config.backbone}-{config.dataset}", "pretrain", config.seed
        folder = from_main(lambda: create_run(*where, config, config.run, train))
        by_main(warn_if_few)(config.recipe.epochs * an_epoch, an_epoch, "--recipe.batch-size, --recipe.epochs")
        by_main(save_backbone)(backbone, folder / START)
        if teacher is not None:
            by_main(save_backbone)(teacher, folder / TEACHER)
    by_main(warn_if_slow)(config.recipe.precision, device)
    setup = TrainingSetup(train, val, folder, config.seed, device, teacher)
    training = DenseTraining(backbone, config.recipe, setup)
    if config.resume is not None:
        training.restore()
    training.train()


def network_to_train(config: Pretrain, classes: tuple[str, ...]) -> Backbone:
    """Fresh weights, or those of --init, with a fresh head for other classes, pruned if that was asked for."""
    if not config.init:
        return create_backbone(config.backbone, len(classes), config.width)
    backbone = load_backbone(config.init, config.backbone, None, config.width)
    known = known_classes(Path(config.init))
    if backbone.spec.classes != len(classes) or (known and known != classes):
        theirs = f" ({', '.join(known)})" if known else ""
        ours = f"{config.dataset} has {len(classes)} ({', '.join(classes)})"
        said = f"{config.init} tells {backbone.spec.classes} classes apart{theirs}, {ours}: its head starts fresh"
        by_main(say)(said)
        backbone = with_fresh_head(backbone, len(classes))
    return backbone if config.prune is None else prune(backbone, config.prune, config.prune_multiple)
