"""Run folders: what is in them, and a metrics log that survives a resume."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path, PureWindowsPath

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lcnet_rl.errors import UserError
from lcnet_rl.files import new_folder, plain, write_json
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.provenance import code, cpu_name
from lcnet_rl.runs import CHECKPOINT, CONFIG, PROGRESS, RUN, create_run, of_agent, read_config

STEP = "time/total_timesteps"


@dataclass(frozen=True)
class Inner:
    price: float = 5e-4
    root: Path | None = Path("data")


@dataclass(frozen=True)
class Outer:
    dataset: str = "shapes"
    seed: int = 3
    agent: Inner = field(default_factory=Inner)
    sizes: tuple[int, ...] = (1, 2)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / PROGRESS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")
    runs = [create_run(tmp_path, "LayerSkip", "ppo", 0, Outer()) for _ in range(3)]
    assert [run.name for run in runs] == [f"LayerSkip__ppo__0__20260101-000000{tail}" for tail in ("", "-2", "-3")]


def test_a_run_folder_is_named_by_environment_algorithm_seed_and_time(tmp_path: Path) -> None:
    run = create_run(tmp_path, "LayerSkip", "reinforce", 3, Outer())
    assert run.parent == tmp_path
    assert re.fullmatch(r"LayerSkip__reinforce__3__\d{8}-\d{6}", run.name)


@pytest.mark.parametrize(
    "of", ["my_networks:short-cifar10", "resnet20-folder:C:\\x", 'a?b*c"d|e<f>', "resnet20-folder:/x"]
)
def test_a_run_folder_can_be_called_as_it_is_on_every_system(tmp_path: Path, of: str) -> None:
    run = create_run(tmp_path, of, "pretrain", 3, Outer())
    assert run.parent == tmp_path
    assert PureWindowsPath(run.name).name == run.name
    assert not set(run.name) & set('<>:"/\\|?*')


def test_a_run_folder_tells_the_settings_the_command_and_the_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/lcnet-rl", "train", "--init", "my weights"])
    run = create_run(tmp_path, "LayerSkip", "ppo", 0, Outer())
    inner = {"price": 5e-4, "root": "data"}
    assert read_config(run) == {"dataset": "shapes", "seed": 3, "agent": inner, "sizes": [1, 2]}
    about = json.loads((run / RUN).read_text())
    assert about["command"] == "lcnet-rl train --init 'my weights'"
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "gymnasium", "stable-baselines3", "torch-pruning", "optuna"} <= set(about["versions"])
    assert about["started"]
    assert about["machine"]["threads"] == torch.get_num_threads()
    assert about["machine"]["cpu"] == cpu_name()
    assert about.get("code", {}) == code()


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch-pruning":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("lcnet_rl.runs.version", version)
    versions = json.loads((create_run(tmp_path, "LayerSkip", "ppo", 0, Outer()) / RUN).read_text())["versions"]
    assert "torch-pruning" not in versions
    assert versions["torch"] == versions["optuna"] == "1"


def test_settings_keep_their_order(tmp_path: Path) -> None:
    run = create_run(tmp_path, "LayerSkip", "ppo", 0, Outer(), tmp_path / "here")
    assert run == tmp_path / "here"
    assert list(yaml.safe_load((run / CONFIG).read_text())) == ["dataset", "seed", "agent", "sizes"]


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = create_run(tmp_path, "LayerSkip", "ppo", 0, Outer(seed=1), tmp_path / "here")
    (run / CHECKPOINT).touch()
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        create_run(tmp_path, "LayerSkip", "ppo", 0, Outer(seed=2), run)
    assert read_config(run)["seed"] == 1


def test_an_empty_folder_that_was_made_for_a_run_is_used(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "here")
    assert create_run(tmp_path, "LayerSkip", "ppo", 0, Outer(), folder) == folder
    assert read_config(folder)["seed"] == 3


def test_folders_of_one_name_get_numbers(tmp_path: Path) -> None:
    assert [new_folder(tmp_path / "runs" / "x").name for _ in range(3)] == ["x", "x-2", "x-3"]


def test_where_no_folder_can_be_made_none_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "unmounted").symlink_to(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(FileExistsError):
        new_folder(tmp_path / "unmounted" / "x")


def test_a_folder_that_holds_something_else_is_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    create_run(tmp_path, "LayerSkip", "ppo", 0, Outer(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no run folder: it holds no {CONFIG}"):
        read_config(tmp_path)
    with pytest.raises(UserError, match="no run folder"):
        read_config(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "no settings"),
        ("", "no se"),
        ("seed: 0\n", "cut short"),
        ("dataset: shapes\nagent:\n", "cut short"),
    ],
)
def test_a_broken_configuration_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_configuration_without_a_setting_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    assert of_agent(tmp_path, {"agent": {"price": 0.3}}, "price") == 0.3
    with pytest.raises(UserError, match=f"{tmp_path / CONFIG} is cut short, or of another version: it lacks agent.rew"):
        of_agent(tmp_path, {"agent": {"price": 0.3}}, "reward")


def test_dataclasses_become_plain_values(tmp_path: Path) -> None:
    content = {"config": Outer(), "path": tmp_path, "none": None}
    write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == plain(content)
    assert plain({1: (Path("a"),)}) == {"1": ["a"]}


def test_a_logged_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(10, {"eval/accuracy": 0.5})
    assert rows(tmp_path) == [{STEP: "10", "eval/accuracy": "0.5"}]
    log.close()


def test_columns_may_appear_at_any_time(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"a": 1})
    log.write(2, {"b": 2.5})
    log.write(3, {"b": 3, "a": 1e-7})
    log.close()
    assert rows(tmp_path) == [
        {STEP: "1", "a": "1", "b": ""},
        {STEP: "2", "a": "", "b": "2.5"},
        {STEP: "3", "a": "1e-07", "b": "3"},
    ]


def test_a_resumed_log_drops_the_rows_past_the_checkpoint_and_goes_on(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.write(step, {"a": step})
    log.close()
    log = MetricsLog(tmp_path, resume_at=20)
    assert [row[STEP] for row in rows(tmp_path)] == ["10", "20"]
    log.write(30, {"a": 31})
    log.close()
    assert [(row[STEP], row["a"]) for row in rows(tmp_path)] == [("10", "10"), ("20", "20"), ("30", "31")]


def test_a_row_that_a_resumed_run_logs_again_is_there_once(tmp_path: Path) -> None:
    for resume_at in (None, 20):
        log = MetricsLog(tmp_path, resume_at)
        if resume_at is None:
            log.write(20, {"a": 1 / 3})
        log.write(20, {"b": 2 / 3})
        log.close()
    assert rows(tmp_path) == [{STEP: "20", "a": "0.333333", "b": ""}, {STEP: "20", "a": "", "b": "0.666667"}]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert len(events.Scalars("b")) == 1


def test_a_fresh_log_starts_empty_and_a_resumed_one_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_text(f"{STEP},a\n5,1\n")
    MetricsLog(tmp_path).close()
    assert rows(tmp_path) == []
    MetricsLog(tmp_path / "new", resume_at=3).close()
    assert rows(tmp_path / "new") == []


def test_values_that_are_no_numbers_are_in_the_table_but_not_in_tensorboard(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"good": 0.25, "bad": float("nan"), "worse": float("inf")})
    log.close()
    assert rows(tmp_path) == [{STEP: "1", "good": "0.25", "bad": "nan", "worse": "inf"}]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["good"]
    assert [(event.step, event.value) for event in events.Scalars("good")] == [(1, 0.25)]
