"""Weights files: what is saved comes back, and what is no weights file is refused in one line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import lively
from safetensors.torch import save_file
from test_backbones import noise, tiny_backbone
from torch import Tensor

from lcnet_rl.backbones import Backbone, BackboneSpec, create_backbone
from lcnet_rl.commands import main
from lcnet_rl.data import load_dataset
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.pretrained import PRETRAINED, pretrained
from lcnet_rl.rewards import PriceRange
from lcnet_rl.runs import CHECKPOINT, CONFIG
from lcnet_rl.spec import Decides, ModelSpec
from lcnet_rl.weights import load_backbone, load_model, save_backbone, save_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights" / "resnet20-12fca82f.th"
AKAMASTER = Path(os.environ.get("LCNET_RL_AKAMASTER", SHARED))


def refusal(init: Path, **expected: Any) -> str:
    """The message with which a file is refused."""
    with pytest.raises(UserError) as caught:
        load_backbone(str(init), **{"classes": 4, **expected})
    message = str(caught.value)
    assert "\n" not in message
    return message


def akamaster_state(backbone: Backbone) -> dict[str, Tensor]:
    """A He network's weights under the names that akamaster's training gives them."""
    count = len(backbone.blocks) // 3
    renamed = {}
    for key, tensor in backbone.state_dict().items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.*)", key)
        if block:
            stage, index = divmod(int(block[1]), count)
            key = f"layer{stage + 1}.{index}.{block[2]}"
        key = key.replace("stem.conv", "conv1").replace("stem.bn", "bn1").replace("head.", "linear.")
        renamed[f"module.{key}"] = tensor
    return renamed


def write_akamaster(path: Path, old_format: bool) -> Backbone:
    backbone = tiny_backbone("resnet14")
    content = {"state_dict": akamaster_state(backbone), "best_prec1": 91.73}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    return backbone


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_a_saved_backbone_comes_back_exactly(tmp_path: Path, name: str) -> None:
    backbone = tiny_backbone(name)
    save_backbone(backbone, tmp_path / "w.safetensors")
    loaded = load_backbone(str(tmp_path / "w.safetensors"), classes=4).eval()
    assert loaded.spec == backbone.spec
    assert torch.equal(loaded(noise()), backbone(noise()))


@pytest.mark.parametrize(("decides", "groups"), [("layers", 2), ("channels", 0), ("both", 2)])
@pytest.mark.parametrize(("confidence", "prices"), [(True, None), (False, None), (True, PriceRange(0.1, 1.6))])
def test_a_saved_model_comes_back_exactly(
    tmp_path: Path, decides: Decides, groups: int, confidence: bool, prices: PriceRange | None
) -> None:
    model = LCNet(tiny_backbone(), decides, groups, confidence=confidence, prices=prices).eval()
    model.price.fill_(0.4)
    with torch.no_grad():
        for parameter in [*model.policy_parameters(), *model.scale_parameters()]:
            parameter.add_(torch.randn_like(parameter))
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert loaded.spec == ModelSpec(BackboneSpec("resnet8", 4, 4), decides, groups, confidence, prices)
    assert not loaded.training
    ours, theirs = (m.run(noise(), m.greedy()) for m in (model, loaded))
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.actions, theirs.actions)
    assert float(loaded.price) == pytest.approx(0.4)


def write_model(model: LCNet, path: Path, header: dict[str, Any]) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"model": json.dumps(header)})


def test_a_model_file_from_before_an_option_was_one_has_what_all_had(tmp_path: Path) -> None:
    model = LCNet(tiny_backbone())
    header = asdict(model.spec)
    del header["confidence"], header["prices"]
    write_model(model, tmp_path / "model.safetensors", header)
    assert load_model(tmp_path).spec == model.spec
    assert model.spec.confidence
    assert model.spec.prices is None


@pytest.mark.parametrize("prices", ["cheap", {"low": 1}, [0.1, 1.6]])
def test_a_model_file_with_unreadable_prices_is_refused(tmp_path: Path, prices: Any) -> None:
    model = LCNet(tiny_backbone())
    write_model(model, tmp_path / "model.safetensors", {**asdict(model.spec), "prices": prices})
    with pytest.raises(UserError, match="names no architecture that this version knows"):
        load_model(tmp_path)


@pytest.mark.parametrize("confidence", [True, False])
def test_a_model_whose_header_is_wrong_about_confidence_is_refused(tmp_path: Path, confidence: bool) -> None:
    model = LCNet(tiny_backbone(), confidence=confidence)
    write_model(model, tmp_path / "model.safetensors", {**asdict(model.spec), "confidence": not confidence})
    with pytest.raises(UserError, match="does not fit the architecture that it names"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["w.th", "w.pth", "w"])
def test_of_a_public_network_it_is_said_that_it_knows_the_validation_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_akamaster(tmp_path / name, old_format=False)
    load_backbone(str(tmp_path / name), classes=4)
    assert "trained on all 50,000 training images" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", [b"<html>oops", b"", b"\x80\x02}q"])
def test_a_damaged_download_of_the_public_network_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet20-12fca82f.th").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoints/resnet20-12fca82f\.th is not akamaster's .*: delete it"):
        load_backbone("akamaster")


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save(dict.fromkeys(["conv1.weight", "linear.weight", "layer1.0.conv1.weight"], 1.0), tmp_path / "w.th")
    assert "is no akamaster CIFAR checkpoint" in refusal(tmp_path / "w.th")


@pytest.mark.parametrize("old_format", [True, False], ids=["legacy", "zip"])
def test_an_akamaster_checkpoint_gives_the_network_that_it_was_made_from(tmp_path: Path, old_format: bool) -> None:
    backbone = write_akamaster(tmp_path / "w.th", old_format)
    loaded = load_backbone(str(tmp_path / "w.th"), classes=4).eval()
    assert loaded.spec == BackboneSpec("resnet14", 4, 4)
    assert torch.equal(loaded(noise()), backbone(noise()))


@pytest.mark.cifar
def test_the_public_resnet20_classifies_9173_of_the_cifar_test_images_rightly() -> None:
    test = load_dataset("cifar10", "test")
    init = str(AKAMASTER) if AKAMASTER.is_file() else "akamaster"  # without the file at hand, download it
    accuracy = dense_accuracy(load_backbone(init, "resnet20"), test, torch.device("cpu"))
    assert round(accuracy * len(test)) == 9173
    assert len(test) == 10_000


def test_a_pretrain_run_folder_stands_for_its_backbone(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    assert torch.equal(load_backbone(str(tmp_path), classes=4).eval()(noise()), backbone(noise()))


def test_an_engine_is_saved_neither_as_a_model_nor_as_a_backbone(tmp_path: Path) -> None:
    engine = Engine(lively())
    with pytest.raises(UserError, match="save the network that this one was made of"):
        save_model(engine, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="save the network that this one was made of"):
        save_backbone(engine.backbone, tmp_path / "backbone.safetensors")
    assert not list(tmp_path.iterdir())


def test_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    assert str(tmp_path / "no.safetensors") in refusal(tmp_path / "no.safetensors")
    assert str(tmp_path) in refusal(tmp_path)
    with pytest.raises(UserError, match="no model at"):
        load_model(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_backbone(tiny_backbone(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged" in refusal(path)
    with pytest.raises(UserError, match="damaged"):
        load_model(path)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("old_format", [True, False], ids=["legacy", "zip"])
def test_a_truncated_akamaster_checkpoint_is_refused(tmp_path: Path, old_format: bool, share: float) -> None:
    path = tmp_path / "w.th"
    write_akamaster(path, old_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"hello", b"# Weights\n\nNot weights.\n", bytes(range(256)), b"\x80\x02"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.th"
    path.write_bytes(content)
    assert str(path) in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"weight": torch.zeros(2)},
        {"state_dict": 3},
        {1: torch.zeros(2)},
        {"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3), "linear.weight": torch.zeros(4, 16)},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.th")
    assert str(tmp_path / "w.th") in refusal(tmp_path / "w.th")


def test_safetensors_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    assert "header names no architecture" in refusal(path)
    with pytest.raises(UserError, match="header names no architecture"):
        load_model(path)


@pytest.mark.parametrize("header", ["{", "3", '{"name": "resnet8"}'])
@pytest.mark.parametrize("kind", ["backbone", "model"])
def test_a_header_that_names_half_an_architecture_is_refused(tmp_path: Path, kind: str, header: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={kind: header})
    with pytest.raises(UserError):
        load_backbone(str(path)) if kind == "backbone" else load_model(path)


def test_a_model_is_no_backbone_and_a_backbone_no_model(tmp_path: Path) -> None:
    save_model(LCNet(tiny_backbone()), tmp_path / "model.safetensors")
    save_backbone(tiny_backbone(), tmp_path / "backbone.safetensors")
    assert "holds an agent; give its run folder" in refusal(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="holds a dense network, and an agent is wanted"):
        load_model(tmp_path / "backbone.safetensors")


@pytest.mark.parametrize("expected", [{"name": "resnet20"}, {"classes": 10}, {"width": 16}])
def test_weights_of_another_network_than_asked_for_are_refused(tmp_path: Path, expected: dict[str, Any]) -> None:
    save_backbone(tiny_backbone(), tmp_path / "w.safetensors")
    message = refusal(tmp_path / "w.safetensors", **expected)
    assert "holds resnet8 (width 4, 4 classes)" in message
    assert str(next(iter(expected.values()))) in message


def test_tensors_that_do_not_fit_the_named_architecture_are_refused(tmp_path: Path) -> None:
    wrong = create_backbone("resnet14", 4, 4)
    wrong.spec = BackboneSpec("resnet8", 4, 4)
    save_backbone(wrong, tmp_path / "w.safetensors")
    assert "does not fit" in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize(("dataset", "name", "width"), PRETRAINED)
def test_networks_that_come_with_the_project_are_what_they_are_listed_as(dataset: str, name: str, width: int) -> None:
    path = pretrained(dataset, name, width)
    assert path is not None
    spec = load_backbone(str(path), name, width=width).spec
    assert (spec.name, spec.width) == (name, width)


def test_without_a_width_the_usual_one_is_meant() -> None:
    assert pretrained("cifar10", "resnet20", None) == pretrained("cifar10", "resnet20", 16)
    assert pretrained("cifar10", "resnet16-late", None) == pretrained("cifar10", "resnet16-late", 24)
    assert pretrained("cifar10", "resnet18", None) == pretrained("cifar10", "resnet18", 64)
    assert pretrained("cifar10", "resnet44", None) is None
    assert pretrained("cifar10", "resnet21", None) is None


def test_networks_of_a_data_set_are_those_for_what_it_held_out() -> None:
    assert pretrained("held-out:cifar10", "resnet20", None) == pretrained("cifar10", "resnet20", None) is not None


def test_a_model_file_with_an_unreadable_width_is_refused(tmp_path: Path) -> None:
    model = LCNet(tiny_backbone())
    header = asdict(model.spec)
    write_model(model, tmp_path / "model.safetensors", {**header, "backbone": {**header["backbone"], "width": "wide"}})
    with pytest.raises(UserError, match="names no architecture that this version knows"):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_file_whose_weights_are_no_numbers_is_refused(tmp_path: Path, value: float) -> None:
    model = LCNet(tiny_backbone())
    model.backbone.head.bias.data[0] = value
    write_model(model, tmp_path / "model.safetensors", asdict(model.spec))
    with pytest.raises(UserError, match="weights that are no numbers"):
        load_model(tmp_path)
    save_backbone(model.backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(UserError, match="weights that are no numbers"):
        load_backbone(str(tmp_path), classes=4)


def test_a_folder_without_its_best_model_is_told_which_it_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the run finished"):
        load_model(tmp_path / "best.safetensors")
    model = LCNet(tiny_backbone())
    write_model(model, tmp_path / "model.safetensors", asdict(model.spec))
    with pytest.raises(UserError, match="the final model only"):
        load_model(tmp_path / "best.safetensors")


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_of_a_run_that_was_stopped_it_is_said_how_to_go_on(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = {"agent": {"price": 0.3}} if command == "train" else {}
    (tmp_path / CONFIG).write_text(json.dumps({"dataset": "shapes", "data_root": None, "seed": 0, **agent}))
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "--resume" not in capsys.readouterr().err, "without a checkpoint it cannot go on"
    (tmp_path / CHECKPOINT).touch()
    for arguments in (["evaluate"], ["predict", "x.png"]):
        assert main([arguments[0], str(tmp_path), *arguments[1:]]) == 2
        assert f"to go on: lcnet-rl {command} --resume {tmp_path}" in capsys.readouterr().err
    finished = {"train": "model.safetensors", "pretrain": "backbone.safetensors"}[command]
    (tmp_path / finished).touch()
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "best.safetensors") if command == "train" else load_model(tmp_path)
    assert "--resume" not in str(caught.value)


def test_a_finished_agent_is_not_taken_for_a_stopped_run_where_a_dense_network_is_wanted(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"dataset": "shapes", "agent": {"price": 0.3}}))
    for name in (CHECKPOINT, "model.safetensors"):
        (tmp_path / name).touch()
    assert "no weights file at" in refusal(tmp_path)
