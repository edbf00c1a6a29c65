"""A user's own reward: what is found out about it, what is refused, and how it is given."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from evaluated import summary
from networks import lively
from test_agents_runs import joint
from test_documented_commands import files
from test_envs_process import first_potential, random_actions, tiny, tiny_process
from torch import Tensor

from agents.pricing import PricingConfig
from agents.reinforce_config import ReinforceConfig
from agents.rollout import mean_field
from lcnet_rl import imports
from lcnet_rl.backbones import create_backbone
from lcnet_rl.comparison.records import differing, grouped, of_run
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.policies import PolicyName
from lcnet_rl.rewards import Judgement, Reward, create_reward, is_smooth, judge, register_reward, reward_names
from lcnet_rl.rewards.shapes import Lagrangian, Linear
from lcnet_rl.rewards.values import MOST
from lcnet_rl.runs import create_run, read_config, recorded_modules
from lcnet_rl.unchanged import warn_if_edited

MODULE = """
from dataclasses import dataclass
import torch
from lcnet_rl.rewards import Reward
from lcnet_rl.rewards.shapes import Potential

def lin(judged, share, price, weight=1.0):
    return weight * judged.correct - price * share
def flat(judged, share, price):
    return judged.correct - 0.3 * share
def kinked(judged, share, price):
    return judged.correct - price.clamp(max=5) * share
def capped(judged, share, price):
    return judged.correct - price.clamp(max=20) * share
def pardoned(judged, share, price):
    return judged.correct - price * share * ((judged.correct == 1) | (judged.confidence >= 0.5))
def rewarded(judged, share, price):
    paid = (judged.confidence > 0.6) & (judged.confidence < 0.9)
    return judged.correct - price * share * torch.where(paid, -1.0, 1.0)
def centred(judged, share, price):
    return judged.correct - judged.correct.mean() - price * share
def scaled(judged, share, price):
    return judged.correct / judged.correct.std(correction=0) - price * share
def shared(judged, share, price):
    return judged.correct - price * share.mean()
def rooted(judged, share, price):
    return judged.correct + 0.1 * (1 - judged.confidence).sqrt() - price * share
def hinge(judged, share, price):
    return judged.correct - price * (share - 0.6).clamp(min=0)
def inverse(judged, share, price):
    return judged.correct - price * share + (1 - judged.correct) * torch.log(1 - judged.confidence)
def by_numpy(judged, share, price):
    return torch.from_numpy(judged.correct.numpy() - price.numpy() * share.numpy())

@dataclass(frozen=True)
class Silent(Reward):
    def __call__(self, judged, share, price):
        return judged.correct - price * share

