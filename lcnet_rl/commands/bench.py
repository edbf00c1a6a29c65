"""``lcnet-rl bench``: what deciding costs, and what skipping saves, beside the bare network: ratios from one run."""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from envs.vector import LayerChannelSkipVectorEnv
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision, autocast, resolve_device, uses_bf16
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import replay
from lcnet_rl.model import LCNet
from lcnet_rl.pretrain import decayed
from lcnet_rl.progress import console
from lcnet_rl.timing import Comparison, compare

Keep = Literal["all", "blocks", "groups"]
Timed = tuple[Comparison, str, str]
"""A comparison and the names of its two sides."""


@dataclass(frozen=True)
class Bench:
    """Time environment, joint training step or skipping engine against the bare network."""

    what: tyro.conf.Positional[Literal["env", "train", "engine"]]
    """env: stepping the vector environment, against a forward pass; train: a joint step of reinforce, against a dense
    step; engine: skipping inference, against the dense network, eager and compiled."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110 or resnet18."""
    width: int | None = None
    """Filters of the first stage; the published width when not given."""
    images: int | None = None
    """Images at a time; 512 for env, 128 for train and engine."""
    keep: Keep = "groups"
    """Of engine, what each image keeps: everything, half of the blocks, or of the filter groups, drawn at random."""
    trials: int = 12
    """Counted trials of each side, alternating."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of training steps and engine: bf16, fp32, or auto."""


def run(config: Bench) -> None:
    """Time, and print the ratio of medians."""
    if config.trials < 2 or (config.images is not None and config.images < 2):
        raise UserError(f"--trials and --images must be at least 2, got {config.trials} and {config.images}")
    device = resolve_device(config.device)
    torch.manual_seed(0)
    for result, this, other in {"env": bench_env, "train": bench_train, "engine": bench_engine}[config.what](
        config, device
    ):
        report(config, device, result, this, other)


def report(config: Bench, device: torch.device, result: Comparison, this: str, other: str) -> None:
    """Print one comparison."""
    low, high = result.ratio_quartiles
    for name, seconds in ((this, result.this), (other, result.other)):
        console.print(f"{name}: median {1000 * statistics.median(seconds):.1f} ms", highlight=False)
    console.print(
        f"ratio of medians [bold]{result.ratio:.2f}[/] (quartiles of pairs {low:.2f} to {high:.2f}; {config.trials} "
        f"alternating trials, {config.backbone}, {torch.get_num_threads()} threads, {device})",
        highlight=False,
        soft_wrap=True,
    )


def random_images(count: int) -> Dataset:
    """Images whose pixels do not matter to a clock."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Dataset("noise", "train", images, torch.arange(count) % 10, tuple("0123456789"))


def bench_env(config: Bench, device: torch.device) -> list[Timed]:
    """Whole episodes of the vector environment, against ``model.run`` on as many images with the same actions."""
    count = config.images or 512
    dataset = random_images(count)
    model = LCNet(create_backbone(config.backbone, 10, config.width)).to(device).eval()
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
    return [(compare(episode, bare, config.trials), *names)]


def bench_train(config: Bench, device: torch.device) -> list[Timed]:
    """One joint step with two rollouts, against a dense training step of the same backbone and batch."""
    count = config.images or 128
    dataset = random_images(4 * count)
    settings = ReinforceConfig(batch_size=count, warmup=0.0, polish=0.0, distill=0.0, precision=config.precision)
    dense = create_backbone(config.backbone, 10, config.width).to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        model = LCNet(create_backbone(config.backbone, 10, config.width))
        agent = Reinforce(model, settings, dataset, dataset, Path(folder), 0, device)
        optimizer = torch.optim.SGD(decayed(dense, 5e-4), lr=0.01, momentum=0.9, nesterov=True)
        comparison = compare(agent.joint_step, dense_step(agent, dense, optimizer, config.precision), config.trials)
    this = f"joint step, {settings.rollouts} rollouts of {count} images, no distillation"
    return [(comparison, this, f"dense step, {count} images")]


def dense_step(
    agent: Reinforce, dense: torch.nn.Module, optimizer: torch.optim.Optimizer, precision: Precision
) -> Callable[[], None]:
    """A supervised step on the agent's own batches."""

    def step() -> None:
        images, labels = agent.batches(0)
        with autocast(agent.device, precision):
            logits = dense(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())

    return step


@torch.no_grad()
def bench_engine(config: Bench, device: torch.device) -> list[Timed]:
    """The engine with forced decisions that differ from image to image, against the dense backbone, BatchNorm folded.

    Weights are random: no time depends on them.
    """
    count = config.images or 128
    images = random_images(count).images.to(device)
    dtype = torch.bfloat16 if uses_bf16(config.precision, device) else torch.float32
    model = LCNet(create_backbone(config.backbone, 10, config.width)).to(device).eval()
    engine = Engine(model, dtype)
    engine.tune(count)
    actions = half_kept(model, count, config.keep).to(device)
    share = float(model.run(images[:1], replay(actions[:, :1])).macs[0] / model.costs.dense)
    dense = engine.backbone
    compiled = torch.compile(dense)
    this = f"engine, {count} images, {config.keep} kept ({100 * share:.0f} % of dense MACs, gates included), {dtype}"

    def skipping() -> None:
        engine.run(images, replay(actions))

    return [
        (compare(skipping, functools.partial(network, images), config.trials), this, f"dense, {name}")
        for name, network in (("eager", dense), ("torch.compile", compiled))
    ]


def half_kept(model: LCNet, count: int, keep: Keep) -> Tensor:
    """Actions (depth, count, action_size) in which every image keeps half of the blocks, or of each block's groups."""
    actions = torch.ones(model.depth, count, model.action_size)
    if keep == "blocks":
        actions[:, :, 0] = (torch.rand(model.depth, count).argsort(0) < model.depth // 2).float()
    elif keep == "groups":
        groups = model.action_size - 1
        actions[:, :, 1:] = (torch.rand(model.depth, count, groups).argsort(2) < groups // 2).float()
    return actions
