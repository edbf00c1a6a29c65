"""The committed results: how they are collected and written, and how they are made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_commands import failing, images  # noqa: F401 (a fixture)

from lcnet_rl.commands import main, reproduce
from lcnet_rl.commands.frontier import with_defaults
from lcnet_rl.commands.train import parse
from lcnet_rl.results.page import page
from lcnet_rl.results.plan import Reproduction, in_order
from lcnet_rl.results.rows import Row, agent_records, agent_rows, dense_rows, published_rows
from lcnet_rl.runs import plain, read_config
from lcnet_rl.settings import from_dict
from lcnet_rl.sweep.records import grouped
from lcnet_rl.weights import REFERENCE

AGENTS = sorted(path.parent for path in REFERENCE.glob("*/evaluation-test*.json"))


def write(folder: Path, command: str, config: str, **files: Any) -> Path:
    """A run folder of which only what is given exists."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"command": command}))
    (folder / "config.yaml").write_text(config)
    for name, content in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    root = tmp_path / "reference"
    dense = "dataset: cifar10\nbackbone: resnet20\nwidth: null\n"
    agent = dense + "init: runs/reference/second\nseed: 3\nagent: {price: 0.5}\n"
    write(root / "first", "lcnet-rl pretrain --run runs/reference/first", dense)
    write(root / "second", "lcnet-rl pretrain --init runs/reference/first --run runs/reference/second", dense)
    write(root / "agent", "lcnet-rl train --init runs/reference/second --run runs/reference/agent", agent)
    return root


def summary(**others: Any) -> dict[str, Any]:
    """An evaluation's figures."""
    controls = {"keep-all": 0.92, "random": 0.80, "shuffled": 0.85, "static": 0.89}
    return {
        "accuracy": 0.9,
        "dense_accuracy": 0.93,
        "macs_mean": 50e6,
        "dense_macs": 100e6,
        "dataset": "cifar10",
        "backbone": "resnet20",
        "train_seed": 3,
        "gain_over_shuffled": 0.05,
        "gain_over_shuffled_error": 0.01,
        "controls": {name: {"accuracy": value, "macs_mean": 51e6} for name, value in controls.items()},
        "command": "lcnet-rl evaluate runs/reference/agent",
        **others,
    }


def test_what_a_run_starts_from_is_made_before_it(reference: Path, tmp_path: Path) -> None:
    order = in_order([Reproduction(reference / "agent", tmp_path / "out")])
    assert [run.reference.name for run in order] == ["first", "second", "agent"]
    trained = order[2].training()
    assert trained == ["train", "--init", str(tmp_path / "out/second"), "--run", str(tmp_path / "out/agent")]
    assert order[0].training() == ["pretrain", "--run", str(tmp_path / "out/first")]


def test_what_was_done_is_skipped_and_what_was_begun_goes_on(reference: Path, tmp_path: Path) -> None:
    dense, agent = (Reproduction(reference / name, tmp_path / "out") for name in ("second", "agent"))
    for run, command, done in ((dense, "pretrain", "metrics.json"), (agent, "train", "model.safetensors")):
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").touch()
        assert "--resume" not in (run.training() or [])
        assert not run.folder.exists(), "nothing was learned there, and a new run wants its place"
        run.folder.mkdir()
        (run.folder / "checkpoint.safetensors").touch()
        assert run.training() == [command, "--resume", str(run.folder)]
        (run.folder / done).touch()
        assert run.training() is None


def test_every_recorded_evaluation_is_made_once(reference: Path, tmp_path: Path) -> None:
    for name, flags in (("evaluation-test.json", ""), ("evaluation-test-price2.json", " --price 2")):
        command = f"lcnet-rl evaluate runs/reference/agent{flags}"
        (reference / "agent" / name).write_text(json.dumps({"command": command}))
    run = Reproduction(reference / "agent", tmp_path / "out")
    assert run.evaluations() == [["evaluate", str(run.folder), "--price", "2"], ["evaluate", str(run.folder)]]
    run.folder.mkdir(parents=True)
    (run.folder / "evaluation-test.json").touch()
    assert run.evaluations() == [["evaluate", str(run.folder), "--price", "2"]]


def test_rows_are_what_the_files_say(reference: Path) -> None:
    (reference / "second" / "metrics.json").write_text(json.dumps({"test_accuracy": 0.93, "seed": 1}))
    (reference / "agent" / "evaluation-test.json").write_text(json.dumps(summary()))
    runs = sorted(reference.iterdir())
    typed = "lcnet-rl pretrain --init runs/reference/first --run runs/reference/second"
    assert dense_rows(runs, "cifar10") == [Row("second", "dense", "resnet20", 0.93, 40551040, [1], typed)]
    assert dense_rows(runs, "shapes") == agent_records(runs, "shapes") == []
    (group,) = grouped(agent_records(runs, "cifar10"))
    policy, *controls = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.macs, policy.seeds) == ("agent", 0.9, 50e6, [3])
    assert [row.name for row in controls] == [f"agent: {c}" for c in ("keep-all", "random", "shuffled", "static")]
    assert {(row.kind, row.macs) for row in controls} == {("control", 51e6)}


