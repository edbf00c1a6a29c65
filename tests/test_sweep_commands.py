"""``lcnet-rl sweep`` with real trainings, and what training tells whoever watches it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_folders import dark_and_bright
from test_agents_runs import setup_in, small_model

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from agents.sb3 import train_sb3
from agents.sb3_config import PPOConfig
from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main, sweep
from lcnet_rl.commands.sweep import prepare
from lcnet_rl.commands.sweep_settings import Sweep, parse, settings_of, starting_settings
from lcnet_rl.commands.train_settings import ALGOS
from lcnet_rl.data import load_dataset
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.errors import UserError
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.pretrained import REFERENCE, pretrained
from lcnet_rl.progress import console
from lcnet_rl.provenance import command_line
from lcnet_rl.runs import CONFIG, MODEL, PROGRESS
from lcnet_rl.settings import from_dict, preset_names, read_preset
from lcnet_rl.sweep.space import read_space
from lcnet_rl.sweep.study import default_storage, load_study, of_study
from lcnet_rl.sweep.worker import Worker
from lcnet_rl.weights import load_backbone, save_backbone

CPU = torch.device("cpu")
PRUNED = REFERENCE / "resnet20-65-pruned-20"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of dark and bright images, as a data set's name."""
    return dark_and_bright(tmp_path_factory.mktemp("images"), train=20, test=4)


def tiny(images: str, runs: Path, *more: str) -> list[str]:
    """The command of a sweep of tiny trainings."""
    fixed = [f"dataset={images}", "backbone=resnet8", "width=4", "init=scratch", "groups=2", "epochs=1", "batch_size=8"]
    return ["sweep", "--fixed", *fixed, "--space", "price=0.1..2:log", "--runs", str(runs), "--study", "tiny", *more]


