"""Gates between finished networks learn on held-out images, and are measured on the test images of all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.data import load_dataset
from lcnet_rl.weights import load_backbone, load_model, save_backbone


@pytest.mark.slow
def test_a_row_of_networks_learns_its_gates_and_leaves_its_networks_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name, width in (("small", 4), ("large", 8)):
        save_backbone(create_backbone("resnet8", 10, width), tmp_path / f"{name}.safetensors")
    network = ["--dataset", "held-out:shapes", "--backbone", "resnet8", "--width", "4", "--init", "small.safetensors"]
    arguments = ["train", "--preset", "cifar10-second", *network, "--epochs", "1", "--batch-size", "64"]
    assert main(arguments) == 2
    assert "give a --second network" in " ".join(capsys.readouterr().err.split())
    assert main([*arguments, "--second", "large.safetensors", "--target", "0.6", "--run", "row"]) == 0
    model = load_model(tmp_path / "row")
    assert all(gate.keep.weight.any() for gate in model.gates())
    for ours, name in zip(model.backbone.networks, ("small", "large"), strict=True):
        weights, theirs = ours.state_dict(), load_backbone(f"{name}.safetensors")
        assert all(torch.equal(value, weights[key]) for key, value in theirs.named_parameters() if "head" not in key)
    assert main(["evaluate", "row"]) == 0
    evaluation = json.loads((tmp_path / "row" / "evaluation-test.json").read_text())
    assert (evaluation["dataset"], evaluation["images"]) == ("shapes", len(load_dataset("shapes", "test")))
