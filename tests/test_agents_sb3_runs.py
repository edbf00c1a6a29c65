"""Runs of stable-baselines3's agents: what a resumed one does, what is logged and paid for, and what is refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from test_agents_runs import logged, setup_in, small_model

from agents import sb3
from agents.sb3 import largest_divisor, train_sb3
from agents.sb3_config import A2CConfig, PPOConfig
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import evaluate
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.runs import CHECKPOINT, MODEL, load_checkpoint
from lcnet_rl.tree import load_tree
from lcnet_rl.weights import load_model


def interrupted_sb3(config: PPOConfig | A2CConfig, run: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_step = sb3.JointFinetuning.finetune_step

    def step(self: sb3.JointFinetuning, *arguments: object, **options: object) -> None:
        if self.step == at:
            signal.raise_signal(signal.SIGINT)
        whole_step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sb3.JointFinetuning, "finetune_step", step)
        with pytest.raises(Interrupted):
            train_sb3(small_model(), config, setup_in(run))


@pytest.mark.parametrize(("kind", "at", "every"), [(PPOConfig, 8, 100), (A2CConfig, 8, 3), (PPOConfig, 2, 1)])
def test_resumed_sb3_equals_an_uninterrupted_run_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, at: int, every: int
) -> None:
    config = kind(
        timesteps=32 * 3 * 8, num_envs=32, episodes=1, batch_size=32, warmup_steps=4, finetune=2, eval_every=every
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    train_sb3(small_model(), config, setup_in(whole))
    interrupted_sb3(config, parts, at, monkeypatch)
    reached = load_checkpoint(parts)
    if at < config.warmup_steps:
        assert (reached["step"], reached["timesteps"]) == (at + 1, 0)
    else:
        assert 0 < reached["timesteps"] < config.timesteps
    train_sb3(small_model(), config, setup_in(parts), reached)
    assert (whole / MODEL).read_bytes() == (parts / MODEL).read_bytes()
    assert logged(whole) == logged(parts)


def test_sb3s_log_has_every_rollout_every_update_and_every_validation_in_a_row_of_its_own(tmp_path: Path) -> None:
    config = PPOConfig(
        timesteps=32 * 3 * 4, num_envs=32, episodes=2, batch_size=32, warmup_steps=0, finetune=0, eval_every=1
    )
    train_sb3(small_model(), config, setup_in(tmp_path))
    groups = [{name.partition("/")[0] for name in row} - {"time"} for row in logged(tmp_path)]
    assert groups == [{"rollout", "train"}, {"eval"}, {"rollout", "train"}, {"train"}, {"eval"}]
    updates = [row["train/n_updates"] for row in logged(tmp_path) if "train/n_updates" in row]
    assert updates == ["4", "8"]


def test_a_rollout_is_paid_for_at_the_price_that_the_ramp_reaches_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PPOConfig(
        timesteps=32 * 3 * 4, num_envs=32, episodes=1, batch_size=32, warmup_steps=0, finetune=0, price=0.8, ramp=1.0
    )
    prices: list[float] = []
    begin = sb3.JointFinetuning._on_rollout_start

    def recorded(self: sb3.JointFinetuning) -> None:
        begin(self)
        prices.append(self.pricing.value)

    monkeypatch.setattr(sb3.JointFinetuning, "_on_rollout_start", recorded)
    train_sb3(small_model(), config, setup_in(tmp_path))
    assert prices == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_run_stopped_in_its_last_rollout_is_not_called_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = 32 * 3
    config = PPOConfig(
        timesteps=rollout + 32, num_envs=32, episodes=1, batch_size=32, warmup_steps=0, finetune=0, eval_every=100
    )
    end = sb3.JointFinetuning._on_rollout_end
    monkeypatch.setattr(
        sb3.JointFinetuning, "_on_rollout_end", lambda self: (end(self), signal.raise_signal(signal.SIGINT))
    )
    with pytest.raises(Interrupted):
        train_sb3(small_model(), config, setup_in(tmp_path))
    assert load_tree(tmp_path / CHECKPOINT)["timesteps"] == rollout
    assert not (tmp_path / MODEL).exists()


def test_ctrl_c_while_sb3s_threshold_is_searched_for_stops_too_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = A2CConfig(timesteps=32 * 3 * 2, num_envs=32, episodes=1, batch_size=32, warmup_steps=1, target=0.6)
    whole, parts = setup_in(tmp_path / "whole"), setup_in(tmp_path / "parts")
    for setup in (whole, parts):
        setup.run.mkdir()
    train_sb3(small_model(), config, whole)
    with monkeypatch.context() as patch:
        patch.setattr(sb3, "center", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            train_sb3(small_model(), config, parts)
    assert not (parts.run / MODEL).exists()
    train_sb3(small_model(), config, parts, load_checkpoint(parts.run))
    assert (parts.run / MODEL).read_bytes() == (whole.run / MODEL).read_bytes()


def test_sb3s_greedy_decisions_meet_a_target(tmp_path: Path) -> None:
    config = PPOConfig(
        timesteps=32 * 3 * 8, num_envs=32, episodes=1, batch_size=32, warmup_steps=2, finetune=1, target=0.6
    )
    setup = setup_in(tmp_path)
    train_sb3(small_model(), config, setup)
    model, before, log = load_model(tmp_path), (tmp_path / MODEL).read_bytes(), logged(tmp_path)
    assert evaluate(model, setup.val, model.greedy(), setup.device).macs_ratio == pytest.approx(0.6, abs=0.06)
    train_sb3(small_model(), config, setup, load_checkpoint(tmp_path))
    assert (tmp_path / MODEL).read_bytes() == before, "there was nothing left to do"
    assert logged(tmp_path) == log


def test_minibatches_far_smaller_than_asked_for_are_refused() -> None:
    assert largest_divisor(1152, 1000) == 576
    with pytest.raises(UserError, match="3459 rows of a rollout divide into minibatches of 3 at most"):
        largest_divisor(3459, 1152)
    with pytest.raises(UserError, match="35 rows of a rollout divide into minibatches of 1 at most"):
        largest_divisor(35, 4)
