"""What deciding costs: the environment's overhead over a forward pass, and a joint training step's over a dense one."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from envs.vector import LayerChannelSkipVectorEnv
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision, autocast
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import replay
from lcnet_rl.model import LCNet
from lcnet_rl.optim import decayed
from lcnet_rl.progress import Progress, console, say
from lcnet_rl.spec import DEFAULT_GROUPS
from lcnet_rl.timing import Comparison, compare
from lcnet_rl.training_setup import TrainingSetup

Timed = tuple[Comparison, str, str]
"""A comparison and the names of its two sides."""


@dataclass(frozen=True)
class Overhead:
    """What to time."""

    backbone: str
    width: int | None
    images: int | None
    """Images at a time; None for the usual number."""
    trials: int
    precision: Precision


def random_images(count: int) -> Dataset:
    """Images whose pixels do not matter to a clock."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Dataset("noise", "train", images, torch.arange(count) % 10, tuple("0123456789"))


def network(config: Overhead) -> LCNet:
    """Fresh gates, for layers and for the usual number of filter groups, on a fresh backbone.

    Raises:
        UserError: for a width of which blocks have filters that these groups do not divide.
    """
    backbone = create_backbone(config.backbone, 10, config.width)
    if any(block.filters % DEFAULT_GROUPS for block in backbone.own_blocks):
        width = backbone.spec.width
        raise UserError(f"width {width}: give a --width that {DEFAULT_GROUPS} divides, the groups that filters are in")
    return LCNet(backbone)


def bench_env(config: Overhead, device: torch.device) -> Timed:
    """Whole episodes of the vector environment, against ``model.run`` on as many images with the same actions."""
    count = config.images or 512
    dataset = random_images(count)
    model = network(config).to(device).eval()
    env = LayerChannelSkipVectorEnv(count, dataset=dataset, model=model, device=str(device))
    env.reset(seed=0)
    actions = (torch.rand(model.depth, count, model.action_size) < 0.7).float()
    images, on_device = dataset.images.to(device), actions.to(device)

    def episode() -> None:
        for action in actions.numpy():
            env.step(action)

    def bare() -> None:
        with torch.no_grad():
            model.run(images, replay(on_device)).logits.cpu()

    names = f"environment, {count} episodes", f"bare masked forward pass, {count} images"
    with Progress("trials", config.trials, between=True) as bar:
        return compare(episode, bare, config.trials, bar.advance), *names


def bench_train(config: Overhead, device: torch.device) -> Timed:
    """One joint step with two rollouts, against a dense training step of the same backbone and batch."""
    count = config.images or 128
    dataset = random_images(4 * count)
    settings = ReinforceConfig(batch_size=count, warmup=0.0, polish=0.0, distill=0.0, precision=config.precision)
    dense = create_backbone(config.backbone, 10, config.width).to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        model = network(config)
        agent = Reinforce(model, settings, TrainingSetup(dataset, dataset, Path(folder), 0, device))
        optimizer = torch.optim.SGD(decayed(dense.parameters(), 5e-4), lr=0.01, momentum=0.9, nesterov=True)
        step = dense_step(agent, dense, optimizer, config.precision)
        with Progress("trials", config.trials, between=True) as bar:
            comparison = compare(agent.joint_step, step, config.trials, bar.advance)
    this = f"joint step, {settings.rollouts} rollouts of {count} images, no distillation"
    return comparison, this, f"dense step, {count} images"


def dense_step(
    agent: Reinforce, dense: torch.nn.Module, optimizer: torch.optim.Optimizer, precision: Precision
) -> Callable[[], None]:
    """A supervised step on the agent's own batches."""

    def step() -> None:
        images, labels = agent.batches(0)
        with autocast(agent.setup.device, precision):
            logits = dense(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())

    return step


def report(config: Overhead, device: torch.device, result: Comparison, this: str, other: str) -> None:
    """Print one comparison."""
    (least, most), (low, high) = result.ratio_interval, result.ratio_quartiles
    for name, seconds in ((this, result.this), (other, result.other)):
        console.print(f"{name}: median {1000 * statistics.median(seconds):.1f} ms", highlight=False)
    say(
        f"ratio of medians {result.ratio:.2f} (95 % interval {least:.2f} to {most:.2f}, quartiles of pairs {low:.2f} "
        f"to {high:.2f}; {config.trials} alternating trials, {config.backbone}, {torch.get_num_threads()} threads, "
        f"{device})",
    )
