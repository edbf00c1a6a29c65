"""When reinforce's phases begin, and how fast policy and price move in them."""

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


def test_policy_and_price_settle_between_the_ramp_and_polishing() -> None:
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


def test_reinforce_moves_policy_and_price_as_fast_as_the_schedule_says(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.5, warmup=0.0, polish=0.2, ramp=0.5)
    agent = small_agent(config, tmp_path)
    assert agent.schedule == Schedule(total=10, policy=0, polish=8, ramp=4)
    moved = {}
    for step in (3, 6, 8):
        agent.step = step
        price = agent.price
        share = agent.joint_step()["rollout/macs_ratio"]
        moved[step] = (agent.price - price) / (share - 0.5)
        assert agent.gates.param_groups[0]["lr"] == config.gate_lr * agent.schedule.settling(step)
    rate = config.price_rate / agent.schedule.ramp
    assert moved == pytest.approx({3: rate, 6: 0.5 * rate, 8: 0})
