"""The committed results, from the committed weights, on the real test images: figures must come out exactly."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from lcnet_rl.data import load_dataset
from lcnet_rl.evaluate import evaluate
from lcnet_rl.export import OnnxNetwork, compare, dynamic_model, layouts_here
from lcnet_rl.macs import dense_macs
from lcnet_rl.pretrain import dense_accuracy
from lcnet_rl.runs import MODEL
from lcnet_rl.weights import REFERENCE, load_backbone, load_model

CPU = torch.device("cpu")
EVALUATIONS = [p for p in sorted(REFERENCE.glob("*/evaluation-test*.json")) if (p.parent / MODEL).is_file()]
EXPORTED = ("resnet20-reinforce", "resnet20-ppo", "resnet20-range", "resnet20-second-33", "resnet20-third-23")
"""Both algorithms, a range of prices, two networks and three; an exported file runs image by image, so neither all runs
nor all images are tried."""
IMAGES = 2_000
"""Test images on which an exported file is compared with the engine."""


@pytest.mark.cifar
@pytest.mark.parametrize("name", ["resnet20", "resnet20-65-pruned-20", "resnet11-pool"])
def test_a_dense_reference_network_has_its_recorded_figures(name: str) -> None:
    recorded = json.loads((REFERENCE / name / "evaluation-test.json").read_text())
    backbone = load_backbone(str(REFERENCE / name))
    assert dense_accuracy(backbone, load_dataset("cifar10", "test"), CPU) == recorded["accuracy"]
    assert dense_macs(backbone) == recorded["macs_mean"]


@pytest.mark.cifar
@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_reference_run_has_its_recorded_figures(evaluation: Path) -> None:
    recorded = json.loads(evaluation.read_text())
    model, test = load_model(evaluation.parent), load_dataset("cifar10", "test")
    # Evaluations from before a price was recorded have the model's own.
    prices = torch.full((len(test),), recorded["price"]) if "price" in recorded else None
    results = evaluate(model, test, model.greedy(), CPU, prices=prices)
    assert int(results.correct.sum()) == recorded["correct"]
    assert float(results.macs.mean()) == recorded["macs_mean"]


@pytest.mark.cifar
@pytest.mark.parametrize("run", EXPORTED)
def test_an_exported_run_does_what_the_engine_does_on_test_images(run: str, tmp_path: Path) -> None:
    model = load_model(REFERENCE / run)
    for layout in layouts_here(model.backbone):
        onnx.save(dynamic_model(model, layout), tmp_path / "model.onnx")
        images = load_dataset("cifar10", "test").images[:IMAGES]
        agreement = compare(model, OnnxNetwork(tmp_path / "model.onnx"), images)
        agreement.check()
        assert agreement.same_predictions >= IMAGES - 1, agreement
