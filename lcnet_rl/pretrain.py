"""Supervised training of a dense backbone, the start of every skipping agent.

A short modern recipe: SGD with Nesterov momentum, or Muon, a triangular learning rate, label smoothing, no decay on
BatchNorm and biases, crops, flips and cutouts as batched tensor operations, channels-last features.

A network that is to skip later can be trained with LayerDrop: Fan et al., 2020, "Reducing Transformer depth on demand
with structured dropout", arXiv 1909.11556; after Huang et al., 2016, "Deep networks with stochastic depth", arXiv
1603.09382. Here an image draws its own rate, so that any number of blocks occurs, and what is kept is not scaled up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl import distributed, whitening
from lcnet_rl.backbones import Backbone
from lcnet_rl.batchnorm import even_batches, fresh_statistics, prepare
from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.data.sampler import TrainingBatches
from lcnet_rl.device import Precision, Stream, autocast, step_generator
from lcnet_rl.errors import UserError, diverged
from lcnet_rl.interrupt import Interrupted, deferred_interrupt
from lcnet_rl.optim import KernelMuon, decayed, triangle
from lcnet_rl.progress import Progress
from lcnet_rl.runs import CHECKPOINT, MetricsLog, load_checkpoint, restoring
from lcnet_rl.settings import check_choices
from lcnet_rl.tree import save_tree
from lcnet_rl.weights import are_finite

MUON = ("muon_lr", "muon_momentum", "muon_weight_decay")
"""Settings that only Muon reads."""


@dataclass(frozen=True)
class Recipe:
    """How a backbone is trained from scratch."""

    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, of all processes together."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """SGD with Nesterov momentum 0.9 for all, or Muon for the convolutions and SGD for the rest."""
    lr: float = 0.2
    """Peak learning rate of SGD."""
    muon_lr: float = 0.1
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.9
    """Momentum of Muon, Nesterov's way."""
    muon_weight_decay: float = 0.02
    """Decoupled decay of the convolutions: they shrink by learning rate times this a step."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises; then it falls linearly to zero."""
    weight_decay: float = 5e-4
    """L2 penalty on convolution and linear weights."""
    label_smoothing: float = 0.05
    """Share of the target spread evenly over all classes."""
    distill: float = 0.0
    """Weight of a teacher's soft labels in the loss, where there is a teacher."""
    layer_drop: float = 0.0
    """Highest rate at which an image does without blocks; each image has its own, uniform between 0 and this. Prepares
    for skipping (LayerDrop)."""
    whiten: bool = False
    """Let the stem's filters be the principal components of the training images' patches, and do not train them."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "auto"
    """bf16 (autocast), fp32, or auto: bf16 where the hardware has instructions for it."""
    compile: bool = False
    """Use torch.compile (needs a C++ compiler); about 1.2 times as fast after a minute; in one process only."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name} must be a finite number, got {value}")
        if self.epochs < 1 or self.batch_size < 2:
            raise UserError(f"epochs must be >= 1 and batch_size >= 2, got {self.epochs} and {self.batch_size}")
        if not self.lr > 0:
            raise UserError(f"lr must be > 0, got {self.lr}")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        if not self.muon_lr > 0:
            raise UserError(f"muon_lr must be > 0, got {self.muon_lr}")
        if not 0 <= self.muon_momentum < 1:
            raise UserError(f"muon_momentum must be in [0, 1), got {self.muon_momentum}")
        for name in ("weight_decay", "muon_weight_decay"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.optimizer != "muon" and any(getattr(self, name) != getattr(Recipe, name) for name in MUON):
            raise UserError(f"{', '.join(MUON)} go with --recipe.optimizer muon")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill must be in [0, 1], got {self.distill}")
        if not 0 <= self.layer_drop < 1:
            raise UserError(f"layer_drop is a rate in [0, 1), got {self.layer_drop}")


def create_optimizers(backbone: Backbone, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a recipe, by name; together they train every parameter that is not kept fixed."""
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return {"optimizer": _sgd(parameters, recipe)}
    kernels = [p for p in parameters if p.ndim == 4]
    others = [p for p in parameters if p.ndim != 4]
    muon = KernelMuon(kernels, recipe.muon_lr, recipe.muon_momentum, recipe.muon_weight_decay)
    return {"optimizer": _sgd(others, recipe), "muon": muon}


def _sgd(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.SGD:
    return torch.optim.SGD(decayed(parameters, recipe.weight_decay), lr=recipe.lr, momentum=0.9, nesterov=True)


def train_dense(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    recipe: Recipe,
    run: Path,
    seed: int,
    device: torch.device,
    resume: bool = False,
    teacher: Backbone | None = None,
) -> float:
    """Train ``backbone`` in place; checkpoint and log to ``run`` after every epoch.

    Args:
        backbone: fresh or pretrained; left in eval mode.
        train: training images.
        val: validation images, for the log only: nothing is selected by them.
        recipe: the settings.
        run: an existing run folder.
        seed: decides the order and augmentation of the images.
        device: where to compute.
        resume: go on from the run's checkpoint.
        teacher: a trained network whose probabilities are learned beside the labels, with weight ``recipe.distill``.

    Returns:
        Accuracy on ``val`` in [0, 1], in float32.

    Raises:
        UserError: when the loss or a weight stops being a number, or another process is lost; the run's checkpoint is
            then the last good one.
        Interrupted: after Ctrl-C, with the checkpoint saved.
    """
    if recipe.whiten:
        whitening.whiten(backbone.stem, train.sample(whitening.IMAGES).images)
        backbone.stem.conv.requires_grad_(False)
    backbone.to(device)
    prepare(backbone)
    if teacher is not None:
        teacher.to(device).eval()
    batches = TrainingBatches(train, recipe.batch_size, seed, device, recipe.augmentation)
    total = recipe.epochs * batches.steps_per_epoch
    optimizers = create_optimizers(backbone, recipe)
    peaks = {"optimizer": recipe.lr, "muon": recipe.muon_lr}
    rates = [f"--recipe.lr ({recipe.lr:g})"]
    if recipe.optimizer == "muon":
        rates.append(f"--recipe.muon-lr ({recipe.muon_lr:g})")
    start = 0
    # Of the epoch so far: means over the processes, whose parts go on from there.
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    if resume:
        checkpoint = load_checkpoint(run)
        with restoring(run / CHECKPOINT):
            backbone.load_state_dict(checkpoint["backbone"])
            for name, optimizer in optimizers.items():
                optimizer.load_state_dict(checkpoint[name])
            start = checkpoint["step"]
            loss_sum, correct = (checkpoint[name].to(device) for name in ("loss_sum", "correct"))
    log = MetricsLog(run, resume_at=start * recipe.batch_size if resume else None)
    forward: Callable[..., Tensor] = torch.compile(backbone) if recipe.compile else backbone
    began = time.monotonic()

    def keeps(step: int, count: int) -> Tensor | None:
        if not recipe.layer_drop:
            return None
        generator = step_generator(seed, step, device, Stream.LAYERS)
        return layer_drop_keeps(len(backbone.blocks), count, recipe.layer_drop, generator)

    def check(step: int) -> None:
        if distributed.any_process(not (are_finite(backbone) and math.isfinite(float(loss_sum)))):
            raise diverged(f"the loss or a weight of step {step}", *rates)

    def save(step: int) -> None:
        sums = {"loss_sum": distributed.global_mean(loss_sum), "correct": distributed.global_mean(correct)}
        states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
        tree = {"backbone": backbone.state_dict(), **states, **sums, "step": step}
        distributed.by_main(save_tree)(tree, run / CHECKPOINT)

    if not resume:
        save(0)
    command = f"{distributed.launcher()} pretrain --resume {quote(str(run))}"
    with (
        closing(log),
        distributed.resumable(command, run / CHECKPOINT),
        deferred_interrupt(twice_stops=distributed.world_size() == 1) as interrupt,
        Progress("pretraining", total, start) as bar,
    ):
        for step in range(start, total):
            images, labels = batches(step)
            factor = triangle(step, total, recipe.warmup)
            for name, optimizer in optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = peaks[name] * factor
            backbone.train()
            with autocast(device, recipe.precision):
                logits = forward(images, keeps(step, len(images)))
                soft = None if teacher is None else soft_labels(teacher, images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            if soft is not None:
                loss = (1 - recipe.distill) * loss + recipe.distill * F.cross_entropy(logits.float(), soft)
            backbone.zero_grad()
            loss.backward()
            distributed.average_gradients(backbone.parameters())
            for optimizer in optimizers.values():
                optimizer.step()
            loss_sum += loss.detach()
            correct += (logits.argmax(1) == labels).float().mean()
            if (step + 1) % batches.steps_per_epoch == 0:
                check(step + 1)
                sums = (float(distributed.global_mean(part)) for part in (loss_sum, correct))
                mean_loss, mean_accuracy = (part / batches.steps_per_epoch for part in sums)
                loss_sum.zero_()
                correct.zero_()
                if recipe.layer_drop:
                    recalibrate_dense(backbone, train, device, recipe.precision)
                values = {
                    "train/loss": mean_loss,
                    "train/accuracy": mean_accuracy,
                    "eval/accuracy": dense_accuracy(backbone, val, device, recipe.precision),
                    "time/fps": (step + 1 - start) * recipe.batch_size / (time.monotonic() - began),
                }
                log.write((step + 1) * recipe.batch_size, values)
                save(step + 1)
                bar.note(f"val {values['eval/accuracy']:.2%}")
            if distributed.any_process(interrupt.requested):
                check(step + 1)
                save(step + 1)
                raise Interrupted(command, step + 1, total)
            bar.advance()
    if recipe.layer_drop:
        recalibrate_dense(backbone, train, device)
    return dense_accuracy(backbone, val, device)


def layer_drop_keeps(blocks: int, images: int, highest: float, generator: torch.Generator) -> Tensor:
    """Which blocks images do not drop, (blocks, images): 1, or 0 at the image's own rate, uniform in [0, highest].

    ``images`` is this process's share of the batch; draws are those of the global one.
    """
    device = generator.device
    rates = highest * distributed.rand_rows((images, 1), generator, device)
    return (distributed.rand_rows((images, blocks), generator, device) >= rates).float().T


@torch.no_grad()
def recalibrate_dense(
    backbone: Backbone, train: Dataset, device: torch.device, precision: Precision = "fp32", images: int = 4000
) -> None:
    """Set BatchNorm's running statistics to those of the whole network, on training images without augmentation.

    Those gathered while it dropped layers are of other networks.

    Args:
        backbone: changed in place and left in eval mode, the same in all processes.
        train: training images, never validation or test images.
        device: where to compute.
        precision: of the passes.
        images: how many images to average over.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    backbone.train()
    with fresh_statistics(norms), distributed.alone(), autocast(device, precision):
        for batch in even_batches(train.sample(images).images, 500):
            backbone(batch.to(device))
    backbone.eval()
    distributed.share_weights(backbone)


@torch.no_grad()
def soft_labels(teacher: Backbone, images: Tensor) -> Tensor:
    """What the teacher makes of uint8 images (B, 3, 32, 32): probabilities (B, classes), float32."""
    return teacher(images).float().softmax(1)


@torch.no_grad()
def dense_accuracy(
    backbone: Backbone, dataset: Dataset, device: torch.device, precision: Precision = "fp32", batch_size: int = 500
) -> float:
    """Accuracy in [0, 1] of the whole backbone, in eval mode (in which it is left)."""
    return accuracy_of(dense_predictions(backbone, dataset, device, precision, batch_size), dataset)


def accuracy_of(predictions: Tensor, dataset: Dataset) -> float:
    """Accuracy in [0, 1] of predicted classes (N,) of a data set's N images."""
    return int((predictions == dataset.labels).sum()) / len(dataset)


@torch.no_grad()
def dense_predictions(
    backbone: Backbone, dataset: Dataset, device: torch.device, precision: Precision = "fp32", batch_size: int = 500
) -> Tensor:
    """The classes that the whole backbone predicts, (N,), int64, on the CPU; in eval mode (in which it is left)."""
    backbone.eval()
    parts = []
    for images in dataset.images.split(batch_size):
        with autocast(device, precision):
            parts.append(backbone(images.to(device)).argmax(1).cpu())
    return torch.cat(parts)
