"""When reinforce's phases begin, how fast its policy learns in them, and what compute costs in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import images, lively
from test_agents_runs import noise, small_model

from agents import reinforce
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig, Schedule
from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.evaluate import evaluate, spread_prices
from lcnet_rl.rewards import PriceRange
from lcnet_rl.training_setup import TrainingSetup

CPU = torch.device("cpu")
SCHEDULE = Schedule.of(ReinforceConfig(epochs=10, warmup=0.1, polish=0.3, ramp=0.5), steps_per_epoch=100)


def test_the_phases_share_the_steps() -> None:
    assert (SCHEDULE.total, SCHEDULE.policy, SCHEDULE.polish, SCHEDULE.ramp) == (1000, 100, 700, 300)


def test_the_ramp_rises_once_the_policy_learns() -> None:
    assert [SCHEDULE.ramped(step) for step in (0, 99, 249, 399, 699)] == [0, 0, 0.5, 1, 1]


def test_the_policy_settles_between_the_ramp_and_polishing() -> None:
    assert [SCHEDULE.settling(step) for step in (0, 100, 400, 550, 700, 999)] == [1, 1, 1, 0.5, 0, 0]


@pytest.mark.parametrize(("ramp", "integral"), [(0.0, 180), (0.1, 180), (0.5, 300)])
def test_a_targets_price_gathers_overspending_over_the_ramp_but_never_at_once(ramp: float, integral: int) -> None:
    schedule = Schedule.of(ReinforceConfig(epochs=10, warmup=0.1, polish=0.3, ramp=ramp), steps_per_epoch=100)
    assert schedule.integral == integral


def test_without_a_ramp_a_step_that_overspends_hardly_moves_the_price(tmp_path: Path) -> None:
    config = ReinforceConfig(
        epochs=100, batch_size=16, price=1.0, target=0.5, price_rate=2.0, warmup=0.0, polish=0.2, ramp=0.0
    )
    agent = small_agent(config, tmp_path)
    agent.learn_price(0.9)
    assert agent.pricing.value == pytest.approx(1 + 2 * 0.4 / (0.3 * 80))


def test_a_ramp_as_long_as_the_policy_phase_leaves_no_time_to_settle() -> None:
    schedule = Schedule.of(ReinforceConfig(epochs=10, warmup=0.1, polish=0.3, ramp=1.0), steps_per_epoch=100)
    assert [schedule.settling(step) for step in (100, 699, 700)] == [1, 1, 0]


def small_agent(config: ReinforceConfig, run: Path) -> Reinforce:
    return Reinforce(small_model(), config, TrainingSetup(noise(16, "train"), noise(8, "val"), run, 0, CPU))


def test_the_end_is_validated_once_though_validations_outnumber_the_steps(tmp_path: Path) -> None:
    at: list[float] = []
    agent = small_agent(ReinforceConfig(epochs=3, batch_size=16, evals=8), tmp_path)
    agent.train(lambda share, _: at.append(share))
    assert at == [1 / 3, 2 / 3, 1.0]


def test_reinforce_moves_its_policy_as_fast_as_the_schedule_says(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=10, batch_size=16, target=0.5, warmup=0.0, polish=0.2, ramp=0.5)
    agent = small_agent(config, tmp_path)
    for step in (3, 6, 8):
        agent.step = step
        agent.joint_step()
        assert agent.gate_optimizer.param_groups[0]["lr"] == config.gate_lr * agent.schedule.settling(step)


def test_backbone_and_scales_learn_at_a_rate_that_rises_for_a_tenth_of_the_steps_and_then_falls(tmp_path: Path) -> None:
    config = ReinforceConfig(epochs=40, batch_size=16, lr=0.4, probe_lr=0.003)
    agent = small_agent(config, tmp_path)
    for step, factor in ((0, 1 / 4), (3, 1.0), (22, 1 / 2), (31, 1 / 4), (39, 1 / 36)):
        agent.step = step
        scalars = agent.joint_step()
        rates = [group["lr"] for group in agent.finetuner.weight_optimizer.param_groups]
        assert rates == pytest.approx([0.4 * factor] * 3), "matrices, vectors, scales"
        assert scalars["train/learning_rate"] == pytest.approx(0.4 * factor)
        assert [group["lr"] for group in agent.finetuner.probe_optimizer.param_groups] == [0.003]


def test_what_decisions_weigh_decays_and_what_they_add_does_not(tmp_path: Path) -> None:
    agent = small_agent(ReinforceConfig(batch_size=16, gate_weight_decay=0.1, gate_lr=0.01), tmp_path)
    layers = [gate.keep for gate in agent.model.gates()]
    for layer in layers:
        torch.nn.init.ones_(layer.weight)
        layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    biases = [layer.bias.clone() for layer in layers]
    agent.gate_optimizer.step()
    assert all(torch.allclose(layer.weight, torch.tensor(0.99), atol=1e-4) for layer in layers)
    assert all(torch.equal(layer.bias, bias) for layer, bias in zip(layers, biases, strict=True))


def test_polishing_starts_without_the_push_that_answers_overspending(tmp_path: Path) -> None:
    config = ReinforceConfig(
        epochs=10, batch_size=16, price=1.0, target=0.5, price_rate=2.0, warmup=0.0, polish=0.2, ramp=0.5
    )
    agent = small_agent(config, tmp_path)
    assert agent.schedule == Schedule(total=10, policy=0, polish=8, ramp=4, integral=4)
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
    known = {image.numpy().tobytes() for image in agent.setup.train.images}
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
    monkeypatch.setattr(agent, "hold_to_target", lambda each: steps.append(agent.step))
    agent.train()
    assert steps == [5, 8, 9, 10]


def test_without_a_target_polishing_is_held_to_what_the_policy_spent(tmp_path: Path) -> None:
    prices = PriceRange(0.1, 0.9)
    config = ReinforceConfig(price="0.1..0.9", ramp=0.0)
    labels, classes = torch.arange(200) % 10, tuple("abcdefghij")
    train, val = (Dataset("", split, images(200), labels, classes) for split in ("train", "val"))
    agent = Reinforce(lively(prices=prices), config, TrainingSetup(train, val, tmp_path, 0, CPU))
    agent.pricing.ramp(1.0)
    seen = spread_prices(prices, len(val))

    def share() -> float:
        return evaluate(agent.model, val, agent.model.greedy(), CPU, prices=seen).macs_ratio

    agent.hold_to_target()
    before, bias = share(), agent.model.l_nets[0].keep.bias.clone()
    assert 0.2 < before < 0.9
    agent.hold_to_target()
    assert torch.equal(agent.model.l_nets[0].keep.bias, bias), "nothing has moved"
    for shift in (1.0, -1.0):
        agent.model.shift_logits(shift)
        assert abs(share() - before) > 0.03
        agent.hold_to_target()
        assert share() == pytest.approx(before, abs=0.01)


def test_what_keeps_everything_is_shifted_no_further_than_to_keep_everything(tmp_path: Path) -> None:
    labels, classes = torch.arange(200) % 10, tuple("abcdefghij")
    train, val = (Dataset("", split, images(200), labels, classes) for split in ("train", "val"))
    agent = Reinforce(lively(), ReinforceConfig(target=None), TrainingSetup(train, val, tmp_path, 0, CPU))
    agent.model.shift_logits(100)
    agent.hold_to_target()
    assert agent.held == pytest.approx(agent.model.costs.ceiling / agent.model.costs.dense)
    agent.model.shift_logits(-99.5)
    agent.hold_to_target()
    share = evaluate(agent.model, val, agent.model.greedy(), CPU).macs_ratio
    assert share == pytest.approx(agent.held, abs=0.01)
    assert evaluate(agent.model, val, agent.model.greedy(0.9), CPU).macs_ratio < agent.held


def test_a_target_below_what_the_first_of_two_networks_spends_is_told_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lively(second="resnet8")
    for gate in model.l_nets[:-1]:
        gate.keep.bias.data += 100
    data = [Dataset("", split, images(16), torch.arange(16) % 10, tuple("abcdefghij")) for split in ("train", "val")]
    config = ReinforceConfig(epochs=4, batch_size=16, target=0.2, warmup=0.0, polish=0.5, gate_lr=1e-9)
    Reinforce(model, config, TrainingSetup(*data, tmp_path, 0, CPU)).train()
    said = " ".join(capsys.readouterr().out.split())
    assert "without the last network it still costs" in said
    assert "decisions stay as they are" in said


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 12))
def test_the_policy_has_a_step_however_few_there_are(warmup: float, polish: float, steps: int) -> None:
    assume(warmup + polish < 1)
    schedule = Schedule.of(ReinforceConfig(epochs=1, warmup=warmup, polish=polish), steps_per_epoch=steps)
    assert 0 <= schedule.policy < schedule.polish <= schedule.total == steps
