"""Run folders that look evaluated, of networks that nobody trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def summary(accuracy: float, share: float, dataset: str = "shapes") -> dict[str, Any]:
    controls = {"shuffled": {"accuracy": accuracy - 0.03, "macs_ratio": share, "macs_mean": share * 1e7}}
    return {
        "accuracy": accuracy,
        "macs_mean": share * 1e7,
        "macs_ratio": share,
        "dense_macs": 10_000_000,
        "dense_accuracy": 0.93,
        "backbone": "resnet14",
        "width": 8,
        "dataset": dataset,
        "distinct_paths": 12,
        "gain_over_shuffled": 0.03,
        "controls": controls,
    }


def make_run(
    folder: Path, price: float, seed: int, accuracy: float, share: float, dataset: str = "shapes", split: str = "test"
) -> str:
    folder.mkdir()
    settings = {"algo": "reinforce", "dataset": dataset, "seed": seed, "run": str(folder), "agent": {"price": price}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / f"evaluation-{split}.json").write_text(json.dumps(summary(accuracy, share, dataset)))
    return str(folder)


def dense_run(folder: Path, accuracy: float, share: float, prune: float | None = None, seed: int = 0) -> Path:
    """A network of ``pretrain``."""
    folder.mkdir()
    settings = {"dataset": "shapes", "init": None, "seed": seed, "prune": prune, "recipe": {"epochs": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    figures = {"dataset": "shapes", "backbone": "resnet14", "width": 8, "accuracy": accuracy, "macs_mean": share * 1e7}
    (folder / "evaluation-test.json").write_text(json.dumps(figures))
    return folder


def three_settings(tmp_path: Path) -> list[str]:
    """Two settings with three seeds each, and a third, dominated, with one."""
    rows = [(0.1, 0, 0.92, 0.8), (0.1, 1, 0.91, 0.82), (0.1, 2, 0.93, 0.78), (1.0, 0, 0.88, 0.5), (1.0, 1, 0.87, 0.52)]
    rows += [(1.0, 2, 0.89, 0.48), (3.0, 0, 0.80, 0.6)]
    return [make_run(tmp_path / str(index), *row) for index, row in enumerate(rows)]
