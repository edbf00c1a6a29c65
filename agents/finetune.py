"""The half of joint training that agents share: cross-entropy through the executed path, into all but the policy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.rollout import Rollout
from lcnet_rl.backbones import Backbone
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.dense import soft_labels
from lcnet_rl.device import Precision
from lcnet_rl.model import LCNet
from lcnet_rl.optim import decayed
from lcnet_rl.settings import check_choices, check_finite, check_values

OnValidation = Callable[[float, dict[str, float]], None]
"""Takes the share of the training that is done, and a validation's scalars, as they are logged."""


@dataclass(frozen=True)
class FinetuneConfig:
    """How backbone, scales and probes learn."""

    lr: float = 0.02
    """Peak learning rate of backbone and scales (SGD, Nesterov momentum 0.9)."""
    probe_lr: float = 2e-3
    """Learning rate of the confidence probes (Adam)."""
    weight_decay: float = 5e-4
    """L2 penalty on the backbone's convolution and linear weights."""
    distill: float = 0.5
    """Weight of the teacher's soft labels in the task loss, of the dense network that training starts from unless
    --teacher names another; 0 saves its forward pass."""
    batch_size: int = 128
    """Training images a step, of all processes together."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training images are varied."""
    max_grad_norm: float = 5.0
    """Gradients of backbone and policy are each clipped to this norm."""
    keep_bias: float = 2.0
    """Initial keep logit of the gates, unless they are those of --init; 2 is a keep probability of 0.88."""
    warmup_keep: float = 0.5
    """Lowest keep rate of an image in the warm-up; the rate is uniform between this and 1."""
    train_backbone: bool = True
    """Whether the backbone learns along with the policy; otherwise its weights stay, and only BatchNorm's running
    statistics become those of what runs (an ablation)."""
    train_scales: bool = True
    """Whether the gates' scales learn; otherwise they stay as they begin, at 1 or as --init has them, and are billed
    all the same (an ablation)."""
    precision: Precision = "auto"
    """bf16 (autocast), fp32, or auto: bf16 where the hardware has instructions for it."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        check_values(self, lambda value: value > 0, "be > 0", "lr", "probe_lr", "max_grad_norm", "batch_size")
        check_values(self, lambda value: value >= 0, "be >= 0", "weight_decay")
        check_values(self, lambda value: 0 <= value <= 1, "be in [0, 1]", "distill", "warmup_keep")


class Finetuner:
    """Losses and optimisers of backbone, scales and probes."""

    def __init__(self, model: LCNet, config: FinetuneConfig, teacher: Backbone | None = None) -> None:
        """Prepare to train ``model``; its teacher is a copy of ``teacher``, or of its present backbone, all of it."""
        self.model, self.config = model, config
        self.teacher: Backbone = copy.deepcopy(teacher or model.backbone).eval().requires_grad_(False)
        self.teacher.to(model.price.device)
        model.backbone.requires_grad_(config.train_backbone)
        for parameter in model.scale_parameters():
            parameter.requires_grad_(config.train_scales)
        scales = {"params": model.scale_parameters(), "weight_decay": 0.0}
        groups = [*decayed(model.backbone.parameters(), config.weight_decay), scales]
        self.weight_optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
        self.probe_optimizer = torch.optim.Adam(model.probes.parameters(), lr=config.probe_lr)

    def task_loss(self, images: Tensor, labels: Tensor, rollout: Rollout) -> Tensor:
        """Cross-entropy of all passes (K, B, classes) with labels and with the teacher's probabilities; a mean."""
        passes, weight = len(rollout.logits), self.config.distill
        logits = rollout.logits.flatten(0, 1)
        loss = F.cross_entropy(logits, labels.repeat(passes))
        if not weight:
            return loss
        soft = soft_labels(self.teacher, images).repeat(passes, 1)
        return (1 - weight) * loss + weight * F.cross_entropy(logits, soft)

    def probe_loss(self, labels: Tensor, rollout: Rollout) -> Tensor:
        """Cross-entropy of the probes, a mean over passes and images and a sum over blocks."""
        blocks, passes = rollout.probe_logits.shape[:2]
        return F.cross_entropy(rollout.probe_logits.flatten(0, 2), labels.repeat(blocks * passes)) * blocks

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.weight_optimizer.zero_grad()
        self.probe_optimizer.zero_grad()

    def clip(self) -> float:
        """Clip the gradient of backbone and scales; returns the norm it had."""
        parameters = [*self.model.backbone.parameters(), *self.model.scale_parameters()]
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))

    def step(self, factor: float) -> None:
        """Apply the gradients, at ``factor`` times the peak learning rate."""
        for group in self.weight_optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        self.weight_optimizer.step()
        self.probe_optimizer.step()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "teacher": self.teacher.state_dict(),
            "weights": self.weight_optimizer.state_dict(),
            "probes": self.probe_optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.teacher.load_state_dict(state["teacher"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.probe_optimizer.load_state_dict(state["probes"])
