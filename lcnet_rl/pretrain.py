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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl import distributed, job, whitening
from lcnet_rl.backbones import Backbone
from lcnet_rl.batchnorm import prepare
from lcnet_rl.dense import dense_accuracy, recalibrate_dense, soft_labels
from lcnet_rl.device import autocast
from lcnet_rl.errors import diverged
from lcnet_rl.files import write_json
from lcnet_rl.interrupt import Interrupted, deferred_interrupt
from lcnet_rl.macs import dense_macs
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.optim import KernelMuon, decayed, triangle
from lcnet_rl.progress import Progress, console, say
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import CHECKPOINT, METRICS, load_checkpoint, restoring, resumable, resume_command
from lcnet_rl.seeds import Stream
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import save_tree
from lcnet_rl.weights import BACKBONE, are_finite, save_backbone


class DenseTraining:
    """One training run of a dense backbone; its state is what a checkpoint holds."""

    def __init__(self, backbone: Backbone, recipe: Recipe, setup: TrainingSetup) -> None:
        """Prepare to train ``backbone`` in place.

        Args:
            backbone: fresh or pretrained.
            recipe: the settings.
            setup: images, run folder, seed, device, and the teacher, if there is one; its weight is ``recipe.distill``.
        """
        self.backbone, self.recipe, self.setup = backbone, recipe, setup
        if recipe.whiten:
            whitening.whiten(backbone.stem, setup.train.sample(whitening.IMAGES).images)
            backbone.stem.conv.requires_grad_(False)
        backbone.to(setup.device)
        prepare(backbone)
        if setup.teacher is not None:
            setup.teacher.to(setup.device).eval()
        self.batches = setup.batches(recipe.batch_size, recipe.augmentation)
        self.total = recipe.epochs * self.batches.steps_per_epoch
        self.optimizers = create_optimizers(backbone, recipe)
        self.peaks = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.forward: Callable[..., Tensor] = torch.compile(backbone) if recipe.compile else backbone
        self.step, self.resumed = 0, False
        # Of the epoch so far: means over the processes, whose parts go on from there.
        self.loss_sum, self.correct = (torch.zeros((), device=setup.device) for _ in range(2))

    def train(self) -> None:
        """Train from the current step to the end; checkpoints and logs go to the run folder after every epoch, then
        the weights and final figures, which are printed too. The backbone is left in eval mode.

        Raises:
            UserError: when the loss or a weight stops being a number, or another process is lost; the run's checkpoint
                is then the last good one.
            Interrupted: after Ctrl-C, with the checkpoint saved.
        """
        images_a_step = self.recipe.batch_size
        log = MetricsLog(self.setup.run, resume_at=self.step * images_a_step if self.resumed else None)
        if not self.resumed:
            self.save()
        began, first = time.monotonic(), self.step
        with (
            closing(log),
            resumable("pretrain", self.setup.run),
            deferred_interrupt(twice_stops=job.world_size() == 1) as interrupt,
            Progress("pretraining", self.total, first) as bar,
        ):
            while self.step < self.total:
                self.learn()
                self.step += 1
                if self.step % self.batches.steps_per_epoch == 0:
                    self.check()
                    scalars = self.end_of_epoch()
                    rate = (self.step - first) * images_a_step / (time.monotonic() - began)
                    log.write(self.step * images_a_step, {**scalars, "time/fps": rate})
                    self.save()
                    bar.note(f"val {scalars['eval/accuracy']:.2%}")
                if job.any_process(interrupt.requested):
                    self.check()
                    self.save()
                    raise Interrupted(resume_command("pretrain", self.setup.run), self.step, self.total)
                bar.advance()
        if self.recipe.layer_drop:
            recalibrate_dense(self.backbone, self.setup.train, self.setup.device)
        self.save_results()

    def learn(self) -> None:
        """One step: a batch through the network, and its gradient into the weights."""
        backbone, recipe = self.backbone, self.recipe
        images, labels = self.batches(self.step)
        factor = triangle(self.step, self.total, recipe.warmup)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.peaks[name] * factor
        backbone.train()
        with autocast(self.setup.device, recipe.precision):
            logits = self.forward(images, self.keeps(len(images)))
            soft = None if self.setup.teacher is None else soft_labels(self.setup.teacher, images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        if soft is not None:
            loss = (1 - recipe.distill) * loss + recipe.distill * F.cross_entropy(logits.float(), soft)
        backbone.zero_grad()
        loss.backward()
        distributed.average_gradients(backbone.parameters())
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.loss_sum += loss.detach()
        self.correct += (logits.argmax(1) == labels).float().mean()

    def keeps(self, images: int) -> Tensor | None:
        """Which blocks this step's images keep, (blocks, images); None for all."""
        if not self.recipe.layer_drop:
            return None
        generator = self.setup.generator(self.step, Stream.LAYERS)
        return layer_drop_keeps(len(self.backbone.blocks), images, self.recipe.layer_drop, generator)

    def end_of_epoch(self) -> dict[str, float]:
        """Scalars of the epoch for the log, of all processes; the next one's begin at zero."""
        sums = (float(distributed.global_mean(part)) for part in (self.loss_sum, self.correct))
        loss, accuracy = (part / self.batches.steps_per_epoch for part in sums)
        self.loss_sum.zero_()
        self.correct.zero_()
        if self.recipe.layer_drop:
            recalibrate_dense(self.backbone, self.setup.train, self.setup.device, self.recipe.precision)
        on_validation = dense_accuracy(self.backbone, self.setup.val, self.setup.device, self.recipe.precision)
        return {"train/loss": loss, "train/accuracy": accuracy, "eval/accuracy": on_validation}

    def check(self) -> None:
        """Raise UserError if the loss or a weight is not a number: it is not to be saved."""
        finite = are_finite(self.backbone) and math.isfinite(float(self.loss_sum))
        if job.any_process(not finite):
            rates = {"optimizer": "--recipe.lr", "muon": "--recipe.muon-lr"}
            to_lower = [f"{rates[name]} ({peak:g})" for name, peak in self.peaks.items()]
            raise diverged(f"the loss or a weight of step {self.step}", *to_lower)

    def save(self) -> None:
        """Write the checkpoint: everything that the next step depends on. Random states follow from the step."""
        sums = {"loss_sum": distributed.global_mean(self.loss_sum), "correct": distributed.global_mean(self.correct)}
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        tree = {"backbone": self.backbone.state_dict(), **states, **sums, "step": self.step}
        job.by_main(save_tree)(tree, self.setup.run / CHECKPOINT)

    @job.by_main
    def save_results(self) -> None:
        """Write weights and final figures into the run folder, and print them; test images are for ``evaluate``."""
        backbone, train, val = self.backbone, self.setup.train, self.setup.val
        accuracy = dense_accuracy(backbone, val, self.setup.device)
        save_backbone(backbone, self.setup.run / BACKBONE)
        metrics = {
            "val_accuracy": accuracy,
            "macs": dense_macs(backbone),
            "width": backbone.spec.width,
            "seed": self.setup.seed,
            "train_images": len(train),
        }
        write_json(self.setup.run / METRICS, metrics)
        console.print(f"{backbone.spec.name} on {train.name}: val {accuracy:.2%}")
        say(f"weights: {self.setup.run / BACKBONE}")

    def restore(self) -> None:
        """Take up the run's checkpoint.

        Raises:
            UserError: when it is missing, damaged, or of another network or version.
        """
        state = load_checkpoint(self.setup.run)
        with restoring(self.setup.run / CHECKPOINT):
            self.backbone.load_state_dict(state["backbone"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state[name])
            self.loss_sum, self.correct = (state[name].to(self.setup.device) for name in ("loss_sum", "correct"))
            self.step, self.resumed = state["step"], True


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


def layer_drop_keeps(blocks: int, images: int, highest: float, generator: torch.Generator) -> Tensor:
    """Which blocks images do not drop, (blocks, images): 1, or 0 at the image's own rate, uniform in [0, highest].

    ``images`` is this process's share of the batch; draws are those of the global one.
    """
    device = generator.device
    rates = highest * distributed.rand_rows((images, 1), generator, device)
    return (distributed.rand_rows((images, blocks), generator, device) >= rates).float().T
