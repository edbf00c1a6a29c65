"""``lcnet-rl export``: the file that it leaves does what the run's model does."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from networks import balance, lively
from run_folders import pretrained, trained

from lcnet_rl.backbones import create_backbone
from lcnet_rl.budget import Measurement, meet_budget
from lcnet_rl.commands import export, main
from lcnet_rl.data import Dataset, Split, load_dataset
from lcnet_rl.export import OnnxNetwork, blocked_size, dense_model, dynamic_model, open_session
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.provenance import ROOT
from lcnet_rl.rewards import PriceRange
from lcnet_rl.runs import BEST, MODEL
from lcnet_rl.weights import load_model, save_model

BUILT_IN = "built into the file: leave its input threshold at 0.5, the default"
BLOCKED = pytest.mark.skipif(blocked_size() == 1, reason="ONNX Runtime has no blocked kernels here")


@pytest.fixture
def run(images: str, tmp_path: Path) -> Path:
    """A run on dark and bright images whose best model is another one than its final one."""
    seen = load_dataset(images, "train").images
    run = trained(tmp_path / "run", balance(lively(width=16, classes=2), seen), images)
    save_model(balance(lively(groups=2, width=16, classes=2), seen), run / BEST)
    return run


def metadata(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def assert_does_what(model: LCNet, file: Path, pixels: torch.Tensor) -> OnnxNetwork:
    network = OnnxNetwork(file)
    got = network.run(pixels)
    with torch.no_grad():
        expected = model.run(pixels, model.greedy())
    assert len(expected.macs.unique()) > 1
    assert torch.equal(got.macs, expected.macs)
    torch.testing.assert_close(got.logits, expected.logits, atol=3e-4 * float(expected.logits.abs().max()), rtol=0)
    return network


def test_the_file_does_what_the_final_model_does_and_names_the_classes(run: Path, images: str) -> None:
    assert main(["export", str(run)]) == 0
    network = assert_does_what(load_model(run / MODEL), run / "model.onnx", load_dataset(images, "test").images)
    assert network.layout == "standard"
    said = metadata(run / "model.onnx")
    assert json.loads(said["classes"]) == ["bright", "dark"]
    assert (said["run"], said["which"]) == ("run", "final")
    assert not {"budget", "shift"} & said.keys()


def test_the_best_model_goes_where_and_in_the_layout_that_was_asked_for(run: Path, images: str, tmp_path: Path) -> None:
    layout = "blocked" if blocked_size() > 1 else "standard"
    out = tmp_path / "other.onnx"
    assert main(["export", str(run), "--which", "best", "--out", str(out), "--layout", layout]) == 0
    network = assert_does_what(load_model(run / BEST), out, load_dataset(images, "test").images)
    assert network.layout.startswith(layout)
    assert not (run / "model.onnx").exists()


def test_the_defaults_of_a_file_for_a_budget_meet_it_on_validation_images(
    run: Path, images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = set()

    def load(name: str, split: Split, root: Path | None) -> Dataset:
        read.add(split)
        return load_dataset(name, split, root)

    monkeypatch.setattr(export, "load_dataset", load)
    assert main(["export", str(run), "--budget", "0.6"]) == 0
    assert read == {"train", "val"}
    assert BUILT_IN in capsys.readouterr().out
    train, val = (load_dataset(images, split) for split in ("train", "val"))
    model = load_model(run / MODEL)
    meet_budget(model, Measurement(train, val, torch.device("cpu")), 0.6)
    assert_does_what(model, run / "model-budget0.6.onnx", load_dataset(images, "test").images)
    spent = OnnxNetwork(run / "model-budget0.6.onnx").run(val.images).macs.mean()
    assert spent <= 0.6 * model.costs.dense
    said = metadata(run / "model-budget0.6.onnx")
    told = (ROOT / "README.md").read_text()
    assert [name for name in said if f"`{name}`" not in told] == []
    assert (said["run"], said["which"], said["budget"], said["price"]) == ("run", "final", "0.6", "0")
    before, after = load_model(run / MODEL).gates()[0].keep.bias, model.gates()[0].keep.bias
    torch.testing.assert_close(after, before + float(said["shift"]))


def test_the_price_that_meets_a_budget_is_told(images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = lively(width=16, classes=2, prices=PriceRange(0.01, 100))
    for gate in model.gates():
        gate.keep.weight.data.zero_()
        gate.keep.weight.data[:, -1] = -1.0
        gate.keep.bias.data.fill_(0.1)
    run = trained(tmp_path / "run", model, images, price="0.01..100")
    assert main(["export", str(run), "--budget", "0.5", "--check", "5"]) == 0
    file = run / "model-budget0.5.onnx"
    said = metadata(file)
    stored = next(one for one in onnx.load(file).graph.initializer if one.name == "price")
    assert float(said["price"]) == pytest.approx(onnx.numpy_helper.to_array(stored).item(), rel=1e-5)
    assert float(said["price"]) > 0.01
    assert said["shift"] == "0"
    told = capsys.readouterr().out
    assert f"at price {float(said['price']):.3g}" in told
    assert BUILT_IN not in told


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "model.onnx"),
        (["--which", "best"], "model-best.onnx"),
        (["--which", "best", "--budget", "0.6"], "model-best-budget0.6.onnx"),
        pytest.param(["--layout", "blocked"], "model-blocked.onnx", marks=BLOCKED),
    ],
)
def test_a_file_is_called_after_its_variant_and_replaces_no_other(run: Path, arguments: list[str], name: str) -> None:
    others = {"model.onnx", "model-best.onnx", "model-budget0.6.onnx", "model-blocked.onnx"} - {name}
    for other in others:
        (run / other).write_text("of another variant")
    assert main(["export", str(run), "--check", "5", *arguments]) == 0
    said = metadata(run / name)
    assert (said["which"] == "best", "budget" in said) == ("best" in name, "budget" in name)
    assert said["layout"].startswith("blocked") == ("blocked" in name)
    assert {(run / other).read_text() for other in others} == {"of another variant"}


@pytest.mark.parametrize(
    ("model", "arguments", "reason"),
    [
        (LCNet(create_backbone("resnet8", 2, 8), "layers", confidence=False, policy="skipnet"), [], "of skipnet"),
        (lively(width=12, classes=2), ["--layout", "blocked"], "use --layout standard"),
    ],
    ids=["rival", "layout"],
)
def test_what_cannot_be_exported_is_refused_before_a_budget_is_looked_for(
    images: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: LCNet,
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.setattr(export, "meet_budget", lambda *_: pytest.fail("looked for a budget"))
    run = trained(tmp_path / "run", model, images)
    assert main(["export", str(run), "--budget", "0.5", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_a_file_that_does_something_else_is_refused_and_not_left(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = load_model(run / MODEL)
    other.shift_logits(0.5)
    monkeypatch.setattr(export, "dynamic_model", lambda _, *others: dynamic_model(other, *others))
    (run / "model.onnx").write_text("the one before")
    assert main(["export", str(run)]) == 2
    assert "does not do what the engine does" in capsys.readouterr().err
    assert (run / "model.onnx").read_text() == "the one before"
    assert not list(run.glob("*.part")) + list(run.glob(".*.part"))


def test_the_file_of_a_pretrain_run_gives_the_logits_of_its_network_and_names_the_classes(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = lively(decides="layers", width=16, filters=(3, 2, 7), classes=2).backbone
    run, test = pretrained(tmp_path / "run", backbone, images), load_dataset(images, "test")
    assert main(["export", str(run), "--check", "3"]) == 0
    assert "against the network, 3 validation images: same prediction 3, logits within" in capsys.readouterr().out
    session = open_session(run / "model.onnx")
    assert [(one.name, one.type) for one in session.get_inputs()] == [("image", "tensor(uint8)")]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    got = torch.cat([torch.from_numpy(session.run(None, {"image": one[None].numpy()})[0]) for one in test.images])
    with torch.no_grad():
        expected = backbone(test.images)
    torch.testing.assert_close(got, expected, atol=3e-4 * float(expected.abs().max()), rtol=0)
    said = metadata(run / "model.onnx")
    assert json.loads(said["classes"]) == ["bright", "dark"]
    assert (said["run"], said["dense_macs"]) == ("run", str(dense_macs(backbone)))
    assert json.loads(said["backbone"])["filters"] == [3, 2, 7]
    outcome = OnnxNetwork(run / "model.onnx").run(test.images)
    assert torch.equal(outcome.logits, got)
    assert outcome.macs.tolist() == [dense_macs(backbone)] * len(test)


@pytest.mark.parametrize("option", [("--budget", "0.5"), ("--layout", "blocked"), ("--which", "best")])
def test_of_a_pretrain_run_what_only_a_policy_has_is_refused(
    option: tuple[str, str], images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrained(tmp_path / "run", lively(classes=2).backbone, images)
    assert main(["export", str(run), *option]) == 2
    assert f"nothing is decided: leave {option[0]} out" in capsys.readouterr().err
    assert not list(run.glob("*.onnx"))


def test_a_dense_file_that_does_something_else_is_refused_and_not_left(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = lively(width=16, classes=2).backbone
    run = pretrained(tmp_path / "run", backbone, images)
    with torch.no_grad():
        backbone.head.bias += 1
    monkeypatch.setattr(export, "dense_model", lambda _, **others: dense_model(backbone, **others))
    assert main(["export", str(run)]) == 2
    assert "does not do what the network does" in capsys.readouterr().err
    assert [file.name for file in run.iterdir() if "onnx" in file.name] == []


@pytest.mark.parametrize("dense", [False, True], ids=["policy", "dense"])
def test_a_file_that_is_not_compared_needs_no_images(
    dense: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lively(width=16, classes=2)
    run, data = tmp_path / "run", "folder:gone"
    pretrained(run, model.backbone, data) if dense else trained(run, model, data)
    (run / "run.json").write_text(json.dumps({"classes": ["bright", "dark"]}))
    assert main(["export", str(run), "--check", "0"]) == 0
    assert f"not compared with the {'network' if dense else 'engine'}" in capsys.readouterr().out
    assert json.loads(metadata(run / "model.onnx")["classes"]) == ["bright", "dark"]
    assert len(OnnxNetwork(run / "model.onnx").run(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).logits) == 2


@pytest.mark.parametrize(
    ("options", "least"),
    [(("--check", "-1"), "0 or more,"), (("--check", "0", "--budget", "0.5"), "1 or more with --budget,")],
)
def test_a_check_of_fewer_images_than_are_needed_is_refused(
    options: tuple[str, ...], least: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), *options]) == 2
    assert f"--check is {least} got" in capsys.readouterr().err