def test_seeds_are_taken_together(reference: Path) -> None:
    (reference / "agent" / "evaluation-test.json").write_text(json.dumps(summary()))
    config = (reference / "agent" / "config.yaml").read_text().replace("seed: 3", "seed: 4")
    other = write(reference / "agent-4", "lcnet-rl train", config)
    (other / "evaluation-test.json").write_text(json.dumps(summary(accuracy=0.94, train_seed=4)))
    (group,) = grouped(agent_records(sorted(reference.iterdir()), "cifar10"))
    policy, *controls = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.seeds) == ("agent", pytest.approx(0.92), [3, 4])
    assert controls[2].accuracy == 0.85
    assert "| 92.00 ± 2.83 |" in page([], [group], [])


def test_the_page_says_what_beats_what(reference: Path) -> None:
    (reference / "agent" / "evaluation-test.json").write_text(json.dumps(summary()))
    groups = grouped(agent_records([reference / "agent"], "cifar10"))
    cheap, dear = (Row(name, "published", "", 0.9, macs) for name, macs in (("cheap", 49e6), ("dear", 51e6)))
    text = page([], groups, [cheap, dear, Row("better", "published", "", 0.95, 99e6)])
    assert "`agent` is 3.00 points below its dense backbone and 1.00 points above its best static" in text
    assert "It depends on the image: 5.00 points above the same decisions shuffled." in text
    assert "beats in both accuracy and MACs: dear (90.00 % at 51 M); rows here that beat it in both: cheap" in text
    assert "better (" not in text


def test_the_page_says_so_if_a_policy_does_not_look_at_the_image(reference: Path) -> None:
    figures = summary(gain_over_shuffled=0.01, gain_over_shuffled_error=0.01)
    (reference / "agent" / "evaluation-test.json").write_text(json.dumps(figures))
    assert "It does not depend on the image" in page([], grouped(agent_records([reference / "agent"], "cifar10")), [])


def test_the_committed_page_and_rows_are_those_of_the_committed_runs() -> None:
    runs = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))
    dense = dense_rows(runs, "cifar10")
    groups = grouped(map(with_defaults, agent_records(runs, "cifar10")))
    rows = [*dense, *(row for group in groups for row in agent_rows(group)), *published_rows()]
    assert json.loads((REFERENCE / "results.json").read_text())["rows"] == plain(rows)
    assert (REFERENCE.parent.parent / "RESULTS.md").read_text() == page(dense, groups, published_rows())


@pytest.mark.parametrize("run", AGENTS, ids=lambda run: run.name)
def test_a_recorded_command_still_means_the_recorded_settings(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REFERENCE.parent.parent)
    arguments = json.loads((run / "run.json").read_text())["command"].split()[2:]
    now = parse(arguments, "lcnet-rl train")
    recorded = from_dict(type(now), read_config(run), "config.yaml")
    assert now == recorded


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = failing(capsys, "reproduce", "resnet20-reinforced")
    assert "resnet20-reinforced" in message
    assert "resnet20-reinforce" in message


@pytest.mark.slow
def test_runs_made_again_have_the_same_figures(
    images: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "project"
    reference = root / "runs" / "reference"
    root.mkdir()
    monkeypatch.chdir(root)
    common = f"--dataset {images} --backbone resnet8 --width 4"
    typed = (
        f"pretrain {common} --recipe.epochs 1 --recipe.batch-size 8 --run runs/reference/dense",
        f"train {common} --init runs/reference/dense --epochs 1 --batch-size 8 --run runs/reference/agent",
        "evaluate runs/reference/agent",
    )
    for command in typed:
        monkeypatch.setattr("sys.argv", ["lcnet-rl", *command.split()])
        assert main(command.split()) == 0
    for name, value in (("REFERENCE", reference), ("ROOT", root)):
        monkeypatch.setattr(reproduce, name, value)
    for flags, place in (([], "reproduced"), (["--eval-only"], "measured-again")):
        assert main(["reproduce", "agent", *flags]) == 0
        again = json.loads((root / "runs" / place / "agent" / "evaluation-test.json").read_text())
        recorded = json.loads((reference / "agent" / "evaluation-test.json").read_text())
        assert {**again, "command": ""} == {**recorded, "command": ""}
        assert "+0.0000" in capsys.readouterr().out
    assert (root / "RESULTS.md").is_file()
    assert not (root / "runs" / "measured-again" / "dense").exists()
    begun = (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns
    assert main(["reproduce", "agent"]) == 0
    assert (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns == begun
