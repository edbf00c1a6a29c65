"""Which code and which machine a result is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lcnet_rl import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one file, committed."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "code.py").write_text("one = 1\n")
    who = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "CODE", ("agents",))
    return tmp_path


def test_code_is_a_commit_and_whether_its_files_were_changed(checkout: Path) -> None:
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert provenance.code() == {"commit": head.stdout.strip(), "changed": False}
    (checkout / "notes.txt").write_text("no code")
    assert provenance.code()["changed"] is False
    (checkout / "agents" / "code.py").write_text("one = 2\n")
    assert provenance.code()["changed"] is True


def test_without_git_nothing_is_said(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.code() == {}
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "installed")
    assert provenance.code() == {}
