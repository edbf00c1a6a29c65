"""``lcnet-rl demo``: the whole path on the built-in images, in a few minutes: pretrain, train, evaluate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import evaluate as evaluate_command
from lcnet_rl.commands.train import ENV_NAMES, START, TrainReinforce, train_agent
from lcnet_rl.data import load_dataset
from lcnet_rl.device import resolve_device
from lcnet_rl.pretrain import Recipe, train_dense
from lcnet_rl.progress import console
from lcnet_rl.runs import create_run
from lcnet_rl.settings import from_dict, read_preset
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
    """The run folder itself, instead of a new one under --runs."""


def run(config: Demo) -> None:
    """Pretrain, train, evaluate; prints tables and says where the pictures are."""
    began = time.monotonic()
    settings = read_preset("demo")
    recipe = from_dict(Recipe, settings.pop("pretrain"), "preset demo")
    given = {"seed": config.seed, "device": config.device, "runs": config.runs, "run": config.run}
    training = from_dict(TrainReinforce, {**settings, **given}, "preset demo")
    device = resolve_device(config.device)
    console.print("[bold]1/4[/] drawing the built-in images")
    train, val = (load_dataset(training.dataset, split) for split in ("train", "val"))
    torch.manual_seed(training.seed)
    backbone = create_backbone(training.backbone, len(train.classes), training.width)
    folder = create_run(training.runs, ENV_NAMES[training.decides], "demo", training.seed, training, training.run)
    console.print(f"[bold]2/4[/] pretraining a dense {training.backbone} on {len(train):,} images")
    pretrained = folder / "pretrain"
    pretrained.mkdir()
    train_dense(backbone, train, val, recipe, pretrained, training.seed, device)
    save_backbone(backbone, folder / START)
    console.print("[bold]3/4[/] training backbone and policy together")
    train_agent(training, backbone, train, val, folder, device)
    console.print("[bold]4/4[/] evaluating, with controls")
    evaluate_command.run(evaluate_command.Evaluate(folder, device=config.device))
    console.print(f"demo took {time.monotonic() - began:.0f} s")
