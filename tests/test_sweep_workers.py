"""Workers and the studies that they share: pruned, failed, stopped and killed trials."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.study import Study
from optuna.trial import TrialState

from lcnet_rl.commands.train_settings import ALGOS
from lcnet_rl.errors import UserError
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.sweep.pruning import Pruning
from lcnet_rl.sweep.space import Space, read_space
from lcnet_rl.sweep.study import OUTCOME, REASON, create_sampler, finished, load_study, open_study
from lcnet_rl.sweep.worker import Report, TrialOutcome, Worker

PATIENCE = 4
SPACE: Space = read_space(["agent.price=0.1..1", "agent.reward=linear,confidence"], ALGOS, "reinforce")


def objective(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
    """A trial without training: what is dear is accurate."""
    price = values["agent.price"]
    report(0.5, 1 - price / 2, 1e6 * (2 - price), 1 - price / 2)
    return TrialOutcome(1 - price / 2, 1e6 * (2 - price), 1 - price / 2, folder)


def join(storage: str, name: str = "x", sampler: str = "random", kind: str = "pareto", **plan: Any) -> Study:
    return open_study(name, storage, kind, plan, create_sampler(sampler, 0, SPACE), PATIENCE)


def worker(study: Study, storage: str, trials: int, does: Any = objective, **options: Any) -> Worker:
    def values(accuracy: float, macs: float, share: float) -> tuple[float, ...]:
        return (accuracy, macs) if len(study.directions) == 2 else (accuracy - 0.3 * share,)

    return Worker(study, SPACE, does, values, Path("trials"), trials, patience=PATIENCE, storage=storage, **options)


@pytest.fixture(autouse=True)
def _trials_are_kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 12), ("nsga2", 5), ("random", 5)])
def test_a_study_stopped_and_continued_proposes_what_an_uninterrupted_one_does(
    storage: str, sampler: str, trials: int
) -> None:
    whole, parts = join(storage, "whole", sampler), join(storage, "parts", sampler)
    worker(whole, storage, trials).work("")
    worker(parts, storage, 3).work("")
    parts = join(storage, "parts", sampler)
    worker(parts, storage, trials).work("")
    assert [trial.params for trial in whole.get_trials()] == [trial.params for trial in parts.get_trials()]
    assert len({trial.params["agent.price"] for trial in whole.get_trials()}) == trials


def test_a_grid_is_covered_once(storage: str) -> None:
    grid = read_space(["agent.price=0.1,0.5", "agent.reward=linear,confidence"], ALGOS, "reinforce")
    study = open_study("x", storage, "pareto", {}, create_sampler("grid", 0, grid), PATIENCE)
    Worker(study, grid, objective, lambda a, m, s: (a, m), Path("trials"), 4, storage=storage).work("")
    params = [tuple(trial.params.values()) for trial in study.get_trials()]
    assert sorted(params) == [(0.1, "confidence"), (0.1, "linear"), (0.5, "confidence"), (0.5, "linear")]


def test_a_finished_study_asks_for_nothing_more(storage: str) -> None:
    study = join(storage)
    worker(study, storage, 2).work("")
    worker(join(storage), storage, 2).work("")
    assert len(study.get_trials()) == 2


def test_a_trial_that_fails_is_recorded_with_its_reason_and_the_study_goes_on(storage: str) -> None:
    def failing(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if folder.name == "trial-0001":
            raise UserError("the loss is not a number")
        return objective(values, folder, report)

    study = join(storage)
    worker(study, storage, 3, failing).work("")
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.get_trials()[1].user_attrs[REASON] == "the loss is not a number"
    assert len(finished(study)) == 3, "it counts, and is not run again"


def test_a_trial_that_a_gpu_has_no_memory_for_is_recorded_and_the_study_goes_on(storage: str) -> None:
    def large(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if folder.name == "trial-0001":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return objective(values, folder, report)

    study = join(storage)
    worker(study, storage, 3, large).work("")
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.get_trials()[1].user_attrs[REASON] == "CUDA out of memory"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("another"), OSError("no space left")])
def test_what_goes_wrong_for_another_reason_ends_the_worker_and_the_point_of_a_grid_is_not_lost(
    storage: str, error: Exception
) -> None:
    def breaks(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if folder.name == "trial-0000":
            raise error
        return objective(values, folder, report)

    grid = read_space(["agent.price=0.1,0.2,0.3"], ALGOS, "reinforce")
    study = open_study("x", storage, "pareto", {}, create_sampler("grid", 0, grid), PATIENCE)
    one = Worker(study, grid, breaks, lambda a, m, s: (a, m), Path("trials"), 3, storage=storage)
    with pytest.raises(type(error), match=str(error)):
        one.work("")
    one.work("")
    completed = [trial.params["agent.price"] for trial in finished(study)]
    assert sorted(completed) == [0.1, 0.2, 0.3]


def test_a_trial_that_always_breaks_is_recorded_the_second_time(storage: str) -> None:
    def breaks(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if values["agent.price"] == 0.2:
            raise RuntimeError("a bug")
        return objective(values, folder, report)

    grid = read_space(["agent.price=0.1,0.2,0.3"], ALGOS, "reinforce")
    study = open_study("x", storage, "pareto", {}, create_sampler("grid", 0, grid), PATIENCE)
    one = Worker(study, grid, breaks, lambda a, m, s: (a, m), Path("trials"), 3, storage=storage)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug"):
            one.work("")
    one.work("")
    counted = {trial.params["agent.price"]: trial for trial in finished(study)}
    assert sorted(counted) == [0.1, 0.2, 0.3]
    assert counted[0.2].user_attrs[REASON] == "RuntimeError: a bug"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("lcnet-rl train --resume x", 3, 4)])
def test_ctrl_c_queues_the_trial_and_says_how_to_go_on(storage: str, stop: BaseException) -> None:
    def stopped(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if folder.name == "trial-0001":
            raise stop
        return objective(values, folder, report)

    study = join(storage)
    with pytest.raises(Interrupted, match="stopped at trial 1 of 3; continue with: lcnet-rl sweep --study x"):
        worker(study, storage, 3, stopped).work("lcnet-rl sweep --study x")
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    again = join(storage)
    worker(again, storage, 3).work("")
    trials = again.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params


def test_a_trial_that_ctrl_c_stops_twice_is_queued_twice(storage: str) -> None:
    def stopped(*_: object) -> TrialOutcome:
        raise Interrupted("lcnet-rl train --resume x", 3, 4)

    study = join(storage)
    for _ in range(2):
        with pytest.raises(Interrupted, match="stopped at trial 0 of 1"):
            worker(study, storage, 1, stopped).work("")
    assert states(study) == ["FAIL", "FAIL", "WAITING"]
    assert finished(study) == [], "neither is recorded as failed"


def test_a_bug_is_not_taken_for_a_failed_trial(storage: str) -> None:
    def broken(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        worker(join(storage), storage, 3, broken).work("")


def test_a_worker_whose_trial_was_given_up_goes_on_with_the_next(storage: str) -> None:
    study = join(storage)

    def asleep(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        if folder.name == "trial-0000":  # as another worker does once it sees no sign of life
            study.tell(0, state=TrialState.FAIL)
        return objective(values, folder, report)

    worker(study, storage, 2, asleep).work("")
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_study_with_another_plan_is_not_joined(storage: str) -> None:
    join(storage, space="a", base={"x": 1})
    join(storage, space="a", base={"x": 1})
    with pytest.raises(UserError, match="study x exists with another space; give this one a name of its own"):
        join(storage, space="b", base={"x": 1})
    with pytest.raises(UserError, match="another objective"):
        join(storage, kind="reward", space="a", base={"x": 1})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is no database URL"),
        ("nobase://x", "no driver for nobase://x"),
        ("postgresql://user:secret@127.0.0.1:1/none", "cannot be used"),
        ("sqlite:////proc/none/studies.db", ""),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(url: str, message: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises((UserError, OSError)) as caught:
        join(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_study_gets_the_nearest_names(storage: str) -> None:
    join(storage, "prices")
    with pytest.raises(UserError, match="did you mean prices"):
        load_study("price", storage)
    with pytest.raises(UserError, match="did you mean nsga2"):
        create_sampler("nsga", 0, SPACE)


def at(done: float, accuracy: float, macs: float) -> list[float]:
    return [done, accuracy, -macs]


COMPLETED = [[at(0.2, 0.3, 9), at(0.5, accuracy, macs)] for accuracy, macs in ((0.6, 5), (0.7, 6), (0.8, 7))]


@pytest.mark.parametrize(
    ("validation", "hopeless"),
    [
        (at(0.5, 0.69, 6.1), True),
        (at(0.5, 0.69, 5.9), False),
        (at(0.5, 0.71, 9.0), False),
        (at(0.7, 0.69, 6.1), True),
        (at(0.2, 0.1, 9.9), False),
        (at(0.4, 0.2, 9.1), True),
        (at(1.0, 0.1, 9.9), False),
    ],
    ids=["worse in both", "cheaper", "better", "later", "too early", "beside their earlier ones", "done anyway"],
)
def test_only_what_is_worse_than_the_median_in_every_objective_is_hopeless(
    validation: list[float], hopeless: bool
) -> None:
    assert Pruning(startup=3).hopeless(validation, COMPLETED) is hopeless
    assert not Pruning(startup=4).hopeless(validation, COMPLETED), "too few to compare with"
    assert not Pruning(enabled=False, startup=3).hopeless(validation, COMPLETED)


@pytest.mark.parametrize("kind", ["pareto", "reward"])
def test_a_hopeless_trial_is_stopped_and_counts(storage: str, kind: str) -> None:
    ended = []

    def worse(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        bad = folder.name == "trial-0003"
        report(0.5, 0.1 if bad else 0.9, 2e6 if bad else 1e6, 0.9 if bad else 0.5)
        ended.append(folder.name)
        return TrialOutcome(0.9, 1e6, 0.5, folder)

    study = join(storage, kind=kind)
    worker(study, storage, 5, worse, pruning=Pruning(startup=3)).work("")
    assert states(study) == ["COMPLETE"] * 3 + ["PRUNED", "COMPLETE"]
    assert "trial-0003" not in ended


SLOW_WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_sweep_workers as sweep
storage, marker = sys.argv[1], Path(sys.argv[2])
def does(values, folder, report):
    marker.touch()
    time.sleep(float(sys.argv[3]))
    return sweep.objective(values, folder, report)
sweep.worker(sweep.join(storage, sys.argv[4]), storage, 6, does).work("")
"""


