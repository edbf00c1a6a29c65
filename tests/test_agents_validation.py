"""Which model a training run calls its best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_folders import write
from test_agents_runs import noise, setup_in, small_model

from agents.pricing import PricingConfig
from agents.sb3 import train_sb3
from agents.sb3_config import PPOConfig
from agents.validation import Validation
from lcnet_rl import tradeoff
from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.data import Dataset
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange
from lcnet_rl.runs import BEST, MODEL, START
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import load_tree, save_tree
from lcnet_rl.weights import load_model, save_backbone, save_model

CPU = torch.device("cpu")


def validation(run: Path) -> Validation:
    """On ten images, of which so many are of each class: 1, 2, 3, 4. Rewards are accuracies."""
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    val = Dataset("noise", "val", noise(10, "val").images, labels, tuple("abcd"))
    return Validation(small_model(), PricingConfig(reward="linear"), TrainingSetup(noise(8, "train"), val, run, 0, CPU))


def validate(one: Validation, always: int, settled: bool = True) -> float:
    """The reward of a network that calls all images class ``always``."""
    one.model.backbone.head.bias.data = 1000.0 * (torch.arange(4) == always)
    return one.validate(PriceRange(0.0, 0.0), 1, settled, calibrated=True)["eval/mean_reward"]


def best(run: Path) -> int:
    return int(load_model(run / BEST).backbone.head.bias.argmax())


def test_the_best_model_is_that_of_the_highest_reward(tmp_path: Path) -> None:
    one = validation(tmp_path)
    for always, so_far in ((1, 1), (0, 1), (2, 2), (1, 2), (3, 3), (0, 3)):
        assert validate(one, always) == pytest.approx(0.1 * (always + 1))
        assert best(tmp_path) == so_far


def test_while_the_price_ramps_up_no_model_is_the_best(tmp_path: Path) -> None:
    one = validation(tmp_path)
    validate(one, 3, settled=False)
    assert not (tmp_path / BEST).exists()
    validate(one, 1)
    validate(one, 2, settled=False)
    assert best(tmp_path) == 1


def test_a_resumed_run_knows_its_best_reward(tmp_path: Path) -> None:
    first = validation(tmp_path)
    validate(first, 2)
    save_tree({"best": first.state()}, tmp_path / "state")
    second = validation(tmp_path)
    second.restore(load_tree(tmp_path / "state")["best"])
    validate(second, 1)
    assert best(tmp_path) == 2
    validate(second, 3)
    assert best(tmp_path) == 3


def test_evaluate_takes_the_best_model_where_it_is_asked_to(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tradeoff, "CURVE", (0.5,))
    backbone = create_backbone("resnet8", 2, 4)
    run = write(tmp_path / "run", "train", dataset=images, agent={"price": 0.3, "reward": "linear"}, seed=0)
    save_backbone(backbone, run / START)
    for name, bias in ((BEST, -100.0), (MODEL, 100.0)):
        save_model(LCNet(backbone, keep_bias=bias), run / name)
    assert main(["evaluate", str(run), "--split", "val", "--which", "best"]) == 0
    figures = json.loads((run / "evaluation-val-best.json").read_text())
    assert (figures["which"], figures["kept_blocks"]) == ("best", [0.0] * 3)
    files = (("evaluation", "json"), ("images", "csv"), ("tradeoff", "png"), ("paths", "png"))
    assert {path.name for path in run.glob("*-val*")} == {f"{name}-val-best.{kind}" for name, kind in files}


def test_the_best_model_decides_at_the_price_that_it_was_the_best_at(tmp_path: Path) -> None:
    one = validation(tmp_path)
    one.validate(PriceRange(0.5, 0.5), 1, True)
    assert float(load_model(tmp_path / BEST).price) == 0.5


@pytest.mark.slow
def test_how_often_sb3s_training_is_validated_changes_nothing_in_it(tmp_path: Path) -> None:
    for every in (1, 100):
        (tmp_path / str(every)).mkdir()
        config = PPOConfig(timesteps=32 * 3 * 4, num_envs=32, episodes=1, batch_size=32, eval_every=every)
        train_sb3(small_model(), config, setup_in(tmp_path / str(every)))
    assert (tmp_path / "1" / MODEL).read_bytes() == (tmp_path / "100" / MODEL).read_bytes()
