"""Which network an environment decides about: a fresh one, a model, or a run's; and settings that do not fit it."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from run_folders import trained
from test_envs_process import tiny, tiny_data, tiny_model

from envs.process import Process
from envs.settings import Settings
from envs.vector import LayerChannelSkipVectorEnv
from lcnet_rl import ENV_IDS, pretrained
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset, cifar10
from lcnet_rl.errors import UserError
from lcnet_rl.families import Family
from lcnet_rl.model import LCNet
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.rewards import create_reward
from lcnet_rl.spec import Decides
from lcnet_rl.weights import load_backbone, save_model

DENSE = REFERENCE / "shapes-resnet14"


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


def test_where_no_networks_come_with_the_project_none_is_said_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "REFERENCE", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no pretrained networks in .*nowhere: they come with a clone"):
        pretrained.own_weights("cifar10", "resnet20", None)


def test_a_backbone_that_knows_as_many_other_classes_is_refused() -> None:
    other = replace(tiny_data(), classes=tuple("abcdefghij"), labels=tiny_data().labels % 10)
    with pytest.raises(UserError, match=r"resnet20 knows the classes airplane, .*, but .* has a, b, c"):
        Process("both", Settings(init=REFERENCE / "resnet20", dataset=other))


def test_a_model_does_not_say_of_which_images_it_is() -> None:
    with pytest.raises(UserError, match="give dataset, too"):
        Process("both", Settings(model=tiny_model()))


def test_a_run_brings_its_own_images(images: str, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": images, "data_root": None}))
    with pytest.raises(UserError, match="3 classes apart, but the data set has 2"):
        Process("both", Settings(run=tmp_path))
    save_model(LCNet(create_backbone("resnet8", 2, 4)), tmp_path / "model.safetensors")
    assert Process("both", Settings(run=tmp_path)).dataset.name == images
    assert Process("both", Settings(run=tmp_path, split="test")).dataset.split == "test"


def test_environments_of_a_process_share_what_they_classify(images: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", LCNet(load_backbone(str(DENSE))), "shapes")
    ways: list[dict[str, Any]] = [{}, {"dataset": "shapes"}, {"run": run}, {"split": "val"}]
    made = [Process("both", Settings(data_root=tmp_path, **way)) for way in ways]
    first, named, of_run, val = (process.dataset for process in made)
    assert first is named is of_run
    assert val.split == "val"
    loaded = weakref.ref(first)
    del made, first, named, of_run, val
    gc.collect()
    assert loaded() is None, "nobody has it any more"
    folder, again = (Process("both", Settings(dataset=images, width=4)).dataset for _ in range(2))
    assert folder is not again, "it may have changed"


def mean_return(process: Process, greedy: bool, count: int) -> float:
    """Of the first images, under the model's own decisions or with everything skipped."""
    process.begin(np.arange(count))
    decide, ended, total = process.model.greedy(), False, 0.0
    while not ended:
        action = decide(process.model.observe(process.state))
        rewards, ended, _ = process.step((action if greedy else torch.zeros_like(action)).numpy())
        total += float(rewards.mean())
    return total


def test_a_runs_policy_earns_more_than_skipping_everything_at_its_own_price(tmp_path: Path) -> None:
    model = LCNet(load_backbone(str(DENSE)), "layers", groups=1, keep_bias=2.0)  # which keeps all blocks
    model.price.fill_(1.5)
    run = trained(tmp_path / "run", model, "shapes", price=1.5, reward="confidence")
    process = Process("layers", Settings(run=run, split="val"))
    assert mean_return(process, greedy=True, count=200) > mean_return(process, greedy=False, count=200) + 0.2
    linear = Process("layers", Settings(run=run, split="val", reward="linear"))
    assert mean_return(linear, greedy=True, count=200) < mean_return(linear, greedy=False, count=200), "of 0 or 1"


@pytest.mark.cifar
def test_a_committed_policy_earns_more_than_skipping_everything() -> None:
    process = Process("layers", Settings(run=REFERENCE / "resnet20-65-layers", split="val"))
    assert mean_return(process, greedy=True, count=500) > mean_return(process, greedy=False, count=500) + 0.2


def test_a_model_alone_or_a_file_without_its_run_is_rewarded_linearly(tmp_path: Path) -> None:
    assert Process("both", Settings(**tiny())).reward == create_reward("linear")
    save_model(tiny_model(), tmp_path / "model.safetensors")
    assert Process("both", Settings(dataset=tiny_data(), run=tmp_path)).reward == create_reward("linear")


def test_a_reward_that_only_the_run_knows_has_to_be_given(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", tiny_model(), "shapes", reward="quardatic")
    with pytest.raises(UserError, match=r"was trained for the reward 'quardatic', but .* give reward"):
        Process("both", Settings(run=run, dataset=tiny_data()))
    assert Process("both", Settings(run=run, dataset=tiny_data(), reward="quadratic")).reward.pays_by_step is False


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"init": "auto", "backbone": "resnet14", "width": 8},
        {"init": DENSE},
        {"init": str(DENSE / "backbone.safetensors")},
    ],
)
def test_fresh_gates_are_put_on_trained_weights(settings: dict[str, Any]) -> None:
    model = Process("layers", Settings(dataset="shapes", split="val", **settings)).model
    assert same_weights(model.backbone, load_backbone(str(DENSE)))


