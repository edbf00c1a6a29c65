"""What a command line's mistake is compared with, and what of a box is told."""

from __future__ import annotations

import importlib
import re
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from lcnet_rl.commands import COMMANDS, main
from lcnet_rl.commands.mistakes import first_paragraph, option_types, options_in
from lcnet_rl.commands.parsing import parse_options
from lcnet_rl.commands.train_settings import ALGOS

OTHERS = [importlib.import_module(f"lcnet_rl.commands.{name}") for name in COMMANDS if name != "train"]
SETTINGS = [*ALGOS.values(), *(typing.get_type_hints(command.run)["config"] for command in OTHERS)]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_the_options_are_those_that_the_help_lists(
    settings: type[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse_options(settings, ["--help"], "prog")
    listed = re.findall(r"^[│ ] (?:-h, )?(--.+)", capsys.readouterr().out, re.MULTILINE)
    names = {name for line in listed for name in re.findall(r"--\w[\w.-]*", line.partition("  ")[0])}
    assert {"--help", *option_types(settings)} == names


def test_the_word_after_an_option_is_its_value_unless_it_is_an_option_too() -> None:
    words = ["run", "--data_root=x=y", "--split", "--price", "-1", "--out", "--", "--which", "best"]
    assert options_in(words) == [("--data-root", "x=y"), ("--split", None), ("--price", "-1"), ("--out", None)]


@pytest.mark.parametrize(
    "box",
    [
        "╭─ Title ─╮\n│ what is │\n│ --wrong │\n│ ─────── │\n│ Help    │\n╰─────────╯",
        "\x1b[31m╭─ Title ─╮\x1b[0m\n│ what is │\n│ \x1b[1m--wrong\x1b[0m │\n│         │\n│ Help    │\n╰─────────╯",
        " Title \n ------- \n  what is \n  --wrong \n  ------- \n  Help \n",
    ],
    ids=["boxed", "coloured", "plain"],
)
def test_of_a_box_the_first_paragraph_is_told(box: str) -> None:
    assert first_paragraph(box) == "what is --wrong"


def test_what_a_module_of_the_users_own_says_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "talks.py").write_text("import sys\nprint('old API', file=sys.stderr)\n")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--reward", "talks:lost"]) == 2
    sys.modules.pop("talks", None)
    assert capsys.readouterr().err.startswith("old API\nerror: ")
