"""Runs that are stopped, killed, resumed or diverge."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from agents.sb3 import train_sb3
from agents.sb3_config import PPOConfig
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.errors import UserError
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.model import LCNet
from lcnet_rl.runs import BEST, CHECKPOINT, MODEL, PROGRESS
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import load_tree, save_tree
from lcnet_rl.weights import load_model

CPU = torch.device("cpu")


def noise(count: int, split: str) -> Dataset:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Dataset("noise", split, images, torch.arange(count) % 4, tuple("abcd"))


def small_model(confidence: bool = True) -> LCNet:
    torch.manual_seed(0)
    return LCNet(create_backbone("resnet8", 4, 4), "both", groups=2, confidence=confidence)


def setup_in(run: Path, seed: int = 7) -> TrainingSetup:
    """A training on noise."""
    return TrainingSetup(noise(256, "train"), noise(64, "val"), run, seed, CPU)


def joint(run: Path, confidence: bool = True, **settings: object) -> Reinforce:
    run.mkdir(exist_ok=True)
    config = ReinforceConfig(**{"epochs": 3, "batch_size": 32, "target": 0.6, "save_every": 5, "evals": 3, **settings})
    return Reinforce(small_model(confidence), config, setup_in(run))


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of a run's log, without what is measured by the clock."""
    rows = csv.DictReader((run / PROGRESS).read_text().splitlines())
    clocks = "time/fps", "time/time_elapsed"
    return [{name: value for name, value in row.items() if value and name not in clocks} for row in rows]