def two_workers_one_killed(storage: str, tmp_path: Path) -> None:
    """The killed worker's trial, and only that one, is run again with the same values by the other."""
    name = uuid.uuid4().hex
    code = SLOW_WORKER.format(tests=str(Path(__file__).parent))

    def start(marker: str, seconds: float) -> subprocess.Popen[bytes]:
        arguments = [storage, str(tmp_path / marker), str(seconds), name]
        return subprocess.Popen([sys.executable, "-c", code, *arguments])

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert condition()

    doomed = start("doomed", 1000)
    wait_for((tmp_path / "doomed").exists)
    steady = start("steady", 0.2)
    try:
        wait_for((tmp_path / "steady").exists)
        doomed.kill()
        doomed.wait()
        assert steady.wait(timeout=120) == 0
    finally:
        steady.kill()
        doomed.kill()
    trials = load_study(name, storage).get_trials()
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 6
    failed = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    assert [trial.state for trial in failed] == [TrialState.FAIL]
    # The killed worker had asked for its values, and stored them, before it was killed.
    with_callback = optuna.storages.RetryHeartbeatStaleTrialCallback
    retried = [trial for trial in trials if with_callback.retried_trial_number(trial) == failed[0].number]
    assert [trial.params for trial in retried] == [failed[0].params]
    assert all(trial.user_attrs[OUTCOME]["host"] for trial in trials if trial.state == TrialState.COMPLETE)


