"""The README's Python is Python: every block compiles, imports what exists, and runs, with smaller numbers."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import balance, images, lively
from PIL import Image

from lcnet_rl.data.folder import readable_images
from lcnet_rl.export import dynamic_model
from lcnet_rl.export.layout import Layout
from lcnet_rl.provenance import ROOT
from lcnet_rl.rewards import Judgement, create_reward

SNIPPETS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
OWN_NETWORK, SINGLE, VECTOR, TRAINED, SB3, EVALUATED, OWN_REWARD, ENGINE, EXPORTED = range(9)
SMALLER = {
    "num_envs=512": "num_envs=2",
    "VectorEnv(256, ": "VectorEnv(8, ",
    "100_000": "72",
    "batch_size=256": "batch_size=36",
}
BUILT_IN = {
    'dataset="cifar10", run="runs/reference/resnet20-65-layers"': 'width=4, split="val"',
    '"cifar10"': '"shapes"',
}


def run(numbers: list[int], replaced: dict[str, str]) -> dict[str, Any]:
    """Run snippets one after another, as a reader would, with parts of them replaced; returns their names."""
    names: dict[str, Any] = {}
    for number in numbers:
        text = SNIPPETS[number]
        for old, new in replaced.items():
            text = text.replace(old, new)
        exec(compile(text, f"README.md, snippet {number}", "exec"), names)
    return names


def test_every_snippet_is_known_here_and_what_is_replaced_is_in_one() -> None:
    assert len(SNIPPETS) == EXPORTED + 1
    assert all(old in "".join(SNIPPETS) for old in (SMALLER | BUILT_IN))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_compiles_and_imports_what_exists(snippet: str) -> None:
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert all(hasattr(importlib.import_module(node.module), alias.name) for alias in node.names)


def test_a_network_of_ones_own_is_one_as_documented() -> None:
    short = run([OWN_NETWORK], {})["short"]
    assert (short.stages, short.growth) == ((1, 2), (1, 4))


def test_a_reward_of_ones_own_is_one_as_documented() -> None:
    reward = create_reward(run([OWN_REWARD], {})["cubic"])
    judged = Judgement(torch.tensor([1.0, 0.0]), torch.tensor([-0.1, -2.0]), torch.tensor([0.9, 0.5]))
    assert reward(judged, torch.tensor([0.5, 1.0]), torch.tensor(2.0)).tolist() == [0.75, -2.0]


def test_environments_are_made_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([SINGLE, VECTOR], SMALLER)["envs"].num_envs == 2
    assert "predicted" in capsys.readouterr().out


@pytest.mark.slow
def test_an_agent_is_trained_and_compared_with_the_controls_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    names = run([SB3, EVALUATED], SMALLER | BUILT_IN)
    played, measured = (model.backbone.state_dict() for model in (names["envs"].process.model, names["model"]))
    assert any(not torch.equal(played[key], measured[key]) for key in played), "recalibrated is a copy only"
    shown = capsys.readouterr().out
    assert [name for name in ("agent", "keep-all", "random", "shuffled", "static") if f"{name}: " not in shown] == []


@pytest.mark.cifar
def test_a_trained_policy_decides_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = run([SINGLE, TRAINED], SMALLER)
    assert 0 < names["info"]["macs_ratio"] < 1


@pytest.mark.slow
@pytest.mark.cifar
def test_the_engine_runs_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(run([ENGINE], {})["outcome"].logits) == 128


def test_an_exported_file_names_the_class_of_a_picture_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, names = balance(lively("resnet14"), images(64)), [f"kind {number}" for number in range(10)]
    onnx.save(dynamic_model(model, Layout(), names), "model.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)).save("photo.png")
    run([EXPORTED], {"runs/reference/resnet20-second-64-26/": ""})
    with torch.no_grad():
        expected = model.run(readable_images([Path("photo.png")])[0], model.greedy())
    assert capsys.readouterr().out == f"{names[int(expected.logits.argmax())]} {int(expected.macs)}\n"
