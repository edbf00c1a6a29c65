"""Reward shapes: monotone in compute, equal to their formulas, parameterised from text, and users' own."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from agents.reinforce_config import ReinforceConfig
from lcnet_rl.errors import UserError
from lcnet_rl.rewards import (
    Judgement,
    Reward,
    create_reward,
    free_reward,
    is_smooth,
    judge,
    register_reward,
    reward_names,
    smoothed,
)
from lcnet_rl.rewards.shapes import (
    Asymmetric,
    Budget,
    Confidence,
    ConfidenceGain,
    Lagrangian,
    Linear,
    Potential,
    Quadratic,
)

NAMES = reward_names()
SHARES = st.floats(0, 1.5, width=32)
LOG_PROBS = st.floats(-50, 0, width=32)
PRICES = st.floats(0, 5, width=32)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def judged(correct: float, log_prob: float, confidence: float = 0.5, count: int = 1) -> Judgement:
    return Judgement(*(torch.full((count,), float(value)) for value in (correct, log_prob, confidence)))


def worth(
    reward: Reward, correct: float, log_prob: float, share: float, price: float, confidence: float = 0.5
) -> float:
    return float(reward(judged(correct, log_prob, confidence), t(share), t(price)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(st.booleans(), LOG_PROBS, st.floats(0, 1, width=32), SHARES, SHARES, PRICES)
def test_at_equal_correctness_a_reward_never_rises_with_compute(
    name: str, correct: bool, log_prob: float, confidence: float, share: float, other: float, price: float
) -> None:
    less, more = sorted((share, other))
    pair = create_reward(name)(judged(correct, log_prob, confidence, 2), t(less, more), t(price, price))
    assert pair[1] <= pair[0]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(LOG_PROBS, SHARES, PRICES)
def test_at_equal_compute_a_right_answer_is_never_worth_less(
    name: str, log_prob: float, share: float, price: float
) -> None:
    # Up to price * share^2 = 1 + penalty, beyond which BlockDrop's shape would rather be wrong.
    reward, price = create_reward(name), min(price, 2 / max(share, 1) ** 2)
    wrong, right = (worth(reward, correct, log_prob, share, price) for correct in (0, 1))
    assert wrong <= right + 1e-5


@pytest.mark.parametrize("name", [name for name in NAMES if create_reward(name).pays_by_step])
@settings(max_examples=30)
@given(st.booleans(), LOG_PROBS, SHARES, PRICES)
def test_a_shape_that_pays_by_step_is_its_task_minus_the_price_of_the_share(
    name: str, correct: bool, log_prob: float, share: float, price: float
) -> None:
    reward = create_reward(name)
    task, whole = (worth(reward, correct, log_prob, spent, price) for spent in (0, share))
    assert whole == pytest.approx(task - price * share, rel=1e-5, abs=1e-5)


def test_linear_is_correctness_minus_the_price_of_the_share() -> None:
    assert worth(Linear(), 1, -0.1, 0.5, 0.4) == pytest.approx(0.8)
    assert worth(Linear(), 0, -3, 0.5, 0.4) == pytest.approx(-0.2)


def test_quadratic_is_blockdrops_reward() -> None:
    # Wu et al., 2018: 1 - (share kept)^2 for a right prediction, -gamma for a wrong one.
    rewards = [worth(Quadratic(penalty=0.7), correct, -1, share, 1) for correct in (1, 0) for share in (0.5, 1)]
    assert rewards == pytest.approx([1 - 0.25, 0, -0.7, -0.7])


def test_confidence_is_the_floored_log_probability_minus_the_price_of_the_share() -> None:
    assert worth(Confidence(floor=2), 1, -0.5, 0.5, 0.2) == pytest.approx(-0.6)
    assert worth(Confidence(floor=2), 0, -9, 0.5, 0.2) == pytest.approx(-2.1)


def test_confidence_gain_is_the_probability_and_its_gains_by_the_probes() -> None:
    assert worth(ConfidenceGain(), 0, math.log(0.25), 0.5, 0.2) == pytest.approx(0.15)
    assert ConfidenceGain().potential(t(math.log(0.4))).item() == pytest.approx(0.4)


def test_potential_is_linear_with_a_weighted_probability_as_potential() -> None:
    assert worth(Potential(2), 1, -0.1, 0.5, 0.4) == pytest.approx(0.8)
    assert Potential(2).potential(t(math.log(0.4))).item() == pytest.approx(0.8)


def test_budget_charges_only_what_passes_the_target() -> None:
    rewards = [worth(Budget(target=0.6), 1, -1, share, 2) for share in (0, 0.6, 0.7, 1)]
    assert rewards == pytest.approx([1, 1, 0.8, 0.2])


def test_lagrangian_pays_for_what_stays_below_the_target() -> None:
    rewards = [worth(Lagrangian(target=0.6), 1, -1, share, 2) for share in (0.5, 0.6, 0.7)]
    assert rewards == pytest.approx([1.2, 1, 0.8])


def test_asymmetric_punishes_confident_mistakes_most() -> None:
    shape = Asymmetric(sure=2, unsure=0.5)
    mistakes = [worth(shape, 0, -3, 0.5, 0.4, confidence) for confidence in (0, 0.5, 1)]
    assert mistakes == pytest.approx([-0.5 - 0.2, -1.25 - 0.2, -2 - 0.2])
    assert worth(shape, 1, -3, 0.5, 0.4, 1.0) == pytest.approx(0.8)


@pytest.mark.parametrize("name", NAMES)
def test_the_smooth_task_of_a_certain_right_answer_is_the_free_reward(name: str) -> None:
    reward, free = create_reward(name), (t(0), t(0))
    torch.testing.assert_close(free_reward(reward, smoothed(judged(1, 0))), reward(judged(1, 0), *free))
    torch.testing.assert_close(free_reward(reward, smoothed(judged(0, -60))), reward(judged(0, -60), *free))


@pytest.mark.parametrize("name", NAMES)
def test_the_smooth_task_rises_with_the_probability_and_has_a_gradient(name: str) -> None:
    log_prob = torch.linspace(-4, -0.01, 20, requires_grad=True)
    unsure = torch.full_like(log_prob, 0.5)
    task = free_reward(create_reward(name), smoothed(Judgement((log_prob > -0.7).float(), log_prob, unsure)))
    assert (task.diff() > 0).all()
    task.sum().backward()
    assert log_prob.grad is not None
    assert (log_prob.grad > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_says_whether_it_has_a_potential(name: str) -> None:
    reward = create_reward(name)
    assert reward.has_potential == bool(reward.potential(t(-0.5, -2)).any())


def test_a_shape_is_made_from_its_name_and_parameters() -> None:
    assert create_reward("linear") == Linear()
    assert create_reward("quadratic") == Quadratic(1.0)
    assert create_reward("quadratic:penalty=0.5") == Quadratic(0.5)
    assert create_reward("confidence:floor=2e0") == Confidence(2.0)
    assert create_reward("quadratic:penalty=0") == Quadratic(0.0)
    assert create_reward("asymmetric:sure=2,unsure=1") == Asymmetric(2.0, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linaer", "unknown reward 'linaer'; did you mean linear"),
        ("", "unknown reward ''; known: asymmetric, budget, confidence"),
        ("quadratic:penalti=1", "unknown parameter of reward quadratic 'penalti'; did you mean penalty"),
        ("linear:penalty=1", "unknown parameter of reward linear 'penalty'"),
        ("quadratic:penalty=-1", "penalty must be >= 0, got -1"),
        ("quadratic:penalty=nan", "penalty must be >= 0, got nan"),
        ("quadratic:penalty=inf", "penalty must be >= 0, got inf"),
        ("quadratic:penalty=much", "penalty must be a number, got 'much'"),
        ("quadratic:penalty", "penalty must be a number, got ''"),
        ("confidence:floor=3,floor=5", "reward confidence: floor is given twice, in floor=3,floor=5"),
        ("lienar:penalty=1", "unknown reward 'lienar'; did you mean linear"),
        ("no_such_module:shape", "reward no_such_module:shape cannot be imported"),
        ("math:no_such_function", "reward math:no_such_function cannot be imported"),
        (":shape", "reward :shape cannot be imported (ValueError"),
        ("math:hypot", "reward math:hypot is no function of (judged, share, price)"),
        ("math:pi", "reward math:pi is no function and no Reward"),
        ("pathlib:Path", "reward pathlib:Path is a class, but no dataclass that is a Reward"),
    ],
)
def test_a_wrong_name_parameter_or_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        create_reward(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the working folder."""
    (tmp_path / "shapes_of_mine.py").write_text(
        "def cubic(judged, share, price, penalty=0.5):\n"
        "    return judged.correct - penalty * (1 - judged.correct) - price * share**3\n"
        "def generous(judged, share, price):\n"
        "    return judged.correct + 0.1 * share\n"
        "def broken(judged, share, price):\n"
        "    return judged.wrong - share\n"
        "def single(judged, share, price):\n"
        "    return judged.correct.mean() - price.mean() * share.mean()\n"
        "def abrupt(judged, share, price):\n"
        "    return (judged.correct > 0.5).float() - price * share\n"
        "def endless(judged, share, price):\n"
        "    return judged.correct / 0 - share\n"
        "def number(judged, share, price):\n"
        "    return 1.0\n"
        "def boolean(judged, share, price):\n"
        "    return judged.correct > 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "shapes_of_mine"


def test_a_users_function_is_a_shape_with_parameters(module: str) -> None:
    assert worth(create_reward(f"{module}:cubic"), 0, -1, 0.5, 2) == pytest.approx(-0.5 - 0.25)
    assert worth(create_reward(f"{module}:cubic:penalty=1"), 0, -1, 0.5, 2) == pytest.approx(-1 - 0.25)
    assert not create_reward(f"{module}:cubic").pays_by_step
    with pytest.raises(
        UserError, match="unknown parameter of reward shapes_of_mine:cubic 'penalti'; did you mean penalty"
    ):
        create_reward(f"{module}:cubic:penalti=1")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("generous", "rises with compute at a share of 0.01"),
        ("broken", "failed: AttributeError"),
        ("single", r"single returned the shape \(\) for images of shape \(\d+,\): it must return one float an image"),
        ("endless", "endless returned inf at share 0, price 0, correct 1, log_prob 0, confidence 1: it must be finite"),
        ("boolean", r"boolean returned torch.bool: it must return floats \(.float\(\)"),
        ("number", "number returned a float: it must return a tensor"),
    ],
)
def test_a_users_function_that_is_no_reward_is_refused(module: str, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_reward(f"{module}:{function}")


def test_a_reward_without_a_gradient_needs_an_estimator_without_one(module: str) -> None:
    shape = f"{module}:abrupt"
    with pytest.raises(UserError, match="has no finite gradient by what it judges"):
        ReinforceConfig(reward=shape, cost_gradient="sampled", control_variate="first-order", baseline="batch-mean")
    with pytest.raises(UserError, match="has no finite gradient by what it judges"):
        ReinforceConfig(reward=shape, cost_gradient="sampled", control_variate="none", baseline="mean-field")
    ReinforceConfig(reward=shape, cost_gradient="sampled", control_variate="none", baseline="batch-mean")
    assert all(is_smooth(create_reward(name)) for name in reward_names() if not name.startswith("test"))


def test_a_shape_that_says_that_it_pays_by_step_must_be_linear_in_compute() -> None:
    @register_reward("test-cubic")
    @dataclass(frozen=True)
    class Cubic(Reward):
        pays_by_step: ClassVar[bool] = True

        def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
            return judged.correct - price * share**3

    with pytest.raises(UserError, match=r"pays by step, but is not task - price \* share at share 0\.01, price 0\.03"):
        create_reward("test-cubic")


def test_a_shape_may_pay_by_step_in_double_precision() -> None:
    @register_reward("test-double")
    @dataclass(frozen=True)
    class Double(Reward):
        pays_by_step: ClassVar[bool] = True

        def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
            return judged.correct.double() - price.double() * share.double()

    assert worth(create_reward("test-double"), 1, -1, 0.5, 1) == pytest.approx(0.5)


def test_a_registered_shape_has_a_name() -> None:
    @register_reward("test-halved")
    @dataclass(frozen=True)
    class Halved(Reward):
        factor: float = 0.5

        def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
            return self.factor * judged.correct - price * share

    assert worth(create_reward("test-halved:factor=0.25"), 1, -1, 0.5, 1) == pytest.approx(-0.25)
    assert "test-halved" in reward_names()
    register_reward("test-halved")(Halved)
    with pytest.raises(UserError, match="there already is a reward 'linear'"):
        register_reward("linear")(Halved)
    with pytest.raises(UserError, match="a reward's name is a word"):
        register_reward("my:reward")


def test_a_built_in_shape_is_tried_once_and_a_users_own_whenever_it_is_asked_for(module: str) -> None:
    built_in, mine = create_reward("quadratic:penalty=0.125"), create_reward(f"{module}:cubic")
    assert create_reward("quadratic:penalty=0.125") is built_in
    assert create_reward("quadratic:penalty=0.25") != built_in
    assert create_reward(f"{module}:cubic") == mine
    sys.modules[module].cubic.__defaults__ = (math.inf,)
    with pytest.raises(UserError, match="cubic returned"):
        create_reward(f"{module}:cubic")


def test_a_judgement_is_correctness_minus_the_cross_entropy_and_the_largest_probability() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    seen = judge(logits, labels)
    torch.testing.assert_close(-seen.log_prob, F.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(seen.confidence, logits.softmax(1).amax(1))
    assert seen.correct.tolist() == [float(row.argmax() == label) for row, label in zip(logits, labels, strict=True)]
    assert 0 < seen.correct.sum() < 50


def test_passes_are_judged_by_the_labels_of_their_images() -> None:
    logits = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    together, alone = judge(logits, labels), [judge(one, labels) for one in logits]
    for name in ("correct", "log_prob", "confidence"):
        assert torch.equal(getattr(together, name), torch.stack([getattr(one, name) for one in alone]))


def test_a_judgement_of_bfloat16_logits_is_float32() -> None:
    seen = judge(torch.tensor([[2.0, 0, 0]]).bfloat16(), torch.tensor([0]))
    assert seen.correct.dtype == seen.log_prob.dtype == seen.confidence.dtype == torch.float32
    assert seen.log_prob.item() == pytest.approx(2 - math.log(math.exp(2) + 2), rel=1e-5)
