"""The committed results: how they are collected and written, and how they are made again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from test_commands import failing

from lcnet_rl.benchmark.contestants import Contestant
from lcnet_rl.benchmark.record import case
from lcnet_rl.commands import main, reproduce
from lcnet_rl.commands.pretrain import Pretrain
from lcnet_rl.commands.train import parse
from lcnet_rl.errors import UserError
from lcnet_rl.results.page import page
from lcnet_rl.results.plan import Reproduction, in_order
from lcnet_rl.results.rows import TIMES, Row, agent_records, agent_rows, dense_rows, timings
from lcnet_rl.runs import plain, read_config
from lcnet_rl.settings import from_dict
from lcnet_rl.sweep.records import grouped
from lcnet_rl.weights import REFERENCE

RUNS = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))


def write(folder: Path, command: str, **settings: Any) -> Path:
    """A run folder of which only what says how it was made exists."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"command": command}))
    common = {"dataset": "cifar10", "backbone": "resnet20", "width": None, "init": None, "run": str(folder)}
    common |= {"recipe": {"epochs": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**common, **settings}))
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    root = tmp_path / "runs" / "reference"
    write(root / "first", "lcnet-rl pretrain --run runs/reference/first")
    write(root / "second", "lcnet-rl pretrain --preset p.yaml --run=x", init="runs/reference/first")
    start = "runs/reference/second/backbone.safetensors"
    (root / "second" / "backbone.safetensors").touch()
    write(root / "agent", f"lcnet-rl train --init {start} --seed 3", init=start, seed=3, agent={"price": 0.5})
    return root


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