def test_a_real_sweep_trains_validates_and_shows_its_frontier(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    assert main(tiny(images, tmp_path, "--trials", "2")) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "2 trials completed" in output
    assert f"again: lcnet-rl frontier tiny --runs {tmp_path}" in output
    trials = load_study("tiny", default_storage(tmp_path)).get_trials()
    for trial in trials:
        run = tmp_path / "tiny" / f"trial-{trial.number:04d}"
        summary = json.loads((run / "evaluation-val.json").read_text())
        assert trial.values == [summary["accuracy"], summary["macs_mean"]]
        assert summary["split"] == "val", "a trial never sees test images"
        assert not list(run.glob("*-test.*"))
        shares = [share for share, *_ in trial.user_attrs["validations"]]
        assert shares == [0.25, 0.5, 0.75, 1], "a step each: the training has fewer than the validations asked for"
    assert main(tiny(images, tmp_path, "--trials", "3")) == 0
    assert len(load_study("tiny", default_storage(tmp_path)).get_trials()) == 3
    runs = [str(path) for path in sorted((tmp_path / "tiny").glob("trial-*"))]
    assert main(["compare", *runs, "--split", "val"]) == 0
    assert main(["frontier", "tiny", runs[0], "--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "frontier-val.png").is_file()


def test_a_trial_of_a_range_of_prices_is_told_by_the_price_it_was_measured_at(images: str, tmp_path: Path) -> None:
    arguments = tiny(images, tmp_path, "--trials", "1")
    arguments[arguments.index("price=0.1..2:log")] = "gate_lr=0.001..0.01:log"
    arguments.insert(arguments.index("batch_size=8"), "price=0.1..1.6")
    assert main(arguments) == 0
    (record,) = of_study(load_study("tiny", default_storage(tmp_path)))
    assert record.at == " at price 0.4", "the middle one, by its logarithm"


def test_ctrl_c_in_a_training_ends_the_worker_and_its_trial_is_run_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path
) -> None:
    one_step = Reinforce.joint_step

    def step(agent: Reinforce) -> dict[str, float]:
        if agent.step == 2:
            signal.raise_signal(signal.SIGINT)
        return one_step(agent)

    with monkeypatch.context() as patch:
        patch.setattr(Reinforce, "joint_step", step)
        assert main(tiny(images, tmp_path, "--trials", "1")) == 130
    assert "stopped at trial 0 of 1; continue with: " in capsys.readouterr().out
    assert main(tiny(images, tmp_path, "--trials", "1")) == 0
    stopped, again = load_study("tiny", default_storage(tmp_path)).get_trials()
    assert (stopped.state.name, again.state.name) == ("FAIL", "COMPLETE")
    assert stopped.params == again.params


def test_a_sweep_in_which_every_trial_fails_says_so(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    arguments = tiny(images, tmp_path, "--trials", "2")
    arguments.insert(arguments.index("batch_size=8"), "lr=1e30")
    assert main(arguments) == 2
    assert "no trial of study tiny has completed; the last reason: " in capsys.readouterr().err


def test_a_trial_is_the_run_that_train_makes_of_its_settings(images: str, tmp_path: Path) -> None:
    assert main(tiny(images, tmp_path, "--trials", "1")) == 0
    trial, again = tmp_path / "tiny" / "trial-0000", tmp_path / "again"
    assert main(["train", "--preset", str(trial / CONFIG), "--run", str(again)]) == 0
    assert (trial / MODEL).read_bytes() == (again / MODEL).read_bytes()


def test_a_grid_that_is_not_covered_says_how_it_would_be(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    grid = tiny(images, tmp_path, "--trials", "1", "--sampler", "grid")
    grid[grid.index("price=0.1..2:log")] = "price=0.1,0.2,0.4"
    assert main(grid) == 0
    assert "1 of the grid's 3 points; all: the same command with --trials 3" in capsys.readouterr().out
    grid[grid.index("--trials") + 1] = "3"
    assert main(grid) == 0
    assert "with --trials" not in capsys.readouterr().out
    grid[grid.index("--trials") + 1] = "1"
    assert main(grid) == 0
    assert "with --trials" not in capsys.readouterr().out, "all are there"


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        ("price=0.1,0.2", ["--trials", "2"], True),
        ("price=0.1,0.2", ["--trials", "1"], False),
        ("price=0.1,0.2", ["--trials", "2", "--sampler", "grid"], False),
        ("price=0.1..0.2", ["--trials", "2"], False),
    ],
)
def test_trials_that_may_repeat_each_other_are_told_of_the_grid(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    tmp_path: Path,
    space: str,
    options: list[str],
    said: bool,
) -> None:
    monkeypatch.setattr(Worker, "work", lambda *_: None)
    monkeypatch.setattr(sweep, "conclude", lambda *_, **__: None)
    arguments = tiny(images, tmp_path, *options)
    arguments[arguments.index("price=0.1..2:log")] = space
    assert main(arguments) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ("the space has 2 points only, and --sampler tpe may try one twice" in told) == said


def test_a_teacher_of_any_number_of_classes_can_teach_networks_from_scratch(images: str, tmp_path: Path) -> None:
    save_backbone(create_backbone("resnet8", 2, 4), tmp_path / "teacher.safetensors")
    taught = tiny(images, tmp_path, "--trials", "1")
    taught.insert(taught.index("--space"), f"teacher={tmp_path / 'teacher.safetensors'}")
    assert main(taught) == 0


@pytest.mark.parametrize("waiting", [False, True])
def test_a_sweep_that_is_stopped_stops_its_workers(
    monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path, waiting: bool
) -> None:
    workers = []

    def start(config: Sweep, number: int) -> multiprocessing.process.BaseProcess:
        workers.append(multiprocessing.get_context("spawn").Process(target=time.sleep, args=(30,)))
        workers[0].start()
        return workers[0]

    def stop(worker: Worker, command: str) -> None:
        if not waiting:
            raise Interrupted(command, 0, 1)
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()  # while the other worker is waited for

    monkeypatch.setattr("lcnet_rl.commands.sweep.start_worker", start)
    monkeypatch.setattr(Worker, "work", stop)
    assert main(tiny(images, tmp_path, "--workers", "2")) == 130
    assert workers[0].exitcode == -signal.SIGTERM


@pytest.mark.parametrize("workers", [1, 2])
def test_several_workers_have_one_thread_each_and_a_single_one_as_many_as_torch_has(
    monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path, threads: int, workers: int
) -> None:
    told = []

    def work_here(*, target: Any, args: Any) -> Any:
        mine = torch.get_num_threads()
        torch.set_num_threads(threads)  # with which a process begins, as OMP_NUM_THREADS may say
        return SimpleNamespace(
            start=lambda: (target(*args), torch.set_num_threads(mine)), join=lambda: None, exitcode=0
        )

    monkeypatch.setattr(console, "_file", None)  # and what it was again, after a worker's log
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Process=work_here))
    monkeypatch.setattr(Worker, "work", lambda *_: told.append(torch.get_num_threads()))
    monkeypatch.setattr(sweep, "conclude", lambda *_, **__: None)
    torch.set_num_threads(threads)
    assert main(tiny(images, tmp_path, "--workers", str(workers))) == 0
    assert told == ([threads] if workers == 1 else [1, 1])