@pytest.fixture
def postgres() -> str:
    """The URL of a server to use, which the person who asks for these tests gives."""
    url = os.environ.get("LCNET_RL_POSTGRES")
    if not url:
        pytest.fail("give a server's URL in LCNET_RL_POSTGRES; .ci/postgres start makes one and prints it")
    return url


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_killed_worker_loses_only_its_trial_which_is_run_again(storage: str, tmp_path: Path) -> None:
    two_workers_one_killed(storage, tmp_path)


@pytest.mark.postgres
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_killed_worker_loses_only_its_trial_on_postgresql_too(postgres: str, tmp_path: Path) -> None:
    two_workers_one_killed(postgres, tmp_path)


@pytest.mark.postgres
def test_a_study_on_postgresql_can_be_continued_and_read(postgres: str) -> None:
    name = uuid.uuid4().hex
    worker(join(postgres, name), postgres, 3).work("")
    worker(join(postgres, name), postgres, 5).work("")
    assert states(load_study(name, postgres)) == ["COMPLETE"] * 5


def test_trials_of_two_databases_get_folders_of_their_own_though_neither_has_a_run_yet(storage: str) -> None:
    folders: list[Path] = []

    def second(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        folders.append(folder)
        return objective(values, folder, report)

    def first(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
        other = f"{storage}.other"
        worker(join(other), other, 1, second).work("")
        return second(values, folder, report)

    worker(join(storage), storage, 1, first).work("")
    assert folders == [Path("trials/trial-0000-2"), Path("trials/trial-0000")]
    assert all(folder.is_dir() for folder in folders)
