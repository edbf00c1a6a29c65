"""What the demo leaves in the user's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_agents_runs import noise

from lcnet_rl.commands import demo, main
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.runs import CONFIG, START


@pytest.mark.parametrize("option", ["--runs", "--run"])
def test_a_demo_that_is_stopped_while_pretraining_leaves_what_resuming_needs(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted("lcnet-rl pretrain --resume", 1, 2)

    monkeypatch.setattr(demo, "load_training", lambda _: (noise(8, "train"), noise(8, "val")))
    monkeypatch.setattr(demo.DenseTraining, "train", stop)
    monkeypatch.chdir(tmp_path)
    given = {"--runs": tmp_path / "mine", "--run": tmp_path / "mine" / "agent"}[option]
    assert main(["demo", option, str(given)]) != 0
    (folder,) = (tmp_path / "mine").iterdir()
    assert {CONFIG, START} <= {path.name for path in folder.iterdir()}
