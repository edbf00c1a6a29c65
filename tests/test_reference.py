"""The committed results, from the committed weights, on the real test images: figures must come out exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lcnet_rl.data import load_dataset
from lcnet_rl.evaluate import evaluate
from lcnet_rl.pretrain import dense_accuracy
from lcnet_rl.weights import REFERENCE, load_backbone, load_model

CPU = torch.device("cpu")
RUNS = sorted(path.parent for path in REFERENCE.glob("*/evaluation-test.json"))


@pytest.mark.cifar
def test_the_reference_resnet20_has_its_recorded_accuracy() -> None:
    recorded = json.loads((REFERENCE / "resnet20" / "metrics.json").read_text())
    backbone = load_backbone(str(REFERENCE / "resnet20"), "resnet20")
    assert dense_accuracy(backbone, load_dataset("cifar10", "test"), CPU) == recorded["test_accuracy"]


@pytest.mark.cifar
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_reference_run_has_its_recorded_figures(run: Path) -> None:
    recorded = json.loads((run / "evaluation-test.json").read_text())
    model = load_model(run)
    results = evaluate(model, load_dataset("cifar10", "test"), model.greedy(recorded["threshold"]), CPU)
    assert int(results.correct.sum()) == recorded["correct"]
    assert float(results.macs.mean()) == recorded["macs_mean"]
