"""Static pruning: what is left is a smaller network, made of the best of what was there."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import lively
from test_commands import failing

from lcnet_rl import pretrain
from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.errors import UserError
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.prune import prune
from lcnet_rl.weights import load_backbone, load_model, save_backbone, save_model


@pytest.mark.parametrize(
    ("name", "share"),
    [(name, share) for name in ("resnet14", "resnet18", "resnet14-wide") for share in (0.9, 0.5)]
    + [("resnet11-pool", 0.7)],
)
def test_it_costs_just_less_than_what_was_asked_for(name: str, share: float) -> None:
    backbone = lively(name).backbone
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    narrow = prune(backbone, share)
    assert share - 0.05 < dense_macs(narrow) / dense_macs(backbone) <= share
    assert narrow.spec.filters == tuple(block.filters for block in narrow.own_blocks)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("multiple", [4, 8])
def test_filters_left_in_multiples_can_be_grouped(multiple: int) -> None:
    backbone = lively("resnet14", width=16).backbone
    narrow = prune(backbone, 0.5, multiple)
    assert 0.45 < dense_macs(narrow) / dense_macs(backbone) <= 0.5
    assert narrow.spec.filters is not None
    assert all(left % multiple == 0 for left in narrow.spec.filters)
    assert LCNet(narrow, "both", groups=multiple).decisions.group_counts == (multiple,) * 6
    with pytest.raises(UserError, match="no multiples of 5"):
        prune(backbone, 0.5, 5)


def test_everything_is_kept_at_a_share_of_one() -> None:
    backbone = lively().backbone
    state = prune(backbone, 1.0).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_filters_that_do_nothing_go_first_and_the_function_stays() -> None:
    backbone = lively("resnet8").backbone
    with torch.no_grad():
        for t in range(3):
            block = backbone.block(t)
            for filter in range(0, block.filters, 4):
                block.conv1.weight[filter] = 0
                block.bn1.weight[filter] = block.bn1.bias[filter] = 0
                block.conv2.weight[:, filter] = 0
    # The idle quarter is a quarter of the blocks' MACs; stem and head stay.
    narrow = prune(backbone, 0.8)
    assert narrow.spec.filters == (6, 12, 24)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(narrow.eval()(images), backbone.eval()(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.2, 0.05])
def test_a_share_out_of_reach_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"prune to"):
        prune(lively().backbone, share)


def test_pruned_networks_are_saved_and_carry_gates_like_others(tmp_path: Path) -> None:
    narrow = prune(lively().backbone, 0.6)
    save_backbone(narrow, tmp_path / "narrow.safetensors")
    again = load_backbone(str(tmp_path / "narrow.safetensors"))
    assert again.spec == narrow.spec
    model = LCNet(again, "channels", groups=0)
    assert model.decisions.group_counts == narrow.spec.filters
    assert model.costs.dense == dense_macs(narrow)
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").spec == model.spec


@pytest.mark.parametrize("filters", [(4, 8), (4, 0, 16)])
def test_filters_that_fit_no_network_are_refused(filters: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="resnet8 has 3 blocks of at least one filter each"):
        create_backbone("resnet8", 10, 4, filters)


def test_pruned_and_trained_again_from_the_command_line(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    start, run = tmp_path / "start", tmp_path / "narrow"
    network = ["pretrain", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--recipe.batch-size", "8"]
    assert main([*network, "--recipe.epochs", "1", "--run", str(start)]) == 0
    again = [*network, "--recipe.epochs", "2", "--init", str(start), "--prune", "0.7"]
    assert main([*again, "--teacher", str(start), "--recipe.distill", "0.5", "--run", str(run)]) == 0
    assert load_backbone(str(run), classes=2).spec.filters is not None
    whole, left = (json.loads((folder / "metrics.json").read_text())["macs"] for folder in (start, run))
    assert left <= 0.7 * whole
    assert "name them with --init" in failing(capsys, *network, "--prune", "0.5")
    assert "go together" in failing(capsys, *network, "--teacher", str(start))


def test_a_run_goes_on_without_what_it_began_with(monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path) -> None:
    network = ["pretrain", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--recipe.batch-size", "8"]
    start, whole, parts = (tmp_path / name for name in ("start", "whole", "parts"))
    assert main([*network, "--recipe.epochs", "1", "--run", str(start)]) == 0
    again = [*network, "--recipe.epochs", "2", "--init", str(start), "--prune", "0.7"]
    again += ["--teacher", str(start), "--recipe.distill", "0.5"]
    assert main([*again, "--run", str(whole)]) == 0
    steps, soft_labels = itertools.count(), pretrain.soft_labels

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return soft_labels(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "soft_labels", interrupted)
        assert main([*again, "--run", str(parts)]) == 130
    shutil.rmtree(start)
    assert main(["pretrain", "--resume", str(parts)]) == 0
    assert (parts / "backbone.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()


def test_where_groups_do_not_divide_a_pruned_networks_filters_it_is_said_how_to_prune_for_them() -> None:
    hint = r"; or decide about layers only \(.+\), or prune anew with lcnet-rl pretrain --prune-multiple 4$"
    with pytest.raises(UserError, match=f"groups must divide 7 filters, or be 0, got 4{hint}"):
        LCNet(create_backbone("resnet8", 10, 16, (8, 7, 12)), groups=4)
    with pytest.raises(UserError, match=r"or decide about layers only \([^)]+\)$"):
        LCNet(create_backbone("resnet8", 10, 6), groups=4)