@pytest.mark.slow
def test_local_workers_share_the_study(capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path) -> None:
    assert main(tiny(images, tmp_path, "--trials", "5", "--workers", "2")) == 0
    assert (tmp_path / "tiny" / "worker-2.log").is_file()
    study = load_study("tiny", default_storage(tmp_path))
    assert 5 <= len(study.get_trials()) <= 6
    assert len({trial.params["agent.price"] for trial in study.get_trials()}) == len(study.get_trials())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no search space"),
        (["--preset", "smoek"], "did you mean smoke"),
        (["--preset", "smoke", "--train", "smoek"], "did you mean smoke"),
        (["--space", "prise=1..2"], "did you mean"),
        (["--space", "price=1..2", "--space=epochs=1,2"], "--space is given more than once: name all after one"),
        (["--space", "price=1..2", "--fixed", "seed=1", "--fixed", "epochs=1"], "--fixed is given more than once"),
        (["--space", "price=-1..2"], "price must be >= 0"),
        (["--space", "price=1..2", "--fixed", "sed=1"], "did you mean seed"),
        (["--space", "price=1..2", "--fixed", "seed"], "give NAME=VALUE"),
        (["--space", "price=1..2", "--fixed", "preset=smoke"], "a preset of train is given with --train"),
        (["--space", "price=1..2", "--fixed", "run=x"], "each trial gets a run folder of its own"),
        (["--space", "price=1..2", "--fixed", "runs=x"], "run folders under --runs"),
        (["--space", "price=1..2", "--fixed", "resume=x"], "give --fixed init=RUN"),
        (["--preset", "smoke", "--price", "0.5"], "--price is of --objective reward"),
        (
            ["--space", "backbone=resnet20,resnet56", "--objective", "reward"],
            "the space has networks of different cost",
        ),
        (["--space", "price=1..2", "--fixed", "init=/nowhere"], "no weights file at /nowhere"),
        (["--space", "groups=1,4", "--fixed", f"init={PRUNED}"], "groups: 4 will not do"),
        (["--space", "price=1..2", "--fixed", "epochs=many"], "epochs is a number, got 'many'"),
        (["--space", "price=1..2", "--fixed", "reward=lagrangian"], "price: 1.0 will not do: lagrangian finds its"),
        (["--space", "price=1..2", "reward=linear,lagrangian"], "by itself, from 0 on: leave price out"),
        (
            ["--space", "epochs=1,2", "--fixed", "reward=lagrangian", "price=1", "dataset=folder:/nowhere"],
            "leave price out",
        ),
        (["--space", "price=1..2", "--sampler", "tpa"], "did you mean tpe"),
        (["--space", "price=1..2", "--sampler", "grid"], "a grid needs choices or steps"),
        (["--space", "price=1..2", "--trials", "0"], "trials must be at least 1"),
        (["--space", "price=1..2", "--storage", "nonsense"], "is no database URL"),
        (["--space", "price=1..2", "--study", "a/b"], "study is a name"),
        (["--space", "price=1..2", "--study", "a:b"], "study is a name"),
        (["--space", "price=1..2", "--study", ".."], "study is a name"),
        (["--space", "price=1..2", "--pruning.after", "2"], "after is a share"),
        (["--space", "price=1..2", "--seed", "-1"], "a seed is in"),
        (["--space", "price=1..2", "--fixed", "seed=-1"], "a seed is in"),
        (["--preset", "smoke", "--space", "target=0.01,0.7"], "target: 0.01 will not do"),
        (
            ["--space", "price=1..2", "--fixed", "algo=ppo", "num_envs=251", "minibatch=200"],
            "choose another --num-envs",
        ),
        (["--space", "distill=0,0.5", "--fixed", f"teacher={PRUNED}"], "distill: 0 will not do"),
    ],
)
def test_a_mistake_gets_one_clear_line_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("datasets", ["shapes,cifar10", "cifar10,shapes"])
def test_a_data_set_without_a_network_of_its_own_is_refused_in_any_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, datasets: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dataset: 'shapes' will not do: no pretrained resnet20"):
        prepare(Sweep(space=(f"dataset={datasets}",), fixed=("backbone=resnet20",)))


@pytest.mark.parametrize("name", preset_names("sweep"))
def test_every_sweep_preset_is_a_valid_search(name: str) -> None:
    config = parse(["--preset", name], "sweep")
    base = read_preset(config.train or "") if config.train else {}
    assert read_space(config.space, ALGOS, base.get("algo", "reinforce")).dimensions