def test_what_a_run_starts_from_is_made_before_it(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = in_order([Reproduction(reference / name, out) for name in ("agent", "second")])
    assert [run.reference.name for run in order] == ["first", "second", "agent"]
    start = "runs/reference/second/backbone.safetensors"
    again = ["--run", str(out / "agent"), "--init", str(out / "second")]
    assert order[2].training() == ["train", "--init", start, "--seed", "3", *again]
    assert order[0].training() == ["pretrain", "--run", "runs/reference/first", "--run", str(out / "first")]


@pytest.mark.parametrize("init", [None, "scratch", "akamaster", "weights/mine.safetensors", "elsewhere/first"])
def test_what_starts_from_no_committed_run_is_made_by_its_command_alone(
    reference: Path, tmp_path: Path, init: str | None
) -> None:
    run = Reproduction(write(reference / "other", "lcnet-rl train --seed 1", init=init, agent={}), tmp_path)
    assert run.starts_from == {}
    assert run.training() == ["train", "--seed", "1", "--run", str(tmp_path / "other")]


def test_a_teacher_is_made_before_its_pupil(reference: Path, tmp_path: Path) -> None:
    settings = {"init": "runs/reference/first", "teacher": "runs/reference/second"}
    write(reference / "pupil", "lcnet-rl pretrain --teacher runs/reference/second", **settings)
    order = in_order([Reproduction(reference / "pupil", tmp_path)])
    assert [run.reference.name for run in order] == ["first", "second", "pupil"]
    assert (order[2].training() or [])[-4:] == [
        "--init",
        str(tmp_path / "first"),
        "--teacher",
        str(tmp_path / "second"),
    ]


def test_what_comes_with_the_project_is_made_again_too(tmp_path: Path) -> None:
    run = Reproduction(REFERENCE / "resnet20-ppo", tmp_path)
    assert run.starts_from == {"--init": REFERENCE / "resnet20"}
    assert (run.training() or [])[-2:] == ["--init", str(tmp_path / "resnet20")]


def test_a_run_of_several_processes_is_made_again_by_one(reference: Path, tmp_path: Path) -> None:
    command = "torchrun --nproc-per-node 2 -m -- lcnet_rl pretrain --seed 1"
    run = Reproduction(write(reference / "wide", command), tmp_path)
    assert run.training() == ["pretrain", "--seed", "1", "--run", str(tmp_path / "wide")]
    foreign = Reproduction(write(reference / "foreign", "python train.py"), tmp_path)
    with pytest.raises(UserError, match=r"was not made by lcnet-rl, but by: python train\.py"):
        foreign.training()


def test_what_was_done_is_skipped_and_what_was_begun_goes_on(reference: Path, tmp_path: Path) -> None:
    for name, command, done in (("second", "pretrain", "metrics.json"), ("agent", "train", "model.safetensors")):
        run = Reproduction(reference / name, tmp_path / "out")
        run.folder.mkdir(parents=True)
        with pytest.raises(UserError, match="holds no config"):
            run.training()
        begun = yaml.safe_load((run.reference / "config.yaml").read_text()) | {"run": "elsewhere", "later": "setting"}
        (run.folder / "config.yaml").write_text(yaml.safe_dump(begun))
        with pytest.raises(UserError, match="was stopped before its first checkpoint"):
            run.training()
        (run.folder / "checkpoint.safetensors").touch()
        assert run.training() == [command, "--resume", str(run.folder)]
        (run.folder / done).touch()
        assert run.training() is None
        (run.folder / "config.yaml").write_text(yaml.safe_dump({**begun, "backbone": "resnet56"}))
        with pytest.raises(UserError, match="has other settings than"):
            run.training()


def test_every_recorded_evaluation_is_made_once(reference: Path, tmp_path: Path) -> None:
    ranged = write(reference / "ranged", "lcnet-rl train", agent={"price": "1..2"})
    for price in ("1", "2"):
        command = f"lcnet-rl evaluate runs/reference/ranged --price {price}"
        evaluated(ranged, f"evaluation-test-price{price}.json", command=command)
    evaluated(ranged, "evaluation-val-price1.json")
    run = Reproduction(ranged, tmp_path / "out")
    assert run.evaluations() == [["evaluate", str(run.folder), "--price", price] for price in ("1", "2")]
    run.folder.mkdir(parents=True)
    (run.folder / "evaluation-test-price1.json").touch()
    assert run.evaluations() == [["evaluate", str(run.folder), "--price", "2"]]
    evaluated(ranged, "evaluation-test-price2.json", command="lcnet-rl evaluate /elsewhere/ranged")
    with pytest.raises(UserError, match="written by a command for another folder"):
        run.evaluations()


def test_measuring_again_starts_from_the_committed_weights_without_their_figures(
    reference: Path, tmp_path: Path
) -> None:
    evaluated(reference / "agent")
    weights = reference / "agent" / "model.safetensors"
    weights.write_bytes(b"weights")
    run = Reproduction(reference / "agent", tmp_path / "out")
    run.folder.with_name("agent.part").mkdir(parents=True)
    run.copy()
    run.copy()
    assert sorted(path.name for path in run.out.rglob("*")) == ["agent", "config.yaml", "model.safetensors", "run.json"]
    weights.write_bytes(b"new")
    with pytest.raises(UserError, match="holds other weights than"):
        run.copy()


def test_rows_are_what_the_files_say(reference: Path) -> None:
    for name in ("first", "second"):
        (reference / name / "metrics.json").write_text(json.dumps({"test_accuracy": 0.93, "seed": 1}))
    runs = sorted(evaluated(reference / "agent").parent.iterdir())
    typed = "lcnet-rl pretrain --preset p.yaml --run=x"
    assert dense_rows(runs, "cifar10")[1] == Row("second", "dense", "resnet20", 0.93, 40551040, [1], 16, 5, typed)
    assert dense_rows(runs, "shapes") == agent_records(runs, "shapes") == []
    (group,) = grouped(agent_records(runs, "cifar10"))
    policy, *controls = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.macs, policy.seeds) == ("agent", 0.9, 50e6, [3])
    assert policy.kind == "policy"
    assert [row.name for row in controls] == [f"agent: {c}" for c in ("keep-all", "random", "shuffled", "static")]
    assert {(row.kind, row.macs) for row in controls} == {("control", 51e6)}


def test_pruned_backbones_are_static_rows_with_a_table_of_their_own(reference: Path) -> None:
    narrow = write(reference / "narrow", "lcnet-rl pretrain --prune 0.5", prune=0.5)
    figures = {"test_accuracy": 0.91, "seed": 2, "macs": 20_000_000}
    for name in ("first", "second", "narrow"):
        (reference / name / "metrics.json").write_text(
            json.dumps(figures if name == "narrow" else figures | {"macs": None})
        )
    rows = dense_rows([reference / "first", narrow], "cifar10")
    assert [(row.kind, row.macs) for row in rows] == [("dense", 40551040), ("static", 20_000_000)]
    text = page(rows, [], [])
    assert text.index("| first |") < text.index("## Pruned") < text.index("| narrow |")
    assert "## Pruned" not in page(rows[:1], [], [])


