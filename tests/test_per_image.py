"""What became of every image: as evaluate tells it, and as compare reads it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluated import dense_run, make_run
from run_folders import write

from lcnet_rl import tradeoff
from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.data import Dataset, load_dataset
from lcnet_rl.model import LCNet
from lcnet_rl.per_image import paired_difference, read_correct, table_beside, write_images
from lcnet_rl.runs import MODEL, START
from lcnet_rl.weights import save_backbone, save_model

NOTHING = Dataset(
    "shapes",
    "test",
    torch.zeros(4, 3, 32, 32, dtype=torch.uint8),
    torch.tensor([0, 1, 1, 0]),
    ('a "b", c', "d\ne"),
    difficulty=torch.tensor([0.0, 0.25, 1 / 3, 1.0]),
)
"""Four images, with names of classes that a table must quote."""


def table(run: Path, correct: list[int], images: str = "shapes") -> None:
    """A run's table of images, and the accuracy that belongs to it."""
    dataset = replace(NOTHING, difficulty=None, files=tuple(f"{images}/{index}" for index in range(4)))
    predictions = torch.where(torch.tensor(correct) == 1, dataset.labels, 1 - dataset.labels)
    write_images(run / "images-test.csv", dataset, predictions, {}, {})
    path = run / "evaluation-test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": sum(correct) / 4}))


def columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_a_table_is_read_back_whatever_classes_are_called(tmp_path: Path) -> None:
    predictions, others = torch.tensor([0, 0, 1, 1]), {"static": torch.tensor([1, 1, 0, 0])}
    macs = torch.tensor([1, 2.5, 1e9 + 1, 0.1234567], dtype=torch.float64)
    write_images(tmp_path / "t.csv", NOTHING, predictions, others, {"macs": macs})
    names = NOTHING.classes
    assert columns(tmp_path / "t.csv") == {
        "image": ["0", "1", "2", "3"],
        "label": [names[0], names[1], names[1], names[0]],
        "predicted": [names[0], names[0], names[1], names[1]],
        "static": [names[1], names[1], names[0], names[0]],
        "macs": ["1", "2.5", "1000000001", "0.123457"],
        "difficulty": ["0", "0.25", "0.333333", "1"],
    }
    images, correct = read_correct(tmp_path / "t.csv")
    assert images == [("0", names[0]), ("1", names[1]), ("2", names[1]), ("3", names[0])]
    assert correct.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "content", ["", "image,label,predicted\n", "image,label\n0,a\n", "image,label,predicted\n0,a\n"]
)
def test_a_damaged_table_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str) -> None:
    runs = [Path(make_run(tmp_path / str(price), price, 0, 0.5, 0.5)) for price in (1, 2)]
    for run in runs:
        table(run, [1, 0, 1, 0])
    (runs[1] / "images-test.csv").write_text(content)
    assert main(["compare", *map(str, runs)]) == 2
    assert f"{runs[1] / 'images-test.csv'} is damaged, or no table" in capsys.readouterr().err


def test_a_paired_difference_is_that_of_the_pairs() -> None:
    one, other = torch.tensor([1.0, 1, 0, 1]), torch.tensor([1.0, 0, 1, 0])
    assert paired_difference(one, other) == (0.25, pytest.approx((0.6875 / 4) ** 0.5))