def test_the_width_of_what_trials_start_from_is_that_of_its_own_backbone() -> None:
    assert starting_settings(Sweep(train="smoke"))["width"] == 8
    assert starting_settings(Sweep(train="smoke", fixed=("backbone=resnet14",)))["width"] == 8
    assert "width" not in starting_settings(Sweep(train="smoke", fixed=("backbone=resnet20",)))
    base = starting_settings(Sweep(train="smoke"))
    space = read_space(("backbone=resnet14,resnet20",), ALGOS, "reinforce")
    widths = {name: settings_of(base, {"backbone": name}, space).width for name in ("resnet14", "resnet20")}
    assert widths == {"resnet14": 8, "resnet20": None}


def test_options_override_the_sweep_preset() -> None:
    config = parse(["--preset", "smoke", "--trials", "7", "--space", "price=1,2"], "sweep")
    assert (config.trials, config.space, config.train) == (7, ("price=1,2",), "smoke")


@pytest.mark.parametrize(("given", "price"), [([], 0.3), (["--price", "0.5"], 0.5)])
def test_a_reward_has_the_price_that_is_given_also_over_a_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[str], price: float
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("space: {price: 1..2}\ntrain: smoke\nobjective: reward\n")
    mine = prepare(parse(["--preset", "mine.yaml", *given], "sweep"))
    assert mine.values(0.9, 1e6, 0.5) == (pytest.approx(0.9 - price * 0.5),)
    assert mine.study.user_attrs["plan"]["price"] == price


def test_the_smoke_preset_finds_the_project_s_own_backbone() -> None:
    config = from_dict(ALGOS["reinforce"], read_preset("smoke"), "smoke")
    path = pretrained(config.dataset, config.backbone, config.width)
    assert path == REFERENCE / "shapes-resnet14" / "backbone.safetensors"
    assert pretrained("cifar10", "resnet20", None) == REFERENCE / "resnet20" / "backbone.safetensors"
    assert pretrained("shapes", "resnet14", None) is None, "the published width is not what comes with the project"


@pytest.mark.slow
def test_the_backbone_for_the_built_in_images_has_its_recorded_accuracy() -> None:
    recorded = json.loads((REFERENCE / "shapes-resnet14" / "evaluation-test.json").read_text())
    backbone = load_backbone(str(REFERENCE / "shapes-resnet14"), "resnet14")
    assert dense_accuracy(backbone, load_dataset("shapes", "test"), CPU) == recorded["accuracy"]


@pytest.mark.slow
def test_the_smoke_presets_run(tmp_path: Path) -> None:
    assert main(["train", "--preset", "smoke", "--run", str(tmp_path / "run")]) == 0
    assert main(["sweep", "--preset", "smoke", "--runs", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "smoke" / "frontier-val.json").read_text())
    assert len(figures["settings"]) == 4


def train(algo: str, run: Path, on_validation: Any) -> None:
    run.mkdir()
    if algo == "reinforce":
        config = ReinforceConfig(epochs=2, batch_size=32, evals=4)
        Reinforce(small_model(), config, setup_in(run)).train(on_validation)
    else:
        ppo = PPOConfig(timesteps=32 * 3 * 4, num_envs=32, episodes=1, batch_size=32, warmup_steps=2, eval_every=1)
        train_sb3(small_model(), ppo, setup_in(run), on_validation=on_validation)


@pytest.mark.parametrize("algo", ["reinforce", "ppo"])
def test_training_tells_of_every_validation_up_to_the_last(tmp_path: Path, algo: str) -> None:
    told: list[tuple[float, dict[str, float]]] = []
    train(algo, tmp_path / "run", lambda done, scalars: told.append((done, scalars)))
    assert [done for done, _ in told] == [0.25, 0.5, 0.75, 1.0]
    header, *rows = [line.split(",") for line in (tmp_path / "run" / PROGRESS).read_text().splitlines()]
    logged = [row[header.index("eval/accuracy")] for row in rows if row[header.index("eval/accuracy")]]
    assert [f"{scalars['eval/accuracy']:.6g}" for _, scalars in told] == logged
    assert all(0 < scalars["eval/macs_ratio"] < 1.5 for _, scalars in told)


@pytest.mark.parametrize("algo", ["reinforce", "ppo"])
def test_what_the_watcher_raises_ends_the_training_and_leaves_ctrl_c_as_it_was(tmp_path: Path, algo: str) -> None:
    class EnoughError(Exception):
        pass

    def enough(done: float, scalars: dict[str, float]) -> None:
        if done >= 0.5:
            raise EnoughError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(EnoughError):
        train(algo, tmp_path / "run", enough)
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "run" / PROGRESS).read_text().count("\n") >= 2


def test_a_password_is_not_written_into_run_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lcnet-rl", "sweep", "--storage=postgresql://me:secret@host/db", "a:b@c"])
    assert command_line() == "lcnet-rl sweep '--storage=postgresql://me:***@host/db' a:b@c"
