"""All three algorithms on a problem whose best decisions are known.

The network is built by hand: the stem's first channel is brightness; block 0 copies it into the second channel;
blocks 1 and 2 add nothing; the head calls an image bright iff the second channel is on. So for bright images block 0
is worth its price, for dark ones it is not, and blocks 1 and 2 never are.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from agents.sb3 import train_sb3
from agents.sb3_config import A2CConfig, PPOConfig
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import evaluate
from lcnet_rl.model import LCNet
from lcnet_rl.policies import PolicyName
from lcnet_rl.training_setup import TrainingSetup

CPU = torch.device("cpu")
FROZEN = {"lr": 1e-12, "weight_decay": 0.0, "distill": 0.0}


def bright_or_dark(count: int, split: str) -> Dataset:
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 40, (count, 3, 32, 32), generator=generator)
    return Dataset(
        "brightness", split, (noise + 180 * labels[:, None, None, None]).to(torch.uint8), labels, ("dark", "bright")
    )


def setup_in(run: Path) -> TrainingSetup:
    return TrainingSetup(bright_or_dark(512, "train"), bright_or_dark(200, "val"), run, 0, CPU)


def hand_built(policy: PolicyName = "lc") -> LCNet:
    backbone = create_backbone("resnet8", 2, 4)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.zero_()
        backbone.stem.conv.weight[0, :, 1, 1] = 1.0
        backbone.blocks[0].conv1.weight[0, 0, 1, 1] = 1.0
        backbone.blocks[0].conv2.weight[1, 0, 1, 1] = 1.0
        for block in list(backbone.blocks)[1:]:
            block.bn2.weight.zero_()
        # Two padded shortcuts move channel 1 up by 2 and by 4.
        backbone.head.weight[1, 7] = 10.0
        backbone.head.bias.copy_(torch.tensor([0.0, -4.0]))
    return LCNet(backbone, "layers", keep_bias=0.0, confidence=policy == "lc", policy=policy)


def assert_solved(model: LCNet) -> None:
    val = bright_or_dark(200, "val")
    results = evaluate(model, val, model.greedy(), CPU)
    keeps = results.actions[:, :, 0]
    bright = val.labels == 1
    assert results.accuracy == 1.0
    assert (keeps[0] == bright.float()).all(), "block 0 is worth its price for bright images only"
    assert keeps[1:].sum() == 0, "blocks 1 and 2 are worth nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {"rollouts": 2},
        {"rollouts": 1, "baseline": "mean-field", "control_variate": "first-order"},
        {"rollouts": 1, "baseline": "self-critical", "cost_gradient": "sampled"},
    ],
    ids=lambda flags: flags.get("baseline", "leave-one-out"),
)
def test_reinforce_finds_the_best_decisions(tmp_path: Path, flags: dict) -> None:
    torch.manual_seed(0)
    config = ReinforceConfig(
        **FROZEN,
        **flags,
        epochs=14,
        batch_size=64,
        reward="linear",
        price=1.0,
        gate_lr=0.05,
        warmup=0.05,
        polish=0.05,
        evals=2,
    )
    model = hand_built()
    Reinforce(model, config, setup_in(tmp_path)).train()
    assert_solved(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(
            **FROZEN,
            timesteps=24_000,
            num_envs=128,
            reward="linear",
            price=1.0,
            gate_lr=0.01,
            warmup_steps=10,
            finetune=1,
            minibatch=192,
        ),
        A2CConfig(
            **FROZEN,
            timesteps=60_000,
            num_envs=128,
            reward="linear",
            price=1.0,
            gate_lr=0.02,
            warmup_steps=10,
            finetune=1,
        ),
    ],
    ids=["ppo", "a2c"],
)
def test_stable_baselines3_finds_the_best_decisions(tmp_path: Path, config: PPOConfig | A2CConfig) -> None:
    torch.manual_seed(0)
    model = hand_built()
    train_sb3(model, config, setup_in(tmp_path))
    assert_solved(model)
