"""Making the committed results again: in which order, from what, and only what is missing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tyro
import yaml
from run_folders import evaluated, write
from test_commands import failing

from lcnet_rl.commands import main, reproduce
from lcnet_rl.commands.pretrain_settings import Pretrain
from lcnet_rl.commands.train_settings import parse
from lcnet_rl.errors import UserError
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.results.plan import Reproduction, in_order
from lcnet_rl.runs import read_config
from lcnet_rl.settings import from_dict

RUNS = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))


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


def test_a_dot_in_a_name_is_no_file(reference: Path, tmp_path: Path) -> None:
    write(reference / "price-1.7", "lcnet-rl train", init="runs/reference/second", agent={})
    run = write(reference / "later", "lcnet-rl train", init="runs/reference/price-1.7", agent={})
    order = in_order([Reproduction(run, tmp_path)])
    assert [run.reference.name for run in order] == ["first", "second", "price-1.7", "later"]


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


def test_a_second_network_is_made_before_what_has_it(reference: Path, tmp_path: Path) -> None:
    settings = {"init": "runs/reference/first", "second": "runs/reference/second", "agent": {}}
    write(reference / "pair", "lcnet-rl train --second runs/reference/second", **settings)
    order = in_order([Reproduction(reference / "pair", tmp_path)])
    assert [run.reference.name for run in order] == ["first", "second", "pair"]
    assert (order[2].training() or [])[-4:] == ["--init", str(tmp_path / "first"), "--second", str(tmp_path / "second")]


def test_what_comes_with_the_project_is_made_again_too(tmp_path: Path) -> None:
    run = Reproduction(REFERENCE / "resnet20-ppo", tmp_path)
    assert run.starts_from == {"--init": REFERENCE / "resnet20"}
    assert (run.training() or [])[-2:] == ["--init", str(tmp_path / "resnet20")]


def test_where_to_compute_and_where_the_data_are_may_be_told(reference: Path, tmp_path: Path) -> None:
    evaluated(reference / "agent")
    other = ("--device", "cpu", "--data-root", "/data")
    for run in in_order([Reproduction(reference / "agent", tmp_path, other)]):
        assert tuple((run.training() or [])[-4:]) == other, run.reference.name
        assert all(tuple(evaluation[-4:]) == other for evaluation in run.evaluations())
        begun = tmp_path / run.reference.name
        shutil.copytree(run.reference, begun)
        (begun / "checkpoint.safetensors").touch()
        assert (run.training() or [])[1:] == ["--resume", str(begun), *other]


def test_a_machine_may_train_in_another_precision(reference: Path, tmp_path: Path) -> None:
    first, second, agent = in_order([Reproduction(reference / "agent", tmp_path, precision="auto")])
    assert (first.training() or [])[-2:] == (second.training() or [])[-2:] == ["--recipe.precision", "auto"]
    assert (agent.training() or [])[-2:] == ["--precision", "auto"]
    shutil.copytree(agent.reference, agent.folder)
    begun = yaml.safe_load((agent.reference / "config.yaml").read_text())
    begun["agent"] = {**(begun["agent"] or {}), "precision": "fp32"}
    (agent.folder / "config.yaml").write_text(yaml.safe_dump(begun))
    (agent.folder / "checkpoint.safetensors").touch()
    with pytest.raises(UserError, match="was begun in fp32, not auto; delete it"):
        agent.training()
    assert replace(agent, precision="fp32").training() == ["train", "--resume", str(agent.folder)]
    assert replace(agent, precision=None).training() == ["train", "--resume", str(agent.folder)]


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
        (
            ["nope"],
            f"'nope'; known: dense, static, policies, rivals, the rows of RESULTS.md, and the folders in {REFERENCE}\n",
        ),
        (["--page-only", "dense"], "--page-only makes nothing again"),
        (["--page-only", "--eval-only"], "--page-only makes nothing again"),
        (["--page-only", "--device", "cpu"], "--page-only makes nothing again"),
        (["--page-only", "--out", "elsewhere"], "--page-only makes nothing again"),
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


def test_what_would_be_the_same_is_not_written_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("REFERENCE", "ROOT"):
        monkeypatch.setattr(reproduce, name, tmp_path)
    reproduce.write_results([])
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["RESULTS.md", "frontier.png", "results.json"]
    written = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    (tmp_path / "results.json").write_text("{}")
    capsys.readouterr()
    reproduce.write_results([])
    again = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    assert [old == new for old, new in zip(written, again, strict=True)] == [True, True, False]
    assert (tmp_path / "results.json").read_text() != "{}"
    shown = capsys.readouterr().out
    assert [shown.count(f"{word}: {tmp_path}") for word in ("unchanged", "written")] == [2, 1]


def test_runs_are_chosen_by_name_or_kind(reference: Path) -> None:
    runs = sorted(reference.iterdir())
    assert [run.name for run in reproduce.choose(["agent", "dense"], runs)] == ["agent", "first", "second"]
    assert [run.name for run in reproduce.choose(["policies"], runs)] == ["agent"]
    assert len(reproduce.choose([], runs)) == 3
    rival = write(reference / "rival", "lcnet-rl train --algo skipnet", algo="skipnet", agent={})
    assert reproduce.choose(["rivals"], [*runs, rival]) == [rival]
    assert reproduce.choose(["policies", "dense"], [rival, *runs]) == runs
    thin = write(reference / "thin", "lcnet-rl pretrain --prune 0.5", prune=0.5)
    assert reproduce.choose(["static"], [*runs, rival, thin]) == [thin]
    assert thin in reproduce.choose(["dense"], [*runs, rival, thin])


def test_a_rows_name_is_all_its_seeds_and_a_path_is_one_run(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate(("ranged", "ranged-1")):
        ranged = write(reference / name, "lcnet-rl train --price 1..2", seed=seed, agent={"price": "1..2"})
        for price in (1, 1.7):
            evaluated(ranged, f"evaluation-test-price{price}.json", price=price, train_seed=seed)
    runs = sorted(evaluated(reference / "agent").parent.iterdir())

    def chosen(*what: str) -> list[str]:
        return [run.name for run in reproduce.choose(what, runs)]

    for name in ("ranged at price 1", "ranged at price 1.7", "ranged"):
        assert chosen(name) == ["ranged", "ranged-1"]
    assert chosen("ranged-1") == ["ranged-1"]
    monkeypatch.chdir(reference.parent)
    for path in ("reference/ranged", "reference/ranged/", str(reference / "ranged")):
        assert chosen(path) == ["ranged"]
    assert chosen("ranged at price 1.7", "agent", "./reference/agent") == ["ranged", "ranged-1", "agent"]
    with pytest.raises(UserError, match=r"unknown row, run or kind 'ranged at price 2'; did you mean ranged at price"):
        chosen("ranged at price 2")


def test_every_committed_row_that_is_made_here_can_be_named() -> None:
    rows = json.loads((REFERENCE / "results.json").read_text())["rows"]
    named = reproduce.rows_of(RUNS)
    for row in rows:
        if row["kind"] not in ("control", "published"):
            assert len(named[row["name"]]) >= len(row["seeds"]), row["name"]


@pytest.mark.slow
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


def test_figures_made_again_stand_beside_the_recorded_ones(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(reference / "first")
    again = Reproduction(reference / "first", tmp_path / "out")
    again.folder.mkdir(parents=True)
    evaluated(again.folder, accuracy=0.91, macs_mean=49.5e6)
    reproduce.print_comparison([again])
    shown = capsys.readouterr().out
    assert "+0.0100" in shown
    assert "-0.5000" in shown


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
        "evaluate runs/reference/dense",
    )
    for command in typed:
        monkeypatch.setattr("sys.argv", ["lcnet-rl", *command.split()])
        assert main(command.split()) == 0
    for name, value in (("REFERENCE", reference), ("ROOT", root)):
        monkeypatch.setattr(reproduce, name, value)
    (tmp_path / "data").mkdir()
    here = Path(images.removeprefix("folder:"))
    (tmp_path / "data" / here.name).symlink_to(here)
    for flags, place in (
        ([], "reproduced"),
        (["--eval-only", "--device", "cpu", "--data-root", str(tmp_path / "data")], "measured-again"),
    ):
        assert main(["reproduce", "agent", *(["dense"] if flags else []), *flags]) == 0
        again = json.loads((root / "runs" / place / "agent" / "evaluation-test.json").read_text())
        recorded = json.loads((reference / "agent" / "evaluation-test.json").read_text())
        assert {**again, "command": ""} == {**recorded, "command": ""}
        shown = capsys.readouterr().out
        assert shown.count("+0.0000") == 4, "accuracy and MACs of the dense run and of the agent"
        assert "-0.0000" not in shown
    assert (root / "RESULTS.md").is_file()
    begun = (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns
    assert main(["reproduce", "agent"]) == 0
    assert (root / "runs" / "reproduced" / "agent" / "model.safetensors").stat().st_mtime_ns == begun
