"""When reinforce's phases begin, and how fast policy and price move in them."""

from __future__ import annotations

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
