"""Networks of a user's own: through training, engine, ONNX file and bill like those that come with the project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import images, lively
from torch.utils.flop_counter import FlopCounterMode

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.export import OnnxNetwork, compare, dynamic_model, layouts_here
from lcnet_rl.families import BACKBONES, Family, family
from lcnet_rl.macs import dense_macs
from lcnet_rl.prune import prune
from lcnet_rl.runs import METRICS, MODEL, RUN
from lcnet_rl.weights import load_model

OWN = """
from lcnet_rl.families import Family

short = Family(stages=(1, 2), projection=True, width=8, growth=(1, 4))
number = 3
"""


@st.composite
def families(draw: st.DrawFn) -> Family:
    """Any that there can be with up to three stages of up to two blocks."""
    stages = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    projection, pooled = draw(st.booleans()), draw(st.booleans())
    growth = draw(st.lists(st.integers(1, 3), min_size=len(stages), max_size=len(stages)))
    growth = growth if projection or pooled else sorted(growth)
    return Family(tuple(stages), projection, 4, tuple(growth), draw(st.sampled_from([1, 2])), pooled)


NARROWER = Family((1, 1), False, 8, (4, 2), pooled=True)
"""Only where a stage begins with a convolution can it be narrower without projections."""


@settings(max_examples=15)
@example(shape=NARROWER, groups=2)
@given(shape=families(), groups=st.sampled_from([0, 1, 2]))
def test_any_family_is_billed_and_skips_like_the_built_in_ones(
    shape: Family, groups: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "drawn", shape)
        model = lively("drawn", groups=groups, width=None)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.backbone(images(1))
        assert counter.get_total_flops() == 2 * dense_macs(model.backbone)
        path = tmp_path_factory.mktemp("file") / "model.onnx"
        for layout in layouts_here(model.backbone):
            path.write_bytes(dynamic_model(model, layout).SerializeToString())
            compare(model, OnnxNetwork(path), images(8)).check()
        engine = Engine(model)
        actions = (torch.rand(model.depth, 8, model.action_size) < 0.5).float()
        with torch.no_grad():
            ours, theirs = (net.run(images(8), lambda seen: actions[seen.block]) for net in (engine, model))
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4 * float(theirs.logits.abs().max()))
        assert ours.macs.equal(theirs.macs)


def test_a_network_that_gets_narrower_is_pruned_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "drawn", NARROWER)
    backbone = lively("drawn", width=None).backbone
    assert backbone.feature_channels() == [8, 32, 16]
    narrow = prune(backbone, 0.8)
    assert 0.75 < dense_macs(narrow) / dense_macs(backbone) <= 0.8
    assert narrow.feature_channels() == backbone.feature_channels()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of networks in it."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return tmp_path


def test_a_network_of_ones_own_is_trained_and_used_by_every_command(
    own: Path, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--dataset", images, "--backbone", "own_networks:short"]
    assert main(["pretrain", *network, "--recipe.epochs", "1", "--recipe.batch-size", "8", "--run", "dense"]) == 0
    short = ["--epochs", "2", "--batch-size", "8", "--groups", "2", "--run", "agent"]
    assert main(["train", *network, "--init", "dense", *short]) == 0
    command = [sys.executable, "-m", "lcnet_rl", "evaluate", "agent", "--split", "val"]
    told = subprocess.run(command, check=True, cwd=own, capture_output=True, text=True).stdout
    assert "was changed since" not in told
    figures = json.loads((own / "agent" / "evaluation-val.json").read_text())
    assert figures["backbone"] == "own_networks:short"
    assert main(["export", "agent"]) == 0
    assert load_model(own / "agent" / MODEL).backbone.spec.name == "own_networks:short"
    assert (own / "agent" / "model.onnx").is_file()
    for run in ("agent", "dense"):
        facts = json.loads((own / run / RUN).read_text())
        (own / run / RUN).write_text(json.dumps({**facts, "modules": {"own_networks": "another"}}))
    (own / "dense" / METRICS).unlink()  # as if it had been stopped just before its end
    image = next(Path(images.removeprefix("folder:")).rglob("*.png"))
    for used in ("evaluate agent --split val", "evaluate dense", "export agent", f"predict dense {image}"):
        capsys.readouterr()
        assert main(used.split()) == 0
        told = f"own_networks was changed since {used.split()[1]} began: this is of the code as it is now"
        assert told in capsys.readouterr().out
    assert main(["pretrain", "--resume", "dense"]) == 0
    assert "from here on the run is trained by other code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own_networks:missing", r"backbone own_networks:missing cannot be imported \(AttributeError.*resnet11-pool"),
        ("no_networks:short", r"cannot be imported \(ModuleNotFoundError"),
        ("own_networks:number", "must be a lcnet_rl.families.Family, got int"),
        ("own_networks", "unknown backbone 'own_networks'"),
        ("own_networks:", "unknown backbone 'own_networks:'"),
    ],
)
def test_what_is_no_network_of_ones_own_is_refused(own: Path, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        create_backbone(name)


def test_a_network_of_ones_own_has_its_usual_width(own: Path) -> None:
    assert family("own_networks:short").width == 8
    assert create_backbone("own_networks:short").spec.width == 8
    assert create_backbone("own_networks:short", width=4).stem.conv.out_channels == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"stages": [1, 1]}, r"stages must be a tuple of whole numbers, like \(1, 2\), got \[1, 1\]"),
        ({"stages": 2}, "stages must be a tuple of whole numbers, .* got 2"),
        ({"stages": (1, 1), "growth": (1, 1.5)}, r"growth must be a tuple of whole numbers, .* got \(1, 1.5\)"),
        ({"stages": (True, 1)}, "stages must be a tuple of whole numbers"),
        ({"stages": (1, 1), "width": 15}, "width must be an even number >= 2, got 15"),
        ({"stages": (1, 1), "width": 0}, "width must be an even number >= 2, got 0"),
        ({"stages": (1, 1), "width": "16"}, "width must be an even number >= 2, got '16'"),
        ({"stages": (1, 1), "projection": "no"}, "projection must be True or False, got 'no'"),
        ({"stages": (1, 1), "pooled": 1}, "pooled must be True or False, got 1"),
        ({"stages": ()}, "stages of 1 block or more"),
        ({"stages": (1, 0)}, "stages of 1 block or more"),
        ({"stages": (1, 1, 1), "growth": (1, 2)}, "a growth of 1 or more for each"),
        ({"stages": (1, 1), "growth": (0, 2)}, "a growth of 1 or more for each"),
        ({"stages": (1, 1), "growth": (2, 1), "projection": False}, "cannot get narrower"),
        ({"stages": (1,), "stem_stride": 4}, "stem_stride must be 1 or 2, got 4"),
        ({"stages": (1,) * 7, "growth": (1,) * 7}, "can be halved 5 times, not 6"),
        ({"stages": (1,) * 5, "growth": (1,) * 5, "pooled": True, "stem_stride": 2}, "can be halved 5 times, not 6"),
    ],
)
def test_a_family_that_cannot_be_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Family(**{"projection": True, "width": 8, **arguments})
