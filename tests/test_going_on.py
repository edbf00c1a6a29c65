"""Runs that go on or are evaluated: only with the settings, the classes and the images that they began with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from image_folders import dark_and_bright

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main, pretrain, train, training
from lcnet_rl.data import load_dataset
from lcnet_rl.errors import UserError
from lcnet_rl.runs import CHECKPOINT, CONFIG, METRICS, MODEL, PROGRESS, load_checkpoint
from lcnet_rl.unchanged import warn_if_changed

TINY = ["--backbone", "resnet8", "--width", "4"]
COMMANDS = {
    "train": ["train", *TINY, "--init", "scratch", "--epochs", "1", "--batch-size", "8"],
    "pretrain": ["pretrain", *TINY, "--recipe.epochs", "1", "--recipe.batch-size", "8"],
}


@pytest.fixture(params=list(COMMANDS))
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(command: str, tmp_path: Path) -> Path:
    """A finished run on ``tmp_path / "images"``."""
    data = dark_and_bright(tmp_path / "images", train=20, test=4)
    assert main([*COMMANDS[command], "--dataset", data, "--run", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that fails with one line."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


def test_classes_of_other_names_are_refused(
    capsys: pytest.CaptureFixture[str], command: str, run: Path, tmp_path: Path
) -> None:
    for part in ("train", "test"):  # the order of the classes, which the labels count, turns around
        (tmp_path / "images" / part / "dark").rename(tmp_path / "images" / part / "a dark one")
    for arguments in ((command, "--resume", str(run)), ("evaluate", str(run))):
        assert "knows the classes bright, dark, but" in refused(capsys, *arguments)


def test_a_run_does_not_go_on_with_more_images_than_it_began_with(
    capsys: pytest.CaptureFixture[str], command: str, run: Path, tmp_path: Path
) -> None:
    dark = tmp_path / "images" / "train" / "dark"
    for number in range(20):
        shutil.copy(dark / "0.png", dark / f"more-{number}.png")
    printed = refused(capsys, command, "--resume", str(run))
    assert "began with 36 training images, but" in printed
    assert "now has 54" in printed


def test_where_files_were_renamed_a_run_does_not_go_on_and_validation_images_are_said_to_be_known(
    capsys: pytest.CaptureFixture[str], command: str, run: Path, tmp_path: Path
) -> None:
    said = f"files in folder:{tmp_path}/images were added, removed or renamed since {run} began"
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert said not in capsys.readouterr().out
    dark = tmp_path / "images" / "train" / "dark"
    (dark / "0.png").rename(dark / "z.png")
    assert "have other names than when" in refused(capsys, command, "--resume", str(run))
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert said in capsys.readouterr().out
    start = [*COMMANDS[command], "--dataset", f"folder:{tmp_path}/images", "--init", str(run)]
    assert main([*start, "--run", str(tmp_path / "next")]) == 0
    assert said in capsys.readouterr().out
    halves = load_dataset(f"held-out:folder:{tmp_path}/images", "train")
    warn_if_changed(run, halves)
    assert said.replace("folder:", "held-out:folder:", 1) in capsys.readouterr().out


def test_images_that_a_run_learned_from_are_said_to_be_known_where_they_validate_now(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text("dataset: held-out:shapes")
    warn_if_changed(tmp_path, load_dataset("held-out:shapes", "train"))
    warn_if_changed(tmp_path / "no-run", load_dataset("shapes", "train"))
    assert capsys.readouterr().out == ""
    (tmp_path / MODEL).touch()
    for named in (tmp_path, tmp_path / MODEL):
        warn_if_changed(named, load_dataset("shapes", "train"))
        assert f"{tmp_path} was trained on half of the validation images of shapes" in capsys.readouterr().out


def test_all_networks_that_training_starts_from_are_asked_what_they_have_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: Any) -> None:
        raise UserError("asked")

    asked: list[str] = []
    monkeypatch.setattr(training, "warn_if_changed", lambda run, _: asked.append(run.name))
    monkeypatch.setattr(train, "starting_backbone", lambda *_: create_backbone("resnet8", 10, 4))
    monkeypatch.setattr(training, "check", stop)
    monkeypatch.setattr(pretrain, "warn_if_changed", lambda run, _: asked.append(run.name))
    monkeypatch.setattr(pretrain, "full_batches", stop)
    networks = ["--init", "first", "--second", "behind", "--teacher", "above"]
    assert main(["train", "--dataset", "shapes", *networks, "--run", str(tmp_path / "run")]) == 2
    assert asked == ["first", "behind", "above"]
    asked.clear()
    assert main(["train", "--dataset", "shapes", "--run", str(tmp_path / "run")]) == 2
    assert asked == ["auto"]
    asked.clear()
    taught = [*networks[:2], *networks[4:], "--recipe.distill", "0.5"]
    assert main(["pretrain", "--dataset", "shapes", *taught, "--run", str(tmp_path / "run")]) == 2
    assert asked == ["first", "above"]


def test_a_run_without_a_checkpoint_is_told_from_a_finished_one(
    capsys: pytest.CaptureFixture[str], command: str, run: Path, tmp_path: Path
) -> None:
    data = f"folder:{tmp_path}/images"
    again = [*COMMANDS[command], "--dataset", data, "--run", str(run)]
    assert "already holds a run" in refused(capsys, *again)
    for name in (CHECKPOINT, MODEL, METRICS):
        (run / name).unlink(missing_ok=True)
    assert "without a checkpoint to go on from: give another folder, or delete it" in refused(capsys, *again)
    assert f"has no {CHECKPOINT} to go on from" in refused(capsys, command, "--resume", str(run))


def test_a_finished_run_is_left_as_it_is(capsys: pytest.CaptureFixture[str], command: str, run: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    capsys.readouterr()
    assert main([command, "--resume", str(run)]) == 0
    assert f"{run} is finished" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


@pytest.mark.parametrize("lost", [MODEL, "the last validation"])
def test_it_is_said_at_which_step_a_run_goes_on(
    capsys: pytest.CaptureFixture[str], images: str, lost: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main([*COMMANDS["train"], "--dataset", images, "--save-every", "2", "--run", str(run)]) == 0
    steps = load_checkpoint(run)["step"]
    whole = (run / PROGRESS).read_text()
    if lost == MODEL:
        (run / MODEL).unlink()
    else:
        (run / PROGRESS).write_text("".join(whole.splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    total = int(
        re.findall(rf"going on with {re.escape(str(run))} at {steps} of (\d+) steps", capsys.readouterr().out)[0]
    )
    assert 0 < steps <= total < steps + 2
    assert (run / MODEL).is_file()
    assert len((run / PROGRESS).read_text().splitlines()) == len(whole.splitlines())


@pytest.mark.slow
def test_a_finished_run_of_ppo_is_told_from_one_that_goes_on(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["train", *TINY, "--algo", "ppo", "--dataset", images, "--init", "scratch", "--batch-size", "8"]
    arguments += ["--timesteps", "300", "--num-envs", "10", "--warmup-steps", "2", "--run", str(run)]
    assert main(arguments) == 0
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished: 300 timesteps" in capsys.readouterr().out
    (run / MODEL).unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert re.search(r"going on with .* at \d+ of 300 timesteps", capsys.readouterr().out)


def test_a_training_of_few_steps_is_warned_of_once(
    capsys: pytest.CaptureFixture[str], command: str, run: Path, tmp_path: Path
) -> None:
    warning = "the whole training has "
    assert capsys.readouterr().out.count(warning) == 1
    smaller = {"train": ["--batch-size", "2"], "pretrain": ["--recipe.batch-size", "2"]}[command]
    again = [*COMMANDS[command], "--dataset", f"folder:{tmp_path}/images", *smaller, "--run", str(tmp_path / "more")]
    assert main(again) == 0
    assert warning not in capsys.readouterr().out


def test_a_pruned_run_goes_on_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    network = ["--dataset", dark_and_bright(tmp_path / "images", train=20, test=4), "--backbone", "resnet8"]
    short = ["--recipe.epochs", "1", "--recipe.batch-size", "8", "--run"]
    assert main(["pretrain", *network, *short, str(tmp_path / "dense")]) == 0
    pruned = [
        "pretrain",
        *network,
        "--init",
        str(tmp_path / "dense"),
        "--prune",
        "0.7",
        *short,
        str(tmp_path / "pruned"),
    ]
    assert main(pruned) == 0
    monkeypatch.setattr("lcnet_rl.commands.pretrain.world_size", lambda: 2)
    assert "--prune is for one process" in refused(capsys, *pruned[:-1], str(tmp_path / "other"))
    assert main(["pretrain", "--resume", str(tmp_path / "pruned")]) == 0


def test_a_run_that_recorded_no_data_goes_on(command: str, run: Path) -> None:
    (run / "run.json").unlink()
    assert main([command, "--resume", str(run)]) == 0


def test_an_option_is_refused_whose_value_is_the_default_but_not_the_runs(
    capsys: pytest.CaptureFixture[str], command: str, run: Path
) -> None:
    assert "leave options other than" in refused(capsys, command, "--resume", str(run), "--dataset", "cifar10")


def test_a_run_on_another_device_goes_on_with_the_one_found_here(command: str, run: Path) -> None:
    config = run / CONFIG
    config.write_text(config.read_text().replace("device: auto", "device: cuda:7"))
    assert main([command, "--resume", str(run), "--device", "auto"]) == 0
