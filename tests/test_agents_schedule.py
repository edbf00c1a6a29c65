"""When reinforce's phases begin, how fast its policy learns in them, and what compute costs in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import images, lively
from test_agents_runs import noise, small_model

from agents import reinforce
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig, Schedule
from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.evaluate import evaluate, spread_prices
from lcnet_rl.rewards import PriceRange

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


def test_reinforce_moves_its_policy_as_fast_as_the_schedule_says(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.5, warmup=0.0, polish=0.2, ramp=0.5)
    agent = small_agent(config, tmp_path)
    for step in (3, 6, 8):
        agent.step = step
        agent.joint_step()
        assert agent.gates.param_groups[0]["lr"] == config.gate_lr * agent.schedule.settling(step)


def test_polishing_starts_without_the_push_that_answers_overspending(tmp_path: Path) -> None:
    config = ReinforceConfig(
        epochs=10, batch_size=16, price=1.0, target=0.5, price_rate=2.0, warmup=0.0, polish=0.2, ramp=0.5
    )
    agent = small_agent(config, tmp_path)
    assert agent.schedule == Schedule(total=10, policy=0, polish=8, ramp=4)
    agent.step = 6
    agent.joint_step()
    assert agent.pricing.charged.low > agent.pricing.value, "overspending raises the reward's price at once"
    agent.step = 7
    agent.joint_step()
    settled = agent.pricing.value
    assert agent.pricing.charged.low == settled
    agent.step = 8
    agent.joint_step()
    assert agent.pricing.value == settled


def test_images_are_varied_as_the_settings_say(tmp_path: Path) -> None:
    plain = ReinforceConfig(batch_size=16, augmentation=Augmentation(padding=0, flips="none"))
    agent = small_agent(plain, tmp_path)
    batch, _ = agent.batches(0)
    known = {image.numpy().tobytes() for image in agent.train_set.images}
    assert {image.numpy().tobytes() for image in batch} == known


def test_gates_do_not_read_what_overspending_adds_to_the_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, price=1.0, target=0.5, warmup=0.0, control_variate="first-order")
    agent = small_agent(config, tmp_path)
    agent.pricing.push = 0.7
    seen, charged = [], []
    begin, loss, field = agent.model.begin, reinforce.policy_loss, reinforce.mean_field
    monkeypatch.setattr(agent.model, "begin", lambda images, price=None: (seen.append(price), begin(images, price))[1])
    monkeypatch.setattr(reinforce, "policy_loss", lambda *args: (charged.append(args[2]), loss(*args))[1])
    monkeypatch.setattr(reinforce, "mean_field", lambda *args: (charged.append(args[6]), field(*args))[1])
    agent.joint_step()
    assert len(charged) == len(seen) == 2, "a mean-field pass, and rollouts"
    assert all(bool((prices == 1.0).all()) for prices in seen)
    assert all(bool((prices == 1.7).all()) for prices in charged)


def test_without_a_target_the_price_follows_the_ramp(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, price=0.8, warmup=0.2, polish=0.2, ramp=1.0)
    agent = small_agent(config, tmp_path)
    prices = []
    for step in (0, 2, 4, 7, 9):
        agent.step = step
        prices.append(agent.joint_step()["train/price"])
    assert prices == pytest.approx([0, 0.8 / 6, 0.4, 0.8, 0.8])


def test_a_range_shows_every_image_a_price_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, price="0.1..0.9", warmup=0.0, polish=0.2, ramp=0.1)
    agent = small_agent(config, tmp_path)
    seen = []
    begin = agent.model.begin
    monkeypatch.setattr(
        agent.model, "begin", lambda images, price=None: (seen.append(torch.as_tensor(price)), begin(images, price))[1]
    )
    for step in (4, 5, 9):
        agent.step = step
        agent.joint_step()
    assert all(len(prices.unique()) == 16 for prices in seen)
    assert all(0.1 <= float(prices.min()) <= float(prices.max()) <= 0.9 for prices in seen)
    assert not torch.equal(seen[0], seen[1])
    assert float(agent.model.price) == pytest.approx(0.3), "where nobody says, the middle one"


def test_greedy_decisions_are_held_to_the_target_before_late_in_and_after_polishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.8, warmup=0.1, polish=0.5, evals=10)
    agent = small_agent(config, tmp_path)
    steps: list[int] = []
    monkeypatch.setattr(agent, "center_threshold", lambda: steps.append(agent.step))
    agent.train()
    assert steps == [5, 8, 9, 10]


def test_without_a_target_polishing_is_held_to_what_the_policy_spent(tmp_path: Path) -> None:
    prices = PriceRange(0.1, 0.9)
    config = ReinforceConfig(price="0.1..0.9", ramp=0.0)
    labels, classes = torch.arange(200) % 10, tuple("abcdefghij")
    train, val = (Dataset("", split, images(200), labels, classes) for split in ("train", "val"))
    agent = Reinforce(lively(prices=prices), config, train, val, tmp_path, 0, torch.device("cpu"))
    agent.pricing.ramp(1.0)
    seen = spread_prices(prices, len(val))

    def share() -> float:
        return evaluate(agent.model, val, agent.model.greedy(), agent.device, prices=seen).macs_ratio

    agent.center_threshold()
    before, bias = share(), agent.model.l_nets[0].keep.bias.clone()
    assert 0.2 < before < 0.9
    agent.center_threshold()
    assert torch.equal(agent.model.l_nets[0].keep.bias, bias), "nothing has moved"
    for shift in (1.0, -1.0):
        agent.model.shift_logits(shift)
        assert abs(share() - before) > 0.03
        agent.center_threshold()
        assert share() == pytest.approx(before, abs=0.01)
