"""``lcnet-rl demo``: the whole path on the built-in images, in a few minutes: pretrain, train, evaluate."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import evaluate as evaluate_command
from lcnet_rl.commands.pretrain_settings import Pretrain
from lcnet_rl.commands.train_settings import TrainReinforce
from lcnet_rl.commands.training import start_run
from lcnet_rl.data import load_training
from lcnet_rl.device import resolve_device
from lcnet_rl.pretrain import DenseTraining
from lcnet_rl.progress import console
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import START, check_free, create_run
from lcnet_rl.seeds import check_seed
from lcnet_rl.settings import from_dict, read_preset
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.weights import save_backbone


@dataclass(frozen=True)
class Demo:
    """Train a skipping agent on the built-in images from nothing, and show what it decides."""

    seed: int = 0
    """Decides everything random."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    run: Path | None = None
    """The run folder itself, instead of a new one under --runs; the dense backbone's is then made beside it."""


RECIPE = Recipe(epochs=5, batch_size=64, lr=0.2)
"""Of the dense backbone that the demo starts from."""


def run(config: Demo) -> None:
    """Pretrain, train, evaluate; prints tables and says where the pictures are."""
    began = time.monotonic()
    check_seed(config.seed)
    if config.run is not None:
        check_free(config.run)
    given = {"seed": config.seed, "device": config.device, "runs": config.runs, "run": config.run}
    training = from_dict(TrainReinforce, {**read_preset("demo"), **given}, "preset demo")
    device = resolve_device(config.device)
    console.print("1/4 drawing the built-in images", style="bold")
    train, val = load_training(training.dataset)
    console.print(f"2/4 pretraining a dense {training.backbone} on {len(train):,} images", style="bold")
    name = f"{training.backbone}-{training.dataset}"
    dense = Pretrain(training.dataset, training.backbone, training.width, recipe=RECIPE, seed=config.seed)
    runs = config.runs if config.run is None else config.run.parent
    pretrained = create_run(runs, name, "pretrain", config.seed, dense, train=train)
    torch.manual_seed(config.seed)
    backbone = create_backbone(training.backbone, len(train.classes), training.width)
    save_backbone(backbone, pretrained / START)  # as pretrain --resume needs it
    DenseTraining(backbone, RECIPE, TrainingSetup(train, val, pretrained, config.seed, device)).train()
    console.print("3/4 training backbone and policy together", style="bold")
    folder = start_run(replace(training, init=str(pretrained)), backbone, train, val, device)
    console.print("4/4 evaluating, with controls", style="bold")
    evaluate_command.run(evaluate_command.Evaluate(folder, device=config.device))
    console.print(f"demo took {time.monotonic() - began:.0f} s")
