"""The commands in the documents are commands: each is parsed as if it were typed, and not run."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lcnet_rl.commands import COMMANDS, main, sweep
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.provenance import ROOT
from lcnet_rl.rewards import create_reward

DOCUMENTS = ("README.md", "EXPERIMENTS.md", "CONTRIBUTING.md", "Makefile")
START = r"(?:\$\(BIN\)/)?lcnet-rl |torchrun .*-m -- lcnet_rl "
BLOCK = re.compile(rf"^(?: {{4,}}|\t)(?:{START})((?:.*\\\n)*.*)", re.M)
"""A command in lines that are indented, all but the last with a backslash at its end."""
INLINE = re.compile(r"`lcnet-rl (\w+\s+--[^`]*)`")
"""A command with options within a sentence, or ``lcnet-rl bench --preset standard``."""


def commands() -> Iterator[tuple[str, ...]]:
    """What follows ``lcnet-rl`` in every command of the documents, a shell's variables being 1."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for arguments in (*BLOCK.findall(text), *INLINE.findall(text)):
            yield tuple(shlex.split(re.sub(r"\$\w+", "1", arguments.replace("\\\n", " ")), comments=True))


def files() -> dict[str, str]:
    """What the documents have a shell write into files, by the files' names."""
    texts = ((ROOT / document).read_text() for document in DOCUMENTS)
    found = (re.findall(r"^ +cat > (\S+) <<'END'\n(.*?\n) +END$", text, re.M | re.S) for text in texts)
    return {name: dedent(content) for of_document in found for name, content in of_document}


def parsed(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> Any:
    """The settings with which the command would run."""
    command, settings = importlib.import_module(f"lcnet_rl.commands.{arguments[0]}"), []

    @functools.wraps(command.run)
    def run(config: Any) -> None:
        settings.append(config)

    monkeypatch.setattr(command, "run", run)
    assert main(arguments) == 0
    (config,) = settings
    return config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds the files that the documents' reader has by then, and the committed runs."""
    for name, content in files().items():
        (tmp_path / name).write_text(content)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "reference").symlink_to(REFERENCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # create_reward adds the working folder
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    return tmp_path


@pytest.mark.parametrize("arguments", dict.fromkeys(commands()), ids=shlex.join)
def test_a_documented_command_is_understood(
    arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parsed(monkeypatch, arguments)
    if arguments[0] == "train":
        create_reward(config.agent.reward)
    committed = re.findall(r"runs/reference/[\w-]+", " ".join(arguments))
    assert all((ROOT / run).is_dir() for run in committed)


def test_no_command_in_the_documents_is_overlooked() -> None:
    found, texts = list(commands()), [(ROOT / document).read_text() for document in DOCUMENTS]
    lines = [line for text in texts for line in re.findall(r"^(?: {4}|\t)[^#\n]*lcnet[-_]rl [a-z].*", text, re.M)]
    assert len(found) == len(lines) + sum(len(INLINE.findall(text)) for text in texts)
    assert {arguments[0] for arguments in found} == COMMANDS.keys()
    assert ("train", "--preset", "smoke", "--seed", "1", "--run", "runs/linear-1") in found, "in a loop of the shell"
    assert sum(("--second" in arguments) for arguments in found) == 5, "over several lines"
    assert ("train", "--preset", "smoke", "--run", "runs/two") in found, "by torchrun, and a comment behind it"


def test_the_documented_study_can_be_searched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed(monkeypatch, ("sweep", "--preset", "study.yaml", "--workers", "2"))
    assert (config.study, config.trials, config.workers, len(config.space)) == ("forty", 40, 2, 3)
    sweep.prepare(replace(config, runs=folder))


def test_the_documented_reward_is_one(folder: Path) -> None:
    assert create_reward("my_rewards:cubic:penalty=0.2") != create_reward("my_rewards:cubic")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: lcnet-rl {command} " in shown
    assert "--help" in shown
    rows = re.findall(rf"^\| `lcnet-rl {command}\b.*$", (ROOT / "README.md").read_text(), re.M)
    assert rows, "the README's table has the command"
    assert not {option for row in rows for option in re.findall(r"--[a-z-]+", row) if option not in shown}
