"""Which network an environment decides about: a fresh one, a model, or a run's; and settings that do not fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_envs_process import tiny, tiny_data, tiny_model

from envs.process import ENV_IDS, Process, Settings
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.spec import Decides
from lcnet_rl.weights import save_model


def test_fresh_weights_are_always_the_same_and_disturb_no_random_state() -> None:
    state = torch.get_rng_state()
    first, second = (Process("both", Settings(dataset=tiny_data(), width=4)).model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_fresh_models_are_for_the_prices_asked_for() -> None:
    ranged, single = (Process("layers", Settings(dataset=tiny_data(), price=price)) for price in ("0.1..0.9", 0.3))
    assert ranged.model.spec.prices == ranged.prices
    assert single.model.spec.prices is None


@pytest.mark.parametrize(("asked", "found"), [(None, True), (True, True), (False, False)])
def test_fresh_models_have_the_confidence_asked_for(asked: bool | None, found: bool) -> None:
    process = Process("both", Settings(dataset=tiny_data(), width=4, confidence=asked))
    assert process.model.spec.confidence == ("confidence" in process.observation_space.spaces) == found


@pytest.mark.parametrize("confidence", [True, False])
def test_a_model_with_other_confidence_is_refused(confidence: bool) -> None:
    model = tiny_model(confidence=confidence)
    assert Process("both", Settings(model=model, dataset=tiny_data(), confidence=confidence)).model is model
    with pytest.raises(UserError, match=f"has confidence {confidence}, but {not confidence} was asked for"):
        Process("both", Settings(model=model, dataset=tiny_data(), confidence=not confidence))


def test_a_run_is_loaded_from_its_folder(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors")
    loaded = Process("both", Settings(dataset=tiny_data(), run=tmp_path)).model
    assert loaded.spec == model.spec
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_run_brings_its_own_images(images: str, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": images, "data_root": None}))
    with pytest.raises(UserError, match="3 classes apart, but the data set has 2"):
        Process("both", Settings(run=tmp_path))
    save_model(LCNet(create_backbone("resnet8", 2, 4)), tmp_path / "model.safetensors")
    assert Process("both", Settings(run=tmp_path)).dataset.name == images
    assert Process("both", Settings(run=tmp_path, split="test")).dataset.split == "test"


@pytest.mark.parametrize("decides", ENV_IDS)
def test_a_model_with_other_decisions_is_refused_with_the_right_id(decides: Decides) -> None:
    for other in set(ENV_IDS) - {decides}:
        with pytest.raises(UserError, match=f"needs {ENV_IDS[decides]}, not {ENV_IDS[other]}"):
            Process(other, Settings(**tiny(decides)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"price": -0.1}, "price must be >= 0"),
        ({"price": float("nan")}, "price must be >= 0"),
        ({"run": "somewhere"}, "not both"),
        ({"width": 8}, "has width 4, but 8"),
        ({"backbone": "resnet20"}, "has backbone resnet8"),
        ({"reward": "linaer"}, "did you mean linear"),
        ({"dataset": "shape"}, "did you mean shapes"),
        ({"dataset": tiny_data().subset([])}, "holds no image"),
        ({"dataset": Dataset("two", "train", tiny_data(2).images, torch.arange(2), ("a", "b"))}, "3 classes apart"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Process("both", Settings(**tiny(**wrong)))


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model"):
        Process("both", Settings(dataset=tiny_data(), run=tmp_path / "nothing"))