def stop_after(agent: Reinforce, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while step number ``steps`` runs."""
    one_step = agent.joint_step

    def step() -> dict[str, float]:
        if agent.step == steps:
            signal.raise_signal(signal.SIGINT)
        return one_step()

    monkeypatch.setattr(agent, "joint_step", step)


@pytest.mark.parametrize(("target", "polish", "warned"), [(0.4, 0.3, 1), (0.4, 0.0, 1), (0.75, 0.3, 0)])
def test_a_run_whose_policy_missed_its_target_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: float, polish: float, warned: int
) -> None:
    # With a price that never moves, the policy keeps spending what it starts with, about 0.8.
    joint(tmp_path / "run", target=target, polish=polish, price=0.0, price_rate=0.0, gate_lr=1e-6).train()
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(f"not the target of {target:.1%}") == warned


@pytest.mark.parametrize("backbone", [True, False])
@pytest.mark.parametrize("scales", [True, False])
def test_only_what_is_to_learn_learns(tmp_path: Path, backbone: bool, scales: bool) -> None:
    agent = joint(tmp_path / "run", train_backbone=backbone, train_scales=scales, gate_lr=0.1, lr=0.1)
    model = agent.model
    parts = {
        "backbone": (list(model.backbone.parameters()), backbone),
        "scales": (model.scale_parameters(), scales),
        "policy": (model.policy_parameters(), True),
    }
    before = {name: [p.detach().clone() for p in parameters] for name, (parameters, _) in parts.items()}
    agent.train()
    for name, (parameters, learns) in parts.items():
        same = [torch.equal(was, now) for was, now in zip(before[name], parameters, strict=True)]
        assert all(same) != learns, name
    if not scales:
        gate = model.gates()[0]
        assert bool((gate.scales(torch.randn(3, gate.scale.in_features)) == 1).all())


@pytest.mark.parametrize(
    "flags",
    [
        {},
        # At one price its first validation is the best, which a resumed run has to know.
        {
            "rollouts": 1,
            "baseline": "mean-field",
            "control_variate": "first-order",
            "confidence": False,
            "target": None,
        },
    ],
)
@pytest.mark.parametrize("steps", [2, 13, 21], ids=["warm-up", "policy", "polish"])
def test_resumed_reinforce_equals_an_uninterrupted_run_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, flags: dict
) -> None:
    whole = joint(tmp_path / "whole", **flags)
    whole.train()
    first = joint(tmp_path / "parts", **flags)
    stop_after(first, steps, monkeypatch)
    with pytest.raises(Interrupted, match=rf"stopped at step {steps + 1} of 24.*--resume"):
        first.train()
    second = joint(tmp_path / "parts", **flags)
    second.restore()
    assert second.step == steps + 1
    second.train()
    one, other = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    for name in (MODEL, BEST):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_a_run_that_ended_before_its_first_checkpoint_logs_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = joint(tmp_path, save_every=100, log_every=1)
    one_step = first.joint_step

    def step() -> dict[str, float]:
        if first.step == 3:
            raise MemoryError
        return one_step()

    monkeypatch.setattr(first, "joint_step", step)
    with pytest.raises(MemoryError):
        first.train()
    second = joint(tmp_path, save_every=100, log_every=1)
    second.restore()
    assert second.step == 0
    second.train()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/macs_ratio")]
    assert steps == [32 * second.model.depth * (step + 1) for step in range(24)]


def test_a_run_killed_after_its_last_step_has_that_in_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = joint(tmp_path, save_every=1000)
    total = agent.schedule.total
    hold = agent.hold_to_target

    def killed(each: Callable[[], object]) -> None:
        if agent.step == total:
            raise MemoryError
        hold(each)

    monkeypatch.setattr(agent, "hold_to_target", killed)
    with pytest.raises(MemoryError):
        agent.train()
    again = joint(tmp_path, save_every=1000)
    again.restore()
    assert again.step == total


def test_ctrl_c_while_the_last_threshold_is_searched_for_stops_too_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = joint(tmp_path / "whole", target=0.6), joint(tmp_path / "parts", target=0.6)
    whole.train()
    hold = parts.hold_to_target

    def pressed(each: Callable[[], object]) -> None:
        if parts.step == parts.schedule.total:
            signal.raise_signal(signal.SIGINT)
        hold(each)

    monkeypatch.setattr(parts, "hold_to_target", pressed)
    with pytest.raises(Interrupted):
        parts.train()
    assert not (tmp_path / "parts" / MODEL).exists()
    assert capsys.readouterr().out.count("measuring what greedy decisions spend") == 0, "no line for each try"
    again = joint(tmp_path / "parts", target=0.6)
    again.restore()
    again.train()
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert (tmp_path / "parts" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


def test_ctrl_c_while_a_finished_run_is_validated_ends_what_would_come_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = joint(tmp_path, evals=1)
    validate = agent.validation.validate
    monkeypatch.setattr(
        agent.validation, "validate", lambda *given: (signal.raise_signal(signal.SIGINT), validate(*given))[1]
    )
    with pytest.raises(KeyboardInterrupt):
        agent.train()
    assert (tmp_path / MODEL).exists()
    assert "eval/accuracy" in logged(tmp_path)[-1]


def test_a_finished_run_that_is_resumed_logs_nothing_twice(tmp_path: Path) -> None:
    joint(tmp_path, save_every=8).train()
    before = logged(tmp_path)
    again = joint(tmp_path, save_every=8)
    again.restore()
    assert again.step == again.schedule.total
    again.train()
    assert logged(tmp_path) == before


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    runs = []
    for seed in (7, 8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        config = ReinforceConfig(epochs=1, batch_size=32)
        agent = Reinforce(small_model(), config, setup_in(folder, seed))
        agent.train()
        runs.append(agent.model.backbone.stem.conv.weight)
    assert not torch.equal(*runs)


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    agent = joint(tmp_path / "run")
    one_step = agent.joint_step

    def poisoned() -> dict[str, float]:
        if agent.step == 12:
            agent.model.backbone.head.weight.data.fill_(float("nan"))
        return one_step()

    agent.joint_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"the loss of step 12 is not a number; stopped: train anew with a lower --lr"):
        agent.train()
    state = load_tree(tmp_path / "run" / CHECKPOINT)
    assert state["step"] == 10
    assert all(torch.isfinite(value).all() for value in state["model"].values())


@pytest.mark.parametrize(
    "config",
    [
        ReinforceConfig(epochs=3, batch_size=32, lr=1e12, save_every=1, evals=12),
        # One step, whose loss and gradients are numbers.
        ReinforceConfig(epochs=0.125, batch_size=32, lr=1e38, weight_decay=1e9, warmup=0.0, polish=0.0),
        PPOConfig(
            timesteps=32 * 3 * 8,
            num_envs=32,
            episodes=1,
            batch_size=32,
            lr=1e12,
            warmup_steps=1,
            finetune=0,
            eval_every=1,
        ),
    ],
)
def test_nothing_is_saved_that_is_no_number(tmp_path: Path, config: ReinforceConfig | PPOConfig) -> None:
    settings = small_model(), config, setup_in(tmp_path)
    train = train_sb3 if isinstance(config, PPOConfig) else lambda *_: Reinforce(*settings).train()
    with pytest.raises(UserError, match=r"is not a number; stopped: train anew with a lower --lr"):
        train(*settings)
    assert not (tmp_path / MODEL).exists()
    kept = [load_tree(tmp_path / CHECKPOINT)["model"]]
    if (tmp_path / BEST).exists():
        kept.append(load_model(tmp_path / BEST).state_dict())
    assert all(bool(value.isfinite().all()) for state in kept for value in state.values())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    agent = joint(tmp_path / "run")
    agent.save()
    torch.manual_seed(0)
    other = LCNet(create_backbone("resnet14", 4, 4), "both", groups=2)
    config = ReinforceConfig(batch_size=32)
    wrong = Reinforce(other, config, setup_in(tmp_path / "run"))
    with pytest.raises(UserError, match="another network"):
        wrong.restore()


@pytest.mark.parametrize("confidence", [True, False])
def test_a_checkpoint_with_other_confidence_is_refused(tmp_path: Path, confidence: bool) -> None:
    joint(tmp_path / "run", confidence).save()
    with pytest.raises(UserError, match="another network or optimizer: size mismatch"):
        joint(tmp_path / "run", not confidence).restore()


def test_a_checkpoint_of_an_older_version_is_refused_in_words(tmp_path: Path) -> None:
    agent = joint(tmp_path / "run")
    agent.save()
    path = tmp_path / "run" / CHECKPOINT
    save_tree({name: value for name, value in load_tree(path).items() if name != "pricing"}, path)
    with pytest.raises(UserError, match=r"written by another version of this project \('pricing'\)"):
        agent.restore()


def test_probes_learn_whether_or_not_the_gates_read_their_confidence(tmp_path: Path) -> None:
    agent = joint(tmp_path / "run", confidence=False, warmup=0.0)
    before = [parameter.clone() for parameter in agent.model.probes.parameters()]
    agent.joint_step()
    assert not any(map(torch.equal, before, agent.model.probes.parameters()))


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    agent = joint(tmp_path / "run")
    agent.save()
    path = tmp_path / "run" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged"):
        agent.restore()


TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_agents_runs import joint
joint(Path({run!r}), epochs=1000, save_every=1).train()
"""


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    moments = random.Random(0)
    for attempt in range(4):
        run = tmp_path / str(attempt)
        code = TRAINING.format(tests=str(Path(__file__).parent), run=str(run))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (run / CHECKPOINT).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 3))
        process.kill()
        process.wait()
        agent = joint(run, epochs=1000)
        agent.restore()
        agent.joint_step()
        assert all(torch.isfinite(value).all() for value in agent.model.state_dict().values())
