"""Jobs under the real torchrun: who speaks when they end, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcnet_rl.commands import main
from lcnet_rl.runs import CHECKPOINT, MODEL
from lcnet_rl.tree import load_tree

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "lcnet_rl"]
PATIENCE = 120
"""Seconds."""


def train(dataset: str, run: Path) -> list[str]:
    """A training command that takes hours unless something ends it, and saves every step."""
    network = ["--dataset", dataset, "--backbone", "resnet8", "--width", "4", "--init", "scratch", "--groups", "2"]
    steps = ["--batch-size", "8", "--epochs", "100000", "--warmup", "0.5", "--save-every", "1"]
    return ["train", *network, *steps, "--device", "cpu", "--run", str(run)]


@contextlib.contextmanager
def job(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """torchrun with two processes of the command line; ended, whatever becomes of the test."""
    command = [*TORCHRUN, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        try:
            yield job
        finally:
            if job.poll() is None:
                job.terminate()
                job.communicate(timeout=PATIENCE)


def workers(job: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started, by rank."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listing.splitlines()]
    return sorted(int(pid) for pid, parent in pairs if int(parent) == job.pid)


def wait_for_steps(run: Path, steps: int) -> int:
    """Until the checkpoint is that of a step from ``steps`` on; which one it is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (run / CHECKPOINT).exists() and (step := load_tree(run / CHECKPOINT)["step"]) >= steps:
            return step
        time.sleep(0.1)
    raise AssertionError(f"no {steps} steps in {PATIENCE} s")


def ours(output: str) -> list[str]:
    """Lines that are not torchrun's own: those of our errors, and of Python's tracebacks through our code."""
    lines = [line for line in output.splitlines() if "site-packages" not in line]  # in a clone of that name, too
    return [line for line in lines if line.startswith("error: ") or "lcnet_rl/" in line]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_job_with_one_line_and_a_checkpoint_to_go_on_with(
    images: str,
    tmp_path: Path,
    rank: int,
) -> None:
    run = tmp_path / "run"
    with job(*train(images, run)) as torchrun:
        step = wait_for_steps(run, 3)
        os.kill(workers(torchrun)[rank], signal.SIGKILL)
        _, errors = torchrun.communicate(timeout=PATIENCE)
    assert torchrun.returncode != 0
    (line,) = ours(errors)
    assert "process" in line
    assert "lost" in line or "loses" in line
    assert (
        f"{run / CHECKPOINT} is good, go on with: torchrun --nproc-per-node 2 -m -- lcnet_rl train --resume {run}"
        in line
    )
    assert load_tree(run / CHECKPOINT)["step"] >= step
    with job("train", "--resume", str(run)) as torchrun:
        wait_for_steps(run, load_tree(run / CHECKPOINT)["step"] + 2)


@pytest.mark.slow
def test_ctrl_c_saves_a_step_that_all_have_finished_and_says_how_to_go_on(
    images: str,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with job(*train(images, run)) as torchrun:
        wait_for_steps(run, 3)
        torchrun.send_signal(signal.SIGINT)
        output, errors = torchrun.communicate(timeout=PATIENCE)
    assert torchrun.returncode != 0
    step = load_tree(run / CHECKPOINT)["step"]
    assert f"stopped at step {step} of " in output
    assert output.count("continue with: torchrun --nproc-per-node 2") == 1
    assert not ours(errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--algo", "ppo"], "--algo ppo trains in one process: start it without torchrun"),
        (["train", "--batch-size", "9"], "batch size 9 does not divide evenly among 2 processes"),
        (["train", "--price", "-1"], "price must be >= 0"),
        (["pretrain", "--recipe.compile"], "--recipe.compile is for one process"),
        (["pretrain", "--recipe.batch-size", "7"], "batch size 7 does not divide evenly among 2 processes"),
    ],
    ids=["ppo", "batch", "price", "compile", "pretrain-batch"],
)
def test_a_mistake_is_told_once(images: str, tmp_path: Path, arguments: list[str], message: str) -> None:
    network = ["--dataset", images, "--backbone", "resnet8", "--width", "4", "--runs", str(tmp_path / "runs")]
    init = ["--init", "scratch"] if arguments[0] == "train" else []
    with job(*arguments, *network, *init) as torchrun:
        _, errors = torchrun.communicate(timeout=PATIENCE)
    assert torchrun.returncode != 0
    (line,) = ours(errors)
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_pretrained_and_trained_by_two_the_run_is_like_any_other(images: str, tmp_path: Path) -> None:
    dense, run = tmp_path / "dense", tmp_path / "run"
    network = ["--dataset", images, "--backbone", "resnet8", "--width", "4"]
    recipe = ["--recipe.epochs", "2", "--recipe.batch-size", "8"]
    training = ["--init", str(dense), "--epochs", "2", "--batch-size", "8", "--evals", "1"]
    for arguments in (["pretrain", *recipe, "--run", str(dense)], ["train", *training, "--run", str(run)]):
        with job(*arguments, *network) as torchrun:
            _, errors = torchrun.communicate(timeout=PATIENCE)
        assert torchrun.returncode == 0, errors
    assert not ours(errors)
    assert (run / MODEL).is_file()
    assert main(["evaluate", str(run), "--split", "val"]) == 0