def test_seeds_are_taken_together(reference: Path) -> None:
    settings = yaml.safe_load((evaluated(reference / "agent") / "config.yaml").read_text())
    other = write(reference / "agent-4", "lcnet-rl train --seed 4", **{**settings, "seed": 4})
    controls = {name: {"accuracy": 0.87, "macs_mean": 53e6} for name in summary()["controls"]}
    evaluated(other, accuracy=0.94, train_seed=4, controls=controls, gain_over_shuffled=0.0)
    (group,) = grouped(agent_records([reference / "agent", other], "cifar10"))
    policy, *rows = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.seeds) == ("agent", pytest.approx(0.92), [3, 4])
    assert (rows[2].accuracy, rows[2].macs) == (pytest.approx(0.86), pytest.approx(52e6))
    text = page([], [group], [])
    assert "| 92.00 ± 2.83 |" in text
    assert "6.00 points above the same decisions shuffled: 1 of 2 runs depend on the image." in text
    assert "agent-4:\n\n    lcnet-rl train --seed 4\n" in text


def test_the_page_says_what_dominates_what(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    others = {"cheap": (0.9, 49e6), "dear": (0.9, 51e6), "same": (0.9, 50e6), "better": (0.95, 99e6)}
    text = page([], groups, [Row(name, "published", "", *point) for name, point in others.items()])
    assert "`agent` is 3.00 points below its dense backbone and 1.00 points above its best static" in text
    assert "5.00 points above the same decisions shuffled: it depends on the image." in text
    assert "it dominates: dear (90.00 % at 51 M); rows that dominate it: cheap (90.00 % at 49 M)." in text


def test_policies_stand_beside_static_networks_of_their_backbone_width_and_cost(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    others = {
        "pruned": ("resnet20", 16, 51e6),
        "dear": ("resnet20", 16, 53e6),
        "other": ("resnet18", 16, 50e6),
        "wide": ("resnet20", 32, 50e6),
    }
    rows = [
        Row(name, "static", backbone, 0.91, macs, [1], width, 5) for name, (backbone, width, macs) in others.items()
    ]
    text = page(rows, groups, [])
    assert "| agent | 90.00 | 50.00 |  | 3 | pruned | 91.00 | 51.00 | 5 | 1 | -1.00 |" in text
    for name in ("dear", "other", "wide"):
        assert f"| 3 | {name} |" not in text
    assert "## Against static" not in page(rows[1:], groups, [])


def test_a_policy_that_skips_next_to_nothing_does_not_stand_beside_its_own_backbone(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent", macs_mean=97e6)], "cifar10"))
    assert "## Against static" not in page([Row("whole", "dense", "resnet20", 0.91, 100e6, [1], 16)], groups, [])


def test_of_many_rows_the_most_accurate_are_named(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    rows = [Row(f"row{points}", "published", "", 0.9 + points / 1000, 40e6) for points in range(1, 6)]
    assert (
        "rows that dominate it: row5 (90.50 % at 40 M), row4 (90.40 % at 40 M), row3 (90.30 % at 40 M) and 2 more."
    ) in page([], groups, rows)


def test_policies_dominate_each_other_too(reference: Path) -> None:
    other = write(reference / "other", "lcnet-rl train", seed=3, agent={"price": 0.6})
    evaluated(other, accuracy=0.91, command="lcnet-rl evaluate runs/reference/other")
    groups = grouped(agent_records([evaluated(reference / "agent"), other], "cifar10"))
    assert "rows that dominate it: other (91.00 % at 50 M)." in page([], groups, [])


def test_the_page_says_so_if_a_policy_does_not_look_at_the_image(reference: Path) -> None:
    run = evaluated(reference / "agent", gain_over_shuffled=0.01, gain_over_shuffled_error=0.01)
    assert "it is not shown to depend on the image" in page([], grouped(agent_records([run], "cifar10")), [])


def timed(run: Path) -> Path:
    """``run`` with times, as ``bench`` writes them."""
    found = [
        Contestant(name, lambda batch: batch, "PyTorch", dense, 0.0, 0.0)
        for name, dense in (("engine policy fp32", False), ("masked fp32", False), ("dense eager fp32", True))
    ]
    times = {"engine policy fp32": [0.05] * 3, "masked fp32": [0.09] * 3, "dense eager fp32": [0.07, 0.08, 0.09]}
    cases = [case(f"{one.name}, batch 128", times, one, found, 0.5) for one in found[:2]]
    (run / TIMES).write_text(json.dumps({"cases": cases}))
    return run


def test_times_are_shown_where_a_run_was_timed_but_not_of_what_computes_everything(reference: Path) -> None:
    shapes = write(reference / "shapes", "lcnet-rl train", dataset="shapes", agent={})
    runs = [reference / "first", timed(reference / "agent"), timed(shapes)]
    text = page([], [], [], timings(runs, "cifar10"))
    line = "| agent | engine policy fp32, batch 128 | 50.0% | 0.62 (0.56 to 0.71) | 50.00 | dense eager fp32 | 80.00 |"
    assert line in text
    assert "masked" not in text
    assert "| shapes" not in text
    assert "## Time" not in page([], [], [])


def test_times_of_another_version_are_refused(reference: Path) -> None:
    (reference / "agent" / TIMES).write_text(json.dumps({"cases": [{"this": "engine"}]}))
    with pytest.raises(UserError, match=r"times.json has no 'ratio_quartiles': measure again with lcnet-rl bench"):
        timings([reference / "agent"], "cifar10")


def test_the_committed_page_and_rows_are_those_of_the_committed_runs() -> None:
    runs = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))
    dense, groups, published = reproduce.collect(runs)
    rows = [*dense, *(row for group in groups for row in agent_rows(group)), *published]
    assert len(groups) >= 2
    assert json.loads((REFERENCE / "results.json").read_text())["rows"] == plain(rows)
    assert (REFERENCE.parent.parent / "RESULTS.md").read_text() == page(
        dense, groups, published, timings(RUNS, "cifar10")
    )


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_recorded_command_still_means_the_recorded_settings(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REFERENCE.parent.parent)
    _, command, *arguments = shlex.split(json.loads((run / "run.json").read_text())["command"])
    now = parse(arguments, command) if command == "train" else tyro.cli(Pretrain, args=arguments)
    assert now == from_dict(type(now), read_config(run), "config.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20-reinforced"], "did you mean resnet20-reinforce"),
        (["--page-only", "dense"], "--page-only makes nothing again"),
        (["--page-only", "--eval-only"], "--page-only makes nothing again"),
    ],
)
def test_commands_that_make_no_sense_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in failing(capsys, "reproduce", *arguments)


