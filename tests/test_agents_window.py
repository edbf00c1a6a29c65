"""What a row of the training log says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_agents_runs import joint

from agents.window import Window
from lcnet_rl.runs import PROGRESS


def test_means_are_of_the_steps_since_they_were_last_asked_for() -> None:
    window = Window()
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": value})
    resumed = Window()
    resumed.restore(window.state())
    for one in (window, resumed):
        assert one.means() == {"loss": 3.0}
        one.add({"loss": 7.0})
        assert one.means() == {"loss": 7.0}


def test_a_row_of_the_log_is_the_mean_of_the_steps_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, steps = joint(tmp_path, epochs=0.625, log_every=2, evals=1, target=None), list[dict[str, float]]()
    one_step = agent.joint_step
    monkeypatch.setattr(agent, "joint_step", lambda: (steps.append(one_step()), steps[-1])[1])
    agent.train()
    rows = [row for row in csv.DictReader((tmp_path / PROGRESS).read_text().splitlines()) if row["rollout/macs_ratio"]]
    groups = [steps[:2], steps[2:4], steps[4:]]  # a run's last row is of what is left
    assert len(steps) == 5
    for row, group in zip(rows, groups, strict=True):
        for name in group[0]:
            assert float(row[name]) == pytest.approx(sum(step[name] for step in group) / len(group), rel=1e-5), name
