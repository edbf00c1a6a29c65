"""The committed results, from the committed weights, on the real test images: figures must come out exactly.

All runs on all images take a quarter of an hour, which is for ``pytest -m every_run``; the others take one run of each
kind, and every run on some images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from lcnet_rl.data import load_dataset
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.evaluate import Results, evaluate
from lcnet_rl.export import OnnxNetwork, compare, dynamic_model, layouts_here
from lcnet_rl.macs import dense_macs
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.runs import MODEL
from lcnet_rl.weights import load_backbone, load_model

CPU = torch.device("cpu")
EVALUATIONS = [p for p in sorted(REFERENCE.glob("*/evaluation-test*.json")) if (p.parent / MODEL).is_file()]
EXPORTED = ("resnet20-reinforce", "resnet20-ppo", "resnet20-range", "resnet20-second-33", "resnet20-third-23")
"""Both algorithms, a range of prices, two networks and three; an exported file runs image by image, so neither all runs
nor all images are tried."""
ONE_OF_EACH_KIND = (
    *EXPORTED,
    "resnet14-wide-60",
    "resnet16-late-45-layers",
    "resnet18-32-50",
    "resnet20-45-channels",
    "resnet20-65-blockdrop",
    "resnet20-65-convnet-aig",
    "resnet20-65-skipnet",
    "resnet20-learned-64-26",
    "resnet20-learned-third-17",
)
IMAGES = 1_000
"""Test images on which an exported file is compared with the engine, and every run with what is recorded of it."""
CERTAIN = 4
"""Standard errors that figures of some images may differ from those of all."""


@pytest.mark.cifar
@pytest.mark.parametrize("name", ["resnet20", "resnet20-65-pruned-20", "resnet11-pool", "resnet56"])
def test_a_dense_reference_network_has_its_recorded_figures(name: str) -> None:
    recorded = json.loads((REFERENCE / name / "evaluation-test.json").read_text())
    backbone = load_backbone(str(REFERENCE / name))
    assert dense_accuracy(backbone, load_dataset("cifar10", "test"), CPU) == recorded["accuracy"]
    assert dense_macs(backbone) == recorded["macs_mean"]


def called(evaluation: Path) -> str:
    return f"{evaluation.parent.name}-{evaluation.stem}"


def measured(evaluation: Path, images: int | None = None) -> tuple[Results, dict[str, Any]]:
    """What the run does with the first test images, or with all, and what is recorded of all."""
    recorded, test = json.loads(evaluation.read_text()), load_dataset("cifar10", "test")
    test = test.subset(range(images or len(test)))
    model = load_model(evaluation.parent)
    # Evaluations from before a price was recorded have the model's own.
    prices = torch.full((len(test),), recorded["price"]) if "price" in recorded else None
    return evaluate(model, test, model.greedy(), CPU, prices=prices), recorded


def test_every_kinds_run_is_among_the_evaluated_ones() -> None:
    assert set(ONE_OF_EACH_KIND) <= {evaluation.parent.name for evaluation in EVALUATIONS}


@pytest.mark.cifar
@pytest.mark.parametrize("evaluation", [p for p in EVALUATIONS if p.parent.name in ONE_OF_EACH_KIND], ids=called)
def test_one_run_of_each_kind_has_its_recorded_figures(evaluation: Path) -> None:
    results, recorded = measured(evaluation)
    assert int(results.correct.sum()) == recorded["correct"]
    assert float(results.macs.mean()) == recorded["macs_mean"]


@pytest.mark.every_run
@pytest.mark.parametrize("evaluation", [p for p in EVALUATIONS if p.parent.name not in ONE_OF_EACH_KIND], ids=called)
def test_every_other_run_has_its_recorded_figures(evaluation: Path) -> None:
    test_one_run_of_each_kind_has_its_recorded_figures(evaluation)


@pytest.mark.cifar
@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=called)
def test_every_run_does_on_some_images_what_is_recorded_of_all(evaluation: Path) -> None:
    results, recorded = measured(evaluation, IMAGES)
    near = CERTAIN / IMAGES**0.5
    deviation = (recorded["accuracy"] * (1 - recorded["accuracy"])) ** 0.5
    assert results.accuracy == pytest.approx(recorded["accuracy"], abs=near * deviation)
    assert float(results.macs.mean()) == pytest.approx(recorded["macs_mean"], abs=near * recorded["macs_std"])


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