def test_without_committed_runs_nothing_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reproduce, "REFERENCE", tmp_path)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    assert "needs a clone of the repository" in failing(capsys, "reproduce")
    assert not list(tmp_path.iterdir())


def test_runs_are_chosen_by_name_or_kind(reference: Path) -> None:
    runs = sorted(reference.iterdir())
    assert [run.name for run in reproduce.choose(["agent", "dense"], runs)] == ["agent", "first", "second"]
    assert [run.name for run in reproduce.choose(["policies"], runs)] == ["agent"]
    assert len(reproduce.choose([], runs)) == 3
    rival = write(reference / "rival", "lcnet-rl train --algo skipnet", algo="skipnet", agent={})
    assert reproduce.choose(["rivals"], [*runs, rival]) == [rival]
    assert reproduce.choose(["policies", "dense"], [rival, *runs]) == runs


def test_rivals_have_rows_and_a_table_of_their_own(reference: Path) -> None:
    rival = write(reference / "rival", "lcnet-rl train --algo skipnet", algo="skipnet", seed=3, agent={"price": 0.5})
    evaluated(rival, accuracy=0.8, command="lcnet-rl evaluate runs/reference/rival")
    ours, theirs = grouped(agent_records([evaluated(reference / "agent"), rival], "cifar10"))
    assert [agent_rows(group)[0].kind for group in (ours, theirs)] == ["policy", "rival"]
    text = page([], [ours, theirs], [])
    assert text.index("## Policies") < text.index("| agent |") < text.index("## Rivals") < text.index("| rival |")
    assert "## Rivals" not in page([], [ours], [])


def test_ctrl_c_lets_the_training_save_what_it_has(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    child = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        f"    time.sleep(1.5); pathlib.Path({str(saved)!r}).touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save); print('begun', flush=True); time.sleep(60)\n"
    )
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{child.replace(chr(39), chr(34))}'\n")
    program.chmod(0o755)
    parent = (
        f"from lcnet_rl.commands import reproduce; reproduce.sys.executable = {str(program)!r}; reproduce.call(['x'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "begun":
            break
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert saved.exists()
    assert "goes on" in output
    assert "KeyboardInterrupt" in errors


@pytest.mark.slow
def test_runs_made_again_have_the_same_figures(
    images: str,
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
        assert main(["reproduce", "agent", *(["dense"] if flags else []), *flags]) == 0
        again = json.loads((root / "runs" / place / "agent" / "evaluation-test.json").read_text())
        recorded = json.loads((reference / "agent" / "evaluation-test.json").read_text())
        assert {**again, "command": ""} == {**recorded, "command": ""}
        shown = capsys.readouterr().out
        assert shown.count("+0.0000") == 3, "the accuracy of the dense run, and accuracy and share of the agent"
        assert "-0.0000" not in shown
    assert (root / "RESULTS.md").is_file()
    begun = (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns
    assert main(["reproduce", "agent"]) == 0
    assert (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns == begun