made = Potential(2.0)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the working folder."""
    (tmp_path / "rewards_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rewards_of_mine"


def lin(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
    return judged.correct - price * share


def unsure(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
    """No number at the price 0.7, which no point that is tried has."""
    return judged.correct - price * share + torch.where((price - 0.7).abs() < 0.01, torch.nan, 0.0)


@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("lin", True),
        ("lin:weight=3", True),
        ("hinge", False),
        ("flat", False),
        ("kinked", False),
        ("capped", False),
        ("pardoned", False),
    ],
)
def test_a_function_pays_by_step_just_if_it_is_its_task_minus_the_price_of_the_share(
    module: str, name: str, linear: bool
) -> None:
    assert create_reward(f"{module}:{name}").pays_by_step == linear


def test_a_function_that_pays_for_compute_at_some_confidences_only_is_refused(module: str) -> None:
    with pytest.raises(UserError, match=r"rewarded rises with compute at a share of 0\.01 \(price 0\.03\)"):
        create_reward(f"{module}:rewarded")


def rarely_free(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
    """Charges nothing at the price 0.7, which no point that is tried has."""
    return judged.correct - price * share * ((price - 0.7).abs() > 0.01)


def test_a_function_that_was_taken_to_pay_by_step_is_not_paid_otherwise_than_it_says() -> None:
    assert create_reward(rarely_free).pays_by_step
    process = tiny_process(reward=rarely_free, price=0.7)
    process.begin(torch.arange(6).numpy())
    ones = torch.ones(6, process.model.action_size).numpy()
    for _ in range(process.model.depth - 1):
        process.step(ones)
    with pytest.raises(UserError, match=r"rarely_free pays by step, but is not task - .* at share 0, price 0\.7"):
        process.step(ones)


@pytest.mark.parametrize("name", ["centred", "scaled", "shared"])
def test_a_function_that_mixes_images_is_refused(module: str, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} mixes the images of a batch"):
        create_reward(f"{module}:{name}")


def test_a_reward_that_changes_its_arguments_changes_nothing_else() -> None:
    def greedy(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        share *= price
        return judged.correct.mul_(2) - share

    def greedy_potential(log_prob: Tensor) -> Tensor:
        return log_prob.exp_()

    reward, halves = create_reward(greedy), torch.full((2,), 0.5)
    judged = Judgement(torch.ones(2), halves.log(), halves)
    for _ in range(2):
        values = reward(judged, halves, torch.ones(2))
        create_reward(shaped(greedy_potential)).potential(judged.log_prob)
        assert values.tolist() == [1.5, 1.5]
    assert judged.correct.tolist() == [1, 1]
    assert halves.tolist() == judged.log_prob.exp().tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("policy", "confidence"), [("lc", True), ("blockdrop", False)])
def test_no_network_spends_more_than_rewards_are_tried_for(policy: PolicyName, confidence: bool) -> None:
    smallest = create_backbone("resnet14-wide", 10, width=2)
    costs = LCNet(smallest, "layers", confidence=confidence, policy=policy).costs
    assert costs.ceiling / costs.dense <= MOST


def test_an_exact_cost_gradient_takes_a_function_that_is_linear_and_says_why_it_takes_no_other(module: str) -> None:
    ReinforceConfig(reward=f"{module}:lin", cost_gradient="exact")
    with pytest.raises(UserError, match=r"hinge is not task - price \* share: use --cost-gradient sampled"):
        ReinforceConfig(reward=f"{module}:hinge", cost_gradient="exact")
    with pytest.raises(UserError, match="Silent does not say that it pays by step: set pays_by_step = True"):
        ReinforceConfig(reward=f"{module}:Silent", cost_gradient="exact")


def test_a_linear_function_is_paid_as_the_built_in_shape_is() -> None:
    steps = []
    for reward in ("linear", lin):
        process = tiny_process(reward=reward, price=0.7)
        process.begin(torch.arange(6).numpy())
        ones = torch.ones(6, process.model.action_size).numpy()
        steps.append([process.step(ones)[0].tolist() for _ in range(process.model.depth)])
    assert steps[0] == steps[1]


def shaped(values: Callable[[Tensor], Tensor], has_potential: bool = True) -> Reward:
    @dataclass(frozen=True)
    class Shaped(Linear):
        def potential(self, log_prob: Tensor) -> Tensor:
            return values(log_prob)

    Shaped.has_potential = has_potential
    return Shaped()


def test_a_potential_that_nobody_would_add_is_refused() -> None:
    with pytest.raises(UserError, match=r"Shaped has a potential, but does not say so: add has_potential = True"):
        create_reward(shaped(torch.exp, has_potential=False))
    reward = shaped(torch.exp)
    assert create_reward(reward) is reward


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda log_prob: (-1 - log_prob).log(), "returned nan at log_prob 0"),
        (lambda log_prob: log_prob.mean(), r"returned the shape \(\)"),
        (lambda log_prob: log_prob > -1, r"returned torch\.bool"),
        (lambda log_prob: log_prob - log_prob.mean(), "mixes the images of a batch"),
    ],
)
def test_a_potential_is_one_finite_float_an_image(values: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=f"the potential of reward .*Shaped {message}"):
        create_reward(shaped(values))


def test_a_reward_that_draws_numbers_is_called_random() -> None:
    def noisy(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        return judged.correct - price * share + 0.1 * torch.rand_like(share)

    with pytest.raises(UserError, match="noisy is random: of the same arguments it must make the same numbers"):
        create_reward(noisy)


def test_a_parameter_without_a_default_has_to_be_given() -> None:
    def base(judged: Judgement, share: Tensor, price: Tensor, penalty: float) -> Tensor:
        return judged.correct - penalty * (1 - judged.correct) - price * share

    register_reward("test-needs")(base)
    with pytest.raises(UserError, match="needs penalty: give it a default, or, by name, write NAME:penalty=NUMBER"):
        create_reward("test-needs")
    assert create_reward("test-needs:penalty=1").pays_by_step


def test_a_reward_is_tried_where_predictions_are_sure(module: str) -> None:
    with pytest.raises(
        UserError, match=r"inverse returned nan at share 0, price 0, correct 1, log_prob 0, confidence 1: it"
    ):
        create_reward(f"{module}:inverse")


def test_what_is_no_number_while_training_is_the_rewards_fault_at_a_point_and_no_learning_rates(
    tmp_path: Path,
) -> None:
    register_reward("test-unsure")(unsure)
    trainer = joint(tmp_path / "run", reward="test-unsure", price=0.7, target=None, warmup=0.0, ramp=0.0)
    with pytest.raises(
        UserError, match=r"test_own_rewards:unsure returned nan at share .*, price .*, log_prob -.*, confidence"
    ):
        trainer.joint_step()


def test_environments_pass_on_no_reward_that_is_no_number() -> None:
    register_reward("test-unsure")(unsure)
    process = tiny_process(reward="test-unsure", price=0.7)
    process.begin(torch.arange(6).numpy())
    ones = torch.ones(6, process.model.action_size).numpy()
    for _ in range(process.model.depth - 1):
        process.step(ones)
    with pytest.raises(UserError, match=r"unsure returned nan at share 0, price 0\.7"):
        process.step(ones)


def test_a_potential_that_is_no_number_ends_an_episode() -> None:
    reward = shaped(lambda log_prob: log_prob / (len(log_prob) != 6))
    register_reward("test-shaped")(type(reward))
    with pytest.raises(UserError, match=r"the potential of reward .* returned -inf at log_prob -"):
        tiny_process(reward="test-shaped").begin(torch.arange(6).numpy())


def test_a_reward_is_not_blamed_for_predictions_that_are_no_numbers() -> None:
    seen = judge(torch.tensor([[torch.nan, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    values = create_reward("confidence")(seen, torch.ones(2), torch.ones(2))
    assert values.isfinite().tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "flat", "target": 0.5}, "no price holds a policy to the target 0.5 .* give another --reward"),
        ({"reward": "flat", "price": "0.1..1"}, "flat charges the same at all prices: give one --price, not 0.1..1"),
        ({"reward": "hinge", "target": 0.5}, "up to there reward rewards_of_mine:hinge .* give another target"),
    ],
)
def test_a_price_that_changes_nothing_finds_no_target_and_has_no_range(
    module: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        PricingConfig(**{**settings, "reward": f"{module}:{settings['reward']}"})


def test_a_price_that_changes_what_compute_costs_finds_targets_and_has_ranges(module: str) -> None:
    PricingConfig(reward=f"{module}:flat", price=0.4)
    PricingConfig(reward=f"{module}:hinge", target=0.7)
    for name in [name for name in reward_names() if not name.startswith("test")]:
        PricingConfig(reward=name, **({} if name == "lagrangian" else {"target": 0.65}))
        if name != "lagrangian":
            PricingConfig(reward=name, price="0.1..1")


def test_an_environment_takes_a_function_and_a_reward() -> None:
    for reward in (lin, Linear(), Linear, functools.partial(lin)):
        env = gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0", **tiny("layers", 1, reward=reward, price=0.5))
        assert env.unwrapped.process.reward.pays_by_step
        env.reset(seed=0)
        assert env.step(env.action_space.sample())[1] < 0
    with pytest.raises(UserError, match="rises with compute"):
        tiny_process(reward=lambda judged, share, price: judged.correct + share)
    with pytest.raises(UserError, match="3 is no function and no Reward"):
        create_reward(3)  # type: ignore[arg-type]


def test_a_reward_that_is_made_is_used_as_it_is(module: str) -> None:
    reward = create_reward(f"{module}:made")
    assert (reward.pays_by_step, reward.has_potential) == (True, True)
    torch.testing.assert_close(reward.potential(torch.zeros(1)), torch.tensor([2.0]))
    with pytest.raises(UserError, match="made already: it takes no parameters, got weight=1"):
        create_reward(f"{module}:made:weight=1")


def test_a_cell_that_is_run_again_replaces_its_shape_and_no_other() -> None:
    def cell(factor: float) -> Callable[..., Tensor]:
        @register_reward("test-mine")
        def mine(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
            return factor * judged.correct - price * share

        return mine

    cell(1.0)
    cell(2.0)
    zero = torch.zeros(1)
    assert create_reward("test-mine")(Judgement(zero + 1, zero, zero + 1), zero, zero).item() == 2
    with pytest.raises(UserError, match="there already is a reward 'test-mine'"):
        register_reward("test-mine")(lin)
    register_reward("test-part")(functools.partial(lin))
    with pytest.raises(UserError, match="there already is a reward 'test-part'"):
        register_reward("test-part")(functools.partial(unsure))
    again = type("Linear", (Linear,), {"__module__": Linear.__module__, "__qualname__": Linear.__qualname__})
    with pytest.raises(UserError, match="there already is a reward 'linear'"):
        register_reward("linear")(again)


def test_a_reward_that_numpy_computes_has_no_gradient_and_the_error_says_what_to_do(module: str) -> None:
    assert not is_smooth(create_reward(f"{module}:by_numpy"))
    with pytest.raises(UserError, match="has no finite gradient by what it judges: use --control-variate none"):
        ReinforceConfig(reward=f"{module}:by_numpy", control_variate="first-order")


def test_a_reward_whose_slope_is_infinite_somewhere_takes_no_estimator_that_needs_slopes(module: str) -> None:
    assert not is_smooth(create_reward(f"{module}:rooted"))
    with pytest.raises(UserError, match="has no finite gradient by what it judges: use --control-variate none"):
        ReinforceConfig(reward=f"{module}:rooted", control_variate="first-order")
    ReinforceConfig(reward=f"{module}:rooted")


def test_a_slope_that_is_not_finite_while_training_is_the_rewards_fault(module: str) -> None:
    def kink(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        return judged.correct + (judged.confidence - judged.confidence.detach()).sqrt() - price * share

    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"kink has a slope of inf by confidence at correct .*, log_prob -.*: make it"):
        mean_field(lively(), images, torch.arange(3), 0.3, create_reward(kink), 0.03)


def test_parameters_of_ones_own_may_be_negative(module: str) -> None:
    zero = torch.zeros(1)
    reward = create_reward(f"{module}:lin:weight=-1")
    assert reward(Judgement(zero + 1, zero, zero + 1), zero, zero).item() == -1
    with pytest.raises(UserError, match=r"returned nan at share 0"):
        create_reward(f"{module}:lin:weight=nan")


def test_a_subclass_of_lagrangian_keeps_its_target() -> None:
    @dataclass(frozen=True)
    class Sure(Lagrangian):
        def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
            return judged.log_prob.clamp(min=-5) - price * (share - self.target)

    register_reward("test-sure")(Sure)
    assert PricingConfig(reward="test-sure:target=0.5").aim == 0.5


def test_the_documented_reward_with_a_potential_is_shaped_and_paid_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_shaping.py").write_text(files()["my_shaping.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    process = tiny_process(reward="my_shaping:Hints:weight=0.5", price=0.7)
    process.begin(torch.arange(6).numpy())
    potential = first_potential(process, "my_shaping:Hints:weight=0.5").numpy()
    actions = random_actions(process, seed=0)
    rewards, _, infos = zip(*(process.step(action) for action in actions), strict=True)
    expected = infos[-1]["is_success"] - 0.7 * infos[-1]["macs_ratio"] - potential
    np.testing.assert_allclose(sum(rewards), expected, atol=1e-6)
    assert (rewards[0] != 0).all()
    assert (potential < 0).all()


def test_a_run_keeps_the_module_that_its_reward_is_of_and_tells_versions_apart(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(seed: int) -> Path:
        config = {"dataset": "shapes", "seed": seed, "agent": {"reward": f"{module}:lin", "price": 0.3}}
        create_reward(config["agent"]["reward"])
        run = create_run(tmp_path, "LayerSkip", "reinforce", seed, config, tmp_path / f"run{seed}")
        (run / "evaluation-test.json").write_text(json.dumps(summary(0.9, 0.5)))
        return run

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(imports, "_SOURCES", {})
    runs = [begin(seed) for seed in (0, 1)]
    assert (runs[0] / f"{module}.py").read_text() == MODULE
    monkeypatch.setattr(imports, "_SOURCES", {})
    (tmp_path / f"{module}.py").write_text(MODULE + "# other\n")
    runs.append(begin(2))
    records = [record for run in runs for record in of_run(run, "test")]
    groups = grouped(records)
    assert [len(group.records) for group in groups] == [2, 1]
    assert list(differing(groups)) == [f"modules.{module}"]
    for run, says in zip(runs, (True, True, False), strict=True):
        warn_if_edited(run, read_config(run))
        assert (f"{module} was changed since {run} began" in " ".join(capsys.readouterr().out.split())) == says


def test_a_run_without_a_module_of_ones_own_keeps_none(module: str, tmp_path: Path) -> None:
    create_reward(f"{module}:lin")
    run = create_run(tmp_path, "LayerSkip", "reinforce", 0, {"agent": {"reward": "linear"}}, tmp_path / "run")
    assert recorded_modules(run) == {}
    assert not list(run.glob("*.py"))
