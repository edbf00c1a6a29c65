"""When reinforce's phases begin, how fast its policy learns in them, and how it meets a target."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_agents_runs import noise, small_model

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig, Schedule

SCHEDULE = Schedule.of(ReinforceConfig(epochs=10, warmup=0.1, polish=0.3, ramp=0.5), steps_per_epoch=100)


def test_the_phases_share_the_steps() -> None:
    assert (SCHEDULE.total, SCHEDULE.policy, SCHEDULE.polish, SCHEDULE.ramp) == (1000, 100, 700, 300)


def test_the_ramp_rises_once_the_policy_learns() -> None:
    assert [SCHEDULE.ramped(step) for step in (0, 99, 249, 399, 699)] == [0, 0, 0.5, 1, 1]


def test_the_policy_settles_between_the_ramp_and_polishing() -> None:
    assert [SCHEDULE.settling(step) for step in (0, 100, 400, 550, 700, 999)] == [1, 1, 1, 0.5, 0, 0]


def test_a_ramp_as_long_as_the_policy_phase_leaves_no_time_to_settle() -> None:
    schedule = Schedule.of(ReinforceConfig(epochs=10, warmup=0.1, polish=0.3, ramp=1.0), steps_per_epoch=100)
    assert [schedule.settling(step) for step in (100, 699, 700)] == [1, 1, 0]


def small_agent(config: ReinforceConfig, run: Path) -> Reinforce:
    return Reinforce(small_model(), config, noise(16, "train"), noise(8, "val"), run, 0, torch.device("cpu"))


@pytest.mark.parametrize(("target", "price"), [(None, 0.0), (0.8, 0.7)])
def test_only_with_a_target_does_the_price_start_as_told(target: float | None, price: float, tmp_path: Path) -> None:
    config = ReinforceConfig(batch_size=16, price=0.7, target=target)
    assert small_agent(config, tmp_path).price == price


def test_reinforce_moves_its_policy_as_fast_as_the_schedule_says(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.5, warmup=0.0, polish=0.2, ramp=0.5)
    agent = small_agent(config, tmp_path)
    for step in (3, 6, 8):
        agent.step = step
        agent.joint_step()
        assert agent.gates.param_groups[0]["lr"] == config.gate_lr * agent.schedule.settling(step)


@pytest.fixture
def aimed(tmp_path: Path) -> Reinforce:
    """An agent past its ramp, at a price of 1, with the target 0.5 and a ramp of 4 steps."""
    config = ReinforceConfig(
        epochs=10, batch_size=16, price=1.0, target=0.5, price_rate=2.0, warmup=0.0, polish=0.2, ramp=0.5
    )
    agent = small_agent(config, tmp_path)
    assert agent.schedule == Schedule(total=10, policy=0, polish=8, ramp=4)
    agent.step = 5
    return agent


def test_overspending_raises_the_price_at_once_and_by_as_much_again_over_a_ramps_length(aimed: Reinforce) -> None:
    prices = []
    for share in (0.7, 0.7, 0.5, 0.4):
        aimed.move_price(share, target=0.5)
        prices.append(aimed.price)
    assert prices == pytest.approx([1.1 + 0.4, 1.2 + 0.4, 1.2, 1.15 - 0.2])


def test_the_price_is_never_negative(aimed: Reinforce) -> None:
    aimed.move_price(0.0, target=0.5)
    assert aimed.price == 0
    for _ in range(9):
        aimed.move_price(0.0, target=0.5)
    assert aimed.settled_price == 0


def test_polishing_starts_at_the_settled_price(aimed: Reinforce) -> None:
    aimed.step = 7
    aimed.move_price(0.7, target=0.5)
    assert aimed.price == aimed.settled_price == pytest.approx(1.1)
    aimed.step = 8
    aimed.joint_step()
    assert aimed.price == pytest.approx(1.1)


def test_while_the_target_ramps_more_may_be_spent(aimed: Reinforce) -> None:
    aimed.step = 1
    aimed.move_price(0.75, target=0.5)
    assert aimed.price == pytest.approx(1.0)


def test_greedy_decisions_are_held_to_the_target_before_late_in_and_after_polishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.8, warmup=0.1, polish=0.5, evals=10)
    agent = small_agent(config, tmp_path)
    steps: list[int] = []
    monkeypatch.setattr(agent, "center_threshold", lambda: steps.append(agent.step))
    agent.train()
    assert steps == [5, 8, 9, 10]
