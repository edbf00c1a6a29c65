"""Test images never choose: which images commands read, and which of them decide anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from networks import lively
from run_folders import trained

from agents import controls
from lcnet_rl import budget
from lcnet_rl.commands import main
from lcnet_rl.data import Dataset
from lcnet_rl.data.dataset import Part
from lcnet_rl.rewards import PriceRange


def watched(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """A list that gets the split of the images with which ``module`` calls its function ``name``, call by call."""
    function, splits = getattr(module, name), []

    def watch(model: Any, dataset: Dataset, *others: Any, **named: Any) -> Any:
        splits.append(dataset.split)
        return function(model, dataset, *others, **named)

    monkeypatch.setattr(module, name, watch)
    return splits


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_training_reads_its_images_once_and_no_test_images(
    parts_read: list[Part], images: str, tmp_path: Path, command: str
) -> None:
    options = {"train": ["--init", "scratch", "--batch-size", "24", "--epochs", "1"]}
    options["pretrain"] = ["--recipe.batch-size", "24", "--recipe.epochs", "1"]
    network = ["--dataset", images, "--backbone", "resnet8", "--width", "4"]
    assert main([command, *network, *options[command], "--run", str(tmp_path / "run")]) == 0
    assert parts_read == ["train"]


@pytest.mark.parametrize("price", [0.3, "0.1..2"])
def test_evaluating_test_images_chooses_by_validation_images_and_recalibrates_on_training_images(
    monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path, price: float | str
) -> None:
    prices = PriceRange(0.1, 2.0) if isinstance(price, str) else None
    run = trained(tmp_path / "run", lively(classes=2, prices=prices), images, price)
    chose, averaged = (watched(monkeypatch, budget, name) for name in ("evaluate", "recalibrate"))
    judged, averaged_too = (watched(monkeypatch, controls, name) for name in ("evaluate", "recalibrate"))
    for picture in ("trade_off", "plot_tradeoff", "picture_paths"):  # which take longer than all else
        monkeypatch.setattr(f"lcnet_rl.commands.evaluate.{picture}", lambda *_: None)
    assert main(["evaluate", str(run), "--budget", "0.8"]) == 0
    assert set(chose) == {"val"}
    assert set(averaged) == ({"train"} if prices is None else set())
    assert set(averaged_too) == {"train"}
    paths = judged.count("val")
    assert paths > 1
    assert judged == ["test"] * 3 + ["val"] * paths + ["test"], "of static paths only the chosen one"
    assert json.loads((run / "evaluation-test-budget0.8.json").read_text())["images"] == 20
