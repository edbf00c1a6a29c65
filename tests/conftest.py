"""Fixtures that several files use, and how tests share the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from image_folders import dark_and_bright
from run_folders import write

from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset, folder
from lcnet_rl.data.dataset import Part
from lcnet_rl.weights import BACKBONE, save_backbone

# A loaded machine is slow: how long an example takes says nothing about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Let processes that share the tests (``pytest -n``) have a thread each, and what they start too."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of dark and bright images, as a data set's name."""
    return dark_and_bright(tmp_path_factory.mktemp("images"), train=40, test=10)


@pytest.fixture
def parts_read(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts of image folders that are read from now on, each as often as it is."""
    read: list[Part] = []
    load = folder.load

    def loaded(path: Path, part: Part) -> Dataset:
        read.append(part)
        return load(path, part)

    monkeypatch.setattr(folder, "load", loaded)
    return read


@pytest.fixture
def threads() -> Iterator[int]:
    """Another number of threads than PyTorch has now, and has again after the test."""
    before = torch.get_num_threads()
    yield before + 1
    torch.set_num_threads(before)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A folder of committed runs: an agent, its dense start, and what that started from."""
    root = tmp_path / "runs" / "reference"
    write(root / "first", "lcnet-rl pretrain --run runs/reference/first")
    write(root / "second", "lcnet-rl pretrain --preset p.yaml --run=x", init="runs/reference/first")
    start = "runs/reference/second/backbone.safetensors"
    save_backbone(create_backbone("resnet8"), root / "second" / BACKBONE)
    write(root / "agent", f"lcnet-rl train --init {start} --seed 3", init=start, seed=3, agent={"price": 0.5})
    return root