def test_evaluate_tells_what_became_of_every_image(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tradeoff, "CURVE", (0.5,))
    torch.manual_seed(0)
    backbone = create_backbone("resnet8", 2, 4)
    run = write(tmp_path / "run", "train", dataset=images, agent={"price": 0.3, "reward": "linear"}, seed=0)
    save_backbone(backbone, run / START)
    model = LCNet(backbone, groups=2, keep_bias=0.0)
    for parameter in [p for gate in model.gates() for p in gate.parameters()]:
        torch.nn.init.normal_(parameter)
    save_model(model, run / MODEL)
    assert main(["evaluate", str(run)]) == 0
    figures, told = json.loads((run / "evaluation-test.json").read_text()), columns(run / "images-test.csv")
    test = load_dataset(images, "test")
    both = 2 * len(test)
    assert f"images, by policy and dense network: {both}/{both}" in capsys.readouterr().out
    assert told["image"] == list(test.files)
    assert told["label"] == [test.classes[label] for label in test.labels]

    def accuracy(column: str) -> float:
        right = [label == predicted for label, predicted in zip(told["label"], told[column], strict=True)]
        return sum(right) / len(right)

    assert accuracy("predicted") == figures["accuracy"]
    assert accuracy("dense backbone") == figures["dense_accuracy"]
    for name, control in figures["controls"].items():
        assert accuracy(name) == control["accuracy"]
    share = figures["macs_mean"] / figures["dense_macs"]
    assert figures["mean_reward"] == pytest.approx(figures["accuracy"] - figures["price"] * share)
    log_prob = sum(map(float, told["log_prob"])) / len(test)
    assert main(["evaluate", str(run), "--score", "confidence:floor=99@0.5", "--out", str(tmp_path / "scored")]) == 0
    scored = json.loads((tmp_path / "scored" / "evaluation-test.json").read_text())
    assert (scored["reward"], scored["reward_price"]) == ("confidence:floor=99", 0.5)
    assert scored["mean_reward"] == pytest.approx(log_prob - 0.5 * share, abs=1e-4)
    left = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert main(["evaluate", str(run), "--out", str(tmp_path / "out")]) == 0
    assert left == {path: path.stat().st_mtime_ns for path in run.iterdir()}
    written = ["evaluation-test.json", "images-test.csv", "paths-test.png", "tradeoff-test.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == written
    assert json.loads((tmp_path / "out" / "evaluation-test.json").read_text())["accuracy"] == figures["accuracy"]
    assert sum(map(float, told["macs"])) / len(test) == pytest.approx(figures["macs_mean"])
    assert len(set(told["macs"])) > 1
    for block, kept in enumerate(figures["kept_filters"]):
        assert sum(map(float, told[f"block {block}"])) / len(test) == pytest.approx(kept)


def test_images_of_a_folder_are_named_by_their_files_in_every_split(images: str) -> None:
    train, val = load_dataset(images, "train"), load_dataset(images, "val")
    assert not set(train.files) & set(val.files)
    assert len({*train.files, *val.files}) == 80
    for part in (train, val, val.sample(3)):
        assert [Path(file).parent.name for file in part.files] == [part.classes[label] for label in part.labels]


def test_compare_pairs_the_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = [Path(make_run(tmp_path / f"policy-{seed}", 1, seed, 0.5, 0.5)) for seed in (0, 1)]
    table(policy[0], [1, 1, 0, 0])
    table(policy[1], [1, 1, 1, 0])
    dense = [dense_run(tmp_path / f"dense-{seed}", 0.5, 1.0, seed=seed) for seed in (0, 1)]
    table(dense[0], [1, 0, 1, 0])
    table(dense[1], [0, 1, 1, 0])
    assert main(["compare", *map(str, [*policy, *dense])]) == 0
    output = capsys.readouterr().out
    # Per image +1/2, +1/2, -1/2 and 0; of the four pairs of seeds, two are right in the first only about each.
    error = (sum((x - 0.125) ** 2 for x in (0.5, 0.5, -0.5, 0)) / 4 / 4) ** 0.5
    assert f"A - B │ +12.50 ± {100 * error:.2f} points │                  25.00% │             12.50%" in output


def test_seeds_that_are_right_about_different_images_do_not_hide_each_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [Path(make_run(tmp_path / f"{price}-{seed}", price, seed, 0.5, 0.5)) for price in (1, 2) for seed in (0, 1)]
    for run, right in zip(runs, ([1, 1, 0, 0], [0, 0, 1, 1]) * 2, strict=True):
        table(run, right)
    assert main(["compare", *map(str, runs)]) == 0
    assert "A - B │ +0.00 ± 0.00 points │                  25.00% │             25.00%" in capsys.readouterr().out


def test_tables_of_other_images_or_none_are_not_paired(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = [Path(make_run(tmp_path / str(price), price, 0, 0.5, 0.5)) for price in (1, 2, 3)]
    table(runs[0], [1, 0, 1, 0])
    table(runs[1], [1, 0, 1, 0], images="others")
    assert main(["compare", *map(str, runs)]) == 0
    output = capsys.readouterr().out
    assert "A - B │ other images" in output
    assert "C: not compared image by image; lcnet-rl evaluate RUN --split test writes images-test.csv" in output


def test_a_table_of_another_evaluation_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = [Path(make_run(tmp_path / str(price), price, 0, 0.5, 0.5)) for price in (1, 2)]
    for run in runs:
        table(run, [1, 0, 1, 0])
    make_other = json.loads((runs[0] / "evaluation-test.json").read_text()) | {"accuracy": 0.75}
    (runs[0] / "evaluation-test.json").write_text(json.dumps(make_other))
    assert main(["compare", *map(str, runs)]) == 2
    assert "images-test.csv is not of the evaluation beside it" in capsys.readouterr().err


def test_agents_and_dense_networks_are_compared_by_what_they_have_in_common(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs: list[Any] = [make_run(tmp_path / str(price), price, 0, 0.5, 0.5) for price in (1, 2)]
    assert main(["compare", *runs, str(dense_run(tmp_path / "dense", 0.5, 1.0))]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "│ price │ 1 │ 2 │ - │" in output, "differs between agents"
    assert "recipe" not in output, "no agent has one"
    assert "│ control: shuffled │ 47.00% │ 47.00% │ - │" in output


def test_a_dense_run_that_was_not_evaluated_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = write(tmp_path / "dense", "lcnet-rl pretrain", dataset="shapes", seed=0)
    assert main(["compare", str(run), make_run(tmp_path / "agent", 1, 0, 0.5, 0.5)]) == 2
    assert f"{run} has no evaluation-test.json; first: lcnet-rl evaluate {run} --split test" in capsys.readouterr().err


def test_a_table_is_beside_its_evaluation() -> None:
    assert table_beside(Path("a/evaluation-val-best-budget0.5.json")) == Path("a/images-val-best-budget0.5.csv")
