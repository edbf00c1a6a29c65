"""``lcnet-rl pretrain``: train a dense backbone from scratch (or from given weights)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import load_dataset
from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError
from lcnet_rl.pretrain import Recipe, dense_accuracy, train_dense
from lcnet_rl.progress import console
from lcnet_rl.runs import CONFIG, create_run, read_config, write_json
from lcnet_rl.weights import load_backbone, save_backbone


@dataclass(frozen=True)
class Pretrain:
    """Train a dense backbone; the run folder's backbone.safetensors is what ``train --init`` starts from."""

    dataset: str = "cifar10"
    """cifar10, shapes, or folder:PATH."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110 or resnet18."""
    width: int | None = None
    """Filters of the first stage; the published width when not given."""
    init: str | None = None
    """Start from these weights: a file, a pretrain run, or 'akamaster'."""
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
    resume: bool = False
    """Go on from the checkpoint in --run."""


def run(config: Pretrain) -> None:
    """Train, then measure on validation and test images, and save weights and metrics."""
    if config.resume and (config.run is None or not (config.run / CONFIG).exists()):
        raise UserError("--resume needs --run FOLDER, the run to continue")
    device = resolve_device(config.device)
    train, val, test = (load_dataset(config.dataset, split, config.data_root) for split in ("train", "val", "test"))
    torch.manual_seed(config.seed)
    classes = len(train.classes)
    if config.init:
        backbone = load_backbone(config.init, config.backbone, classes, config.width)
    else:
        backbone = create_backbone(config.backbone, classes, config.width)
    if config.resume:
        assert config.run is not None
        folder = config.run
        if Recipe(**read_config(folder)["recipe"]) != config.recipe:
            raise UserError(f"{folder} was trained with another recipe; resume with the settings in its {CONFIG}")
    else:
        name = f"{config.backbone}-{config.dataset.replace('/', '_').replace(':', '_')}"
        folder = create_run(config.runs, name, "pretrain", config.seed, config, config.run)
    accuracy = train_dense(backbone, train, val, config.recipe, folder, config.seed, device, config.resume)
    metrics = {
        "val_accuracy": accuracy,
        "test_accuracy": dense_accuracy(backbone, test, device),
        "seed": config.seed,
        "train_images": len(train),
    }
    save_backbone(backbone, folder / "backbone.safetensors")
    write_json(folder / "metrics.json", metrics)
    console.print(
        f"{config.backbone} on {config.dataset}: val {accuracy:.2%}, test {metrics['test_accuracy']:.2%}\n"
        f"weights: {folder / 'backbone.safetensors'}"
    )
