"""Which runs are of one setting: groups of seeds, by all settings but the seed and by the networks they start from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml
from evaluated import make_run, summary

from lcnet_rl.commands.run_defaults import with_defaults
from lcnet_rl.comparison.records import Record, differing, grouped, of_run, one_data_set
from lcnet_rl.errors import UserError
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.sweep.study import OUTCOME, of_study


def test_a_run_from_before_a_setting_existed_is_grouped_with_those_that_have_its_default() -> None:
    old = {"algo": "reinforce", "seed": 0, "agent.price": 1.0}
    new = {"algo": "reinforce", "seed": 1, "agent.price": 1.0, "confidence": True}
    records = [Record("x", settings, summary(0.9, 0.5)) for settings in (old, new)]
    assert len(grouped(records, with_defaults)) == 1
    other = Record("x", {**new, "confidence": False}, summary(0.9, 0.5))
    assert differing(grouped([*records, other], with_defaults)) == {"confidence": [True, False]}
    foreign = {"algo": "theirs"}
    assert with_defaults(foreign) == foreign


def test_runs_that_differ_in_their_seed_only_are_one_group() -> None:
    def record(price: float, seed: int, accuracy: float) -> Record:
        return Record("x", {"seed": seed, "agent.price": price}, summary(accuracy, 0.5))

    groups = grouped([record(1, 0, 0.8), record(2, 0, 0.7), record(1, 1, 0.9), record(1, 1, 0.6)])
    assert [group.accuracies for group in groups] == [[0.8, 0.6], [0.7]], "the later run of the same seed counts"
    assert groups[0].point == (5e6, pytest.approx(0.7))
    assert groups[0].spread == (0, pytest.approx(0.2 / math.sqrt(2)))
    assert differing(groups) == {"agent.price": [1, 2]}


def test_a_width_that_is_given_is_no_other_setting_than_the_same_one_found(tmp_path: Path) -> None:
    runs = [Path(make_run(tmp_path / f"agent-{seed}", 1, seed, 0.9, 0.5)) for seed in (0, 1)]
    for run, width in zip(runs, (None, summary(0.9, 0.5)["width"]), strict=True):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(settings | {"width": width}))
    assert len(grouped(record for run in runs for record in of_run(run, "test"))) == 1


def test_a_trial_is_of_the_same_setting_as_a_run_whose_width_was_given(tmp_path: Path) -> None:
    (run,) = of_run(folder := Path(make_run(tmp_path / "agent", 1, 0, 0.9, 0.5)), "test")
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"seed": 1, "width": None}
    outcome = {OUTCOME: {"settings": settings, "summary": summary(0.8, 0.5)}}
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.0, user_attrs=outcome))
    (group,) = grouped([run, *of_study(study)])
    assert group.accuracies == [0.9, 0.8]


def test_image_folders_with_the_same_images_are_one_data_set_wherever_they_are() -> None:
    def record(dataset: str, **fingerprint: str) -> Record:
        return Record(dataset, {}, summary(0.9, 0.5) | {"dataset": dataset} | fingerprint)

    here, moved = record("folder:a", fingerprint="1"), record("folder:/b", fingerprint="1")
    assert one_data_set([here, moved, record("folder:a")]) == "folder:a"
    with pytest.raises(UserError, match="folder:a had other images when folder:a was evaluated than for folder:a"):
        one_data_set([here, record("folder:a", fingerprint="2")])
    for other in (record("folder:a/b", fingerprint="2"), record("folder:c"), record("shapes")):
        with pytest.raises(UserError, match=f"accuracies on folder:a .* and {other.name} .* cannot be compared"):
            one_data_set([here, other])
    with pytest.raises(UserError, match="cannot be compared"):
        one_data_set([record("folder:c"), record("folder:d")])


def test_networks_to_start_from_that_differ_in_their_seed_only_are_no_other_setting(tmp_path: Path) -> None:
    for name, seed, epochs in (("a", 0, 4), ("b", 1, 4), ("c", 2, 9)):
        (tmp_path / name).mkdir()
        settings = {"dataset": "x", "seed": seed, "init": None, "run": name, "recipe": {"epochs": epochs}}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(settings))
        (tmp_path / name / "backbone.safetensors").touch()
    inits = [str(tmp_path / "a"), str(tmp_path / "b" / "backbone.safetensors"), str(tmp_path / "c"), "scratch"]
    records = [Record("x", {"seed": seed, "init": init}, summary(0.9, 0.5)) for seed, init in enumerate(inits)]
    assert [len(group.records) for group in grouped(records)] == [2, 1, 1]
    alike = [replace(record, settings={**record.settings, "seed": 0}) for record in records]
    assert [len(group.records) for group in grouped(alike)] == [2, 1, 1], "agents of one seed on networks of two"
    newer = tmp_path / "b" / "config.yaml"
    newer.write_text(yaml.safe_dump(yaml.safe_load(newer.read_text()) | {"prune_multiple": 1}))
    assert [len(group.records) for group in grouped(records)] == [1, 1, 1, 1]
    assert [len(group.records) for group in grouped(records, with_defaults)] == [2, 1, 1]


def test_networks_to_start_from_are_found_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        dense = tmp_path / "project" / "runs" / f"dense-{seed}"
        dense.mkdir(parents=True)
        settings = {"dataset": "x", "seed": seed, "init": None, "recipe": {"epochs": 4}}
        (dense / "config.yaml").write_text(yaml.safe_dump(settings))
    runs = [make_run(tmp_path / "project" / "runs" / f"agent-{seed}", 1, seed, 0.9, 0.5) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        config = Path(run) / "config.yaml"
        started = {"init": f"runs/dense-{seed}", "backbone": "resnet8", "width": 4}
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | started))
    monkeypatch.chdir(tmp_path)
    (group,) = grouped(record for run in runs for record in of_run(Path(run), "test"))
    assert len(group.records) == 2


@pytest.mark.parametrize("option", ["second", "teacher"])
def test_nor_are_networks_behind_them_or_teachers_of_them(tmp_path: Path, option: str) -> None:
    def write(name: str, **settings: object) -> str:
        (tmp_path / name).mkdir()
        common = {"dataset": "x", "init": None, "run": name}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({**common, **settings}))
        return str(tmp_path / name)

    taught = [
        write(f"start-{seed}", seed=seed, **{option: write(f"dense-{seed}", seed=seed, recipe={"epochs": epochs})})
        for seed, epochs in ((0, 4), (1, 4), (2, 9))
    ]
    for settings in ([{option: run} for run in taught], [{"init": run} for run in taught]):
        records = [Record("x", {"seed": seed, **one}, summary(0.9, 0.5)) for seed, one in enumerate(settings)]
        assert [len(group.records) for group in grouped(records)] == [2, 1], settings


def test_a_file_that_a_run_folder_does_not_stand_for_is_another_network_to_start_from(tmp_path: Path) -> None:
    for name, settings in (("dense", {"recipe": {"epochs": 4}}), ("agent", {"agent": {"price": 1.0}})):
        (tmp_path / name).mkdir()
        common = {"dataset": "x", "seed": 0, "init": None}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({**common, **settings}))
        for file in ("start", "model" if name == "agent" else "backbone"):
            (tmp_path / name / f"{file}.safetensors").touch()
    inits = ["dense", "dense/backbone.safetensors", "dense/start.safetensors"]
    inits += ["agent", "agent/model.safetensors", "agent/start.safetensors"]
    records = [Record(init, {"seed": 0, "init": str(tmp_path / init)}, summary(0.9, 0.5)) for init in inits]
    assert [group.first.name for group in grouped(records)] == [inits[1], inits[2], inits[4], inits[5]]


def test_a_group_is_in_the_order_of_its_seeds_and_called_after_the_first() -> None:
    records = [Record(f"run-{seed}", {"seed": seed}, summary(0.9, 0.5)) for seed in (2, 0, 1)]
    (group,) = grouped(records)
    assert [record.name for record in group.records] == ["run-0", "run-1", "run-2"]


def test_a_network_by_two_names_is_no_difference() -> None:
    both = [
        Record("x", {"dataset": "cifar10", "backbone": "resnet20", "init": init, "agent.price": price}, {})
        for init, price in (("auto", 1), (str(REFERENCE / "resnet20"), 2))
    ]
    assert differing(grouped(both, with_defaults), with_defaults) == {"agent.price": [1, 2]}
    other = replace(both[1], settings={**both[1].settings, "init": "scratch"})
    assert set(differing(grouped([both[0], other], with_defaults), with_defaults)) == {"init", "agent.price"}
