"""A stem whose filters are the principal components of the images' patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_commands import failing
from test_pretrain import RECIPE, fresh, setup_in
from torch import nn

from lcnet_rl import whitening
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.pretrain import DenseTraining
from lcnet_rl.weights import save_backbone
from lcnet_rl.whitening import whiten


def test_a_whitening_stem_makes_the_patches_of_an_image_white_and_stays(tmp_path: Path) -> None:
    data = Dataset("noise", "train", smooth(200), torch.arange(200) % 3, ("a", "b", "c"))
    backbone = create_backbone("resnet11-pool", classes=3, width=16)
    recipe = replace(RECIPE, epochs=1, batch_size=100, whiten=True)
    DenseTraining(backbone, recipe, setup_in(tmp_path, data)).train()
    conv, x = backbone.stem.conv, backbone.stem.normalised(data.images)
    with torch.no_grad():
        seen = nn.functional.conv2d(x, conv.weight).transpose(0, 1).flatten(1)
    assert torch.equal(seen[:8], -seen[8:])
    torch.testing.assert_close(torch.cov(seen[:8]), torch.eye(8), atol=1e-3, rtol=0)
    assert not conv.weight.requires_grad


def test_a_stem_whitens_what_all_classes_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(whitening, "IMAGES", 60)
    monkeypatch.setattr(whitening, "whiten", lambda stem, images: seen.append(images))
    labels = torch.arange(300).div(100, rounding_mode="floor")  # sorted, as a folder's are
    images = labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    data = Dataset("levels", "train", images, labels, ("a", "b", "c"))
    recipe = replace(RECIPE, epochs=1, batch_size=100, whiten=True)
    backbone = create_backbone("resnet11-pool", 3, 16)
    DenseTraining(backbone, recipe, setup_in(tmp_path, data)).train()
    assert len(seen[0]) == 60
    assert set(seen[0].flatten().tolist()) == {0, 1, 2}


def test_a_whitening_stem_stays_small_where_patches_do_not_vary() -> None:
    backbone, grey = create_backbone("resnet11-pool", classes=3), smooth(20)[:, :1].expand(-1, 3, -1, -1)
    whiten(backbone.stem, grey)
    assert backbone.stem.conv.weight.abs().max() < 100


def test_a_stem_wider_than_its_patches_whitens_with_what_filters_they_need() -> None:
    stem = create_backbone("resnet11-pool", classes=3, width=64).stem
    before = stem.conv.weight.clone()
    whiten(stem, smooth(20))
    assert torch.equal(stem.conv.weight[:27], -stem.conv.weight[27:54])
    assert not (stem.conv.weight[:54] == before[:54]).any()
    assert torch.equal(stem.conv.weight[54:], before[54:])


def smooth(count: int) -> torch.Tensor:
    """Noise whose neighbouring pixels are alike."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return (255 * nn.functional.interpolate(coarse, 32, mode="bilinear")).to(torch.uint8)


def test_whitening_a_stem_that_is_trained_already_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "--dataset", "shapes", "--recipe.whiten", "--run", str(tmp_path / "run")]
    save_backbone(fresh(), tmp_path / "fresh.safetensors")
    assert "leave it out with --init" in failing(capsys, *command, "--init", str(tmp_path / "fresh.safetensors"))
    assert not (tmp_path / "run").exists()
