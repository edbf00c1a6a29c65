"""Run folders without a training: only the files that say what was run, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from lcnet_rl.backbones import Backbone
from lcnet_rl.benchmark.contestants import Contestant
from lcnet_rl.benchmark.record import case
from lcnet_rl.model import LCNet
from lcnet_rl.results.rows import TIMES
from lcnet_rl.runs import CONFIG, MODEL, START
from lcnet_rl.weights import BACKBONE, save_backbone, save_model


def write(folder: Path, command: str, **settings: Any) -> Path:
    """A run folder of which only what says how it was made exists."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"command": command}))
    common = {"dataset": "cifar10", "backbone": "resnet20", "width": None, "init": None, "run": str(folder)}
    common |= {"recipe": {"epochs": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**common, **settings}))
    return folder


def trained(folder: Path, model: LCNet, dataset: str, price: float | str = 0.3, **agent: Any) -> Path:
    """A run folder of ``train``, which ended with ``model``."""
    folder.mkdir(exist_ok=True)
    save_model(model, folder / MODEL)
    save_backbone(model.backbone, folder / START)
    settings = {
        "dataset": dataset,
        "data_root": None,
        "seed": 0,
        "agent": {"price": price, "reward": "linear", **agent},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(settings))
    return folder


def pretrained(folder: Path, backbone: Backbone, dataset: str) -> Path:
    """A run folder of ``pretrain``, which ended with ``backbone``."""
    folder.mkdir(exist_ok=True)
    save_backbone(backbone, folder / BACKBONE)
    settings = {"dataset": dataset, "data_root": None, "seed": 0, "recipe": {"epochs": 5}}
    (folder / CONFIG).write_text(yaml.safe_dump(settings))
    return folder


def evaluated(run: Path, name: str = "evaluation-test.json", **others: Any) -> Path:
    """``run`` with an evaluation."""
    (run / name).write_text(json.dumps(summary(**others)))
    return run


def summary(**others: Any) -> dict[str, Any]:
    """An evaluation's figures."""
    controls = {"keep-all": 0.92, "random": 0.80, "shuffled": 0.85, "static": 0.89}
    return {
        "accuracy": 0.9,
        "dense_accuracy": 0.93,
        "macs_mean": 50e6,
        "macs_ratio": 0.5,
        "distinct_paths": 7,
        "dense_macs": 100e6,
        "dataset": "cifar10",
        "backbone": "resnet20",
        "width": 16,
        "train_seed": 3,
        "gain_over_shuffled": 0.05,
        "gain_over_shuffled_error": 0.01,
        "controls": {name: {"accuracy": value, "macs_mean": 51e6} for name, value in controls.items()},
        "command": "lcnet-rl evaluate runs/reference/agent",
        **others,
    }


def timed(run: Path) -> Path:
    """``run`` with times, as ``bench`` writes them."""
    found = [
        Contestant(name, lambda batch: batch, "PyTorch", dense, 0.0, 0.0)
        for name, dense in (("engine policy fp32", False), ("masked fp32", False), ("dense eager fp32", True))
    ]
    times = {"engine policy fp32": [0.05] * 3, "masked fp32": [0.09] * 3, "dense eager fp32": [0.07, 0.08, 0.10]}
    cases = [case(f"{one.name}, batch 128", times, one, found, 0.5) for one in found[:2]]
    (run / TIMES).write_text(json.dumps({"cases": cases}))
    return run