def test_scratch_is_what_fresh_gates_are_put_on_by_default() -> None:
    scratch, default = (Process("both", Settings(dataset=tiny_data(), init=init)).model for init in ("scratch", None))
    assert same_weights(scratch, default)


def test_starting_weights_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", tiny_model(), "shapes")
    for settings, said in (
        (tiny(init="auto"), "leave it out where a model or a run"),
        ({"init": run}, "give it as run"),
        ({"run": DENSE, "dataset": "shapes"}, "no agent: give it as init"),
        ({"init": "auto", "dataset": "shapes"}, "no pretrained resnet8"),
        ({"init": "auto", "dataset": "shapes", "backbone": "resnet14"}, "there is --width 8"),
        ({"init": DENSE, "dataset": "shapes", "backbone": "resnet20"}, "was asked for"),
        ({"init": tmp_path / "none"}, "no weights file"),
    ):
        with pytest.raises(UserError, match=said):
            Process("both", Settings(**{"dataset": tiny_data(), **settings}))


def test_where_data_live_may_be_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = []
    monkeypatch.setattr(cifar10, "load", lambda root, part: roots.append(root) or tiny_data().subset([]))
    with pytest.raises(UserError):  # an empty data set
        Process("both", Settings(dataset="cifar10", split="test", data_root=str(tmp_path)))
    assert roots == [tmp_path]


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
        ({"price": 1e39}, "price must be >= 0 .* and fit into float32, got 1e.39"),
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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"backbone": 3}, 'backbone must be a name: "resnet20", or "MODULE:FAMILY" of your own, got 3'),
        ({"backbone": Family((1, 1), True, 16)}, r"MODULE:FAMILY.*got Family\(stages"),
        ({"width": "8"}, "width must be a whole number, got '8'"),
        ({"width": 8.0}, "width must be a whole number, got 8.0"),
        ({"width": True}, "width must be a whole number, got True"),
        ({"groups": 2.0}, "groups must be a whole number, got 2.0"),
        ({"confidence": "no"}, "confidence must be True or False, got 'no'"),
        ({"confidence": 1}, "confidence must be True or False, got 1"),
        ({"dataset": ["shapes"]}, r"dataset must be a name or a lcnet_rl.data.Dataset, got \['shapes'\]"),
        ({"model": "runs/agent"}, "model must be an LCNet .* a run folder as run.* got 'runs/agent'"),
        ({"run": 3}, "run must be a path, got 3"),
        ({"init": 3}, "init must be a path, got 3"),
        ({"data_root": 3}, "data_root must be a path, got 3"),
        ({"device": None}, "device must be a name: cpu, cuda, cuda:N or auto, got None"),
        ({"split": "valid"}, "unknown split 'valid'; did you mean val"),
        ({"split": 3}, "unknown split '3'"),
        ({"price": [0.1]}, r"price is a number .* got \[0.1\]"),
        ({"reward": 3}, "reward 3 is no function"),
        ({"render_mode": 3}, "unknown render mode '3'"),
        ({"num_envs": "4"}, "num_envs must be a whole number >= 1, got '4'"),
        ({"num_envs": 2.0}, "num_envs must be a whole number >= 1, got 2.0"),
    ],
)
def test_a_keyword_of_the_wrong_type_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        LayerChannelSkipVectorEnv(**{"dataset": tiny_data(), "num_envs": 1, **wrong})


def test_whole_numbers_of_numpy_are_taken() -> None:
    numbers: dict[str, Any] = {"width": np.int64(4), "groups": np.int32(2)}
    assert Process("channels", Settings(dataset=tiny_data(), **numbers)).action_space.shape == (2,)


def test_a_model_for_layers_alone_takes_any_groups_which_mean_nothing_there() -> None:
    for groups in (0, 2, 4):
        assert Process("layers", Settings(**tiny("layers"), groups=groups)).action_space.shape == (1,)
    with pytest.raises(UserError, match="has groups 2, but 4 was asked for"):
        Process("both", Settings(**tiny("both"), groups=4))


@pytest.mark.parametrize("dataset", [None, tiny_data()], ids=["the run's images", "others"])
def test_a_file_of_a_run_is_no_run_whatever_images_there_are(dataset: Dataset | None, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", tiny_model(), "shapes")
    with pytest.raises(UserError, match=f"is a file: give {run}, or what load_model reads"):
        Process("both", Settings(dataset=dataset, run=run / "model.safetensors"))


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model"):
        Process("both", Settings(dataset=tiny_data(), run=tmp_path / "nothing"))
