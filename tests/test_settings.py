"""Settings from plain values: what is wrong is named, with what would be right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from lcnet_rl import settings
from lcnet_rl.commands.train_settings import TrainReinforce
from lcnet_rl.errors import UserError
from lcnet_rl.settings import check_choices, from_dict, parse_yaml, preset_names, read_preset


@dataclass(frozen=True)
class Agent:
    price: float = 0.3
    rollouts: int = 2
    baseline: Literal["leave-one-out", "batch-mean"] = "leave-one-out"

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(f"price must be >= 0, got {self.price}")


@dataclass(frozen=True)
class Config:
    seed: int = 0
    root: Path | None = None
    width: int | None = None
    agent: Agent = field(default_factory=Agent)
    weight: float | str = 1.0
    lr: float | None = None


def refusal(values: dict[Any, Any]) -> str:
    with pytest.raises(UserError) as caught:
        from_dict(Config, values, "preset x")
    message = str(caught.value)
    assert message.startswith("preset x: ")
    assert "\n" not in message
    return message


def test_what_is_absent_keeps_its_default() -> None:
    assert from_dict(Config, {}, "x") == Config()
    assert from_dict(Config, {"agent": {"rollouts": 4}}, "x") == Config(agent=Agent(rollouts=4))


def test_settings_come_back_from_their_plain_values() -> None:
    config = Config(7, Path("data"), 16, Agent(0.5, 3, "batch-mean"))
    assert from_dict(Config, asdict(config) | {"root": "data"}, "x") == config


def test_a_number_that_yaml_reads_as_text_is_still_a_number() -> None:
    values = parse_yaml("agent: {price: 5e-4}", "x")
    assert values == {"agent": {"price": "5e-4"}}  # YAML 1.1 wants a dot
    assert from_dict(Config, values, "x").agent.price == 5e-4


@pytest.mark.parametrize("wrong", ["three", [1], {"low": 1}, ""])
def test_what_is_no_number_is_refused_by_the_settings_name(wrong: Any) -> None:
    assert refusal({"agent": {"price": wrong}}) == f"preset x: price is a number, got {wrong!r}"
    assert refusal({"lr": wrong}) == f"preset x: lr is a number, got {wrong!r}"
    assert from_dict(Config, {"weight": "many", "lr": None}, "x") == Config(weight="many")


def test_a_whole_number_will_do_for_a_float() -> None:
    price = from_dict(Config, {"agent": {"price": 1}}, "x").agent.price
    assert price == 1
    assert isinstance(price, float)


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    assert "unknown setting 'sed'; did you mean seed?" in refusal({"sed": 1})


def test_an_unknown_nested_setting_is_refused_with_the_nearest_name_of_its_own_table() -> None:
    message = refusal({"agent": {"prise": 1}})
    assert "'prise'" in message or "'agent.prise'" in message
    assert "did you mean" in message
    assert "price" in message


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"seed": "three"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"agent": 3}, "agent"),
        ({"agent": {"rollouts": None}}, "rollouts"),
        ({"agent": {"baseline": "mean"}}, "unknown baseline 'mean'; did you mean batch-mean?"),
        ({"agent": {"baseline": 3}}, "unknown baseline '3'; known: batch-mean, leave-one-out"),
        ({"agent": {"baseline": False}}, "unknown baseline 'False'; known: batch-mean, leave-one-out"),
        ({"agent": {"price": True}}, "price cannot be True"),
        ({"seed": False}, "seed cannot be False"),
        ({"width": True}, "width cannot be True"),
        ({"agent": {"price": "cheap"}}, "cheap"),
        ({"agent": {"price": None}}, "None"),
        ({"agent": {"price": -1}}, "price must be >= 0, got -1"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)


def test_a_setting_whose_name_is_a_number_is_refused() -> None:
    assert "3" in refusal({3: 4})


def test_a_preset_may_be_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 5\nagent:\n  price: 0.1\n")
    assert from_dict(Config, read_preset(str(path)), "x") == Config(seed=5, agent=Agent(price=0.1))


def test_a_missing_preset_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preset file at"):
        read_preset(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [", "just words"])
def test_yaml_that_is_no_table_of_settings_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml") as caught:
        read_preset(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["seed: 1\nagent: {price: 1}\nagent: {rollouts: 3}\n", "agent:\n  price: 1\n  price: 2\n"]
)
def test_a_name_that_is_twice_in_one_table_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"mine is not valid YAML: (agent|price) is there twice .*line 3"):
        parse_yaml(text, "mine")


def test_tables_of_one_file_may_share_their_names_and_values() -> None:
    text = "one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\n"
    assert parse_yaml(text, "mine") == {"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}}


def test_a_choice_misspelled_in_python_is_told_the_right_ones() -> None:
    check_choices(Agent())
    check_choices(Config())
    with pytest.raises(UserError, match=r"^unknown baseline 'batch_mean'; did you mean batch-mean"):
        check_choices(Agent(baseline=cast(Any, "batch_mean")))


def test_a_switch_is_a_switch() -> None:
    assert from_dict(TrainReinforce, {"confidence": False}, "x").confidence is False


def test_a_preset_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("seed: 5  # für mich\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"mine\.yaml is no UTF-8 text"):
        read_preset(str(path))


def test_presets_are_the_yaml_files_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10-reinforce.yaml").write_text("seed: 9\n")
    (tmp_path / "notes.txt").write_text("no preset")
    monkeypatch.setattr(settings, "_folder", lambda: tmp_path)
    assert preset_names() == ["cifar10-reinforce"]
    assert read_preset("cifar10-reinforce") == {"seed": 9}
    with pytest.raises(UserError, match="unknown preset 'cifar-reinforce'; did you mean cifar10-reinforce"):
        read_preset("cifar-reinforce")


def test_every_preset_that_comes_with_the_package_is_a_table_of_settings() -> None:
    for name in preset_names():
        assert read_preset(name), name
