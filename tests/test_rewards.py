"""Reward shapes: monotone in compute, equal to their formulas, and parameterised from text."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.errors import UserError
from lcnet_rl.rewards import REWARDS, Confidence, Linear, Quadratic, create_reward, judge

SHARES = st.floats(0, 1.5, width=32)
LOG_PROBS = st.floats(-50, 0, width=32)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("name", REWARDS)
@settings(max_examples=60, deadline=None)
@given(st.booleans(), LOG_PROBS, SHARES, SHARES, st.floats(0, 5, width=32))
def test_at_equal_correctness_a_reward_never_rises_with_compute(
    name: str, correct: bool, log_prob: float, share: float, other: float, price: float
) -> None:
    less, more = sorted((share, other))
    pair = create_reward(name)(t(correct, correct), t(log_prob, log_prob), t(less, more), t(price, price))
    assert pair[1] <= pair[0]


@pytest.mark.parametrize("name", REWARDS)
@settings(max_examples=30, deadline=None)
@given(LOG_PROBS, SHARES, st.floats(0, 5, width=32))
def test_at_equal_compute_a_right_answer_is_never_worth_less(
    name: str, log_prob: float, share: float, price: float
) -> None:
    # Up to price * share^2 = 1 + penalty, beyond which BlockDrop's shape would rather be wrong.
    reward, price = create_reward(name), min(price, 2 / max(share, 1) ** 2)
    wrong, right = reward(t(0, 1), t(log_prob, log_prob), t(share, share), t(price, price))
    assert wrong <= right + 1e-5


@pytest.mark.parametrize("name", [name for name in REWARDS if create_reward(name).pays_by_step])
@settings(max_examples=30, deadline=None)
@given(st.booleans(), LOG_PROBS, SHARES, st.floats(0, 5, width=32))
def test_a_shape_that_pays_by_step_is_its_task_minus_the_price_of_the_share(
    name: str, correct: bool, log_prob: float, share: float, price: float
) -> None:
    reward = create_reward(name)
    task = reward(t(correct), t(log_prob), t(0), t(price))
    whole = reward(t(correct), t(log_prob), t(share), t(price))
    torch.testing.assert_close(whole, task - t(price) * t(share), rtol=1e-5, atol=1e-5)


def test_linear_is_correctness_minus_the_price_of_the_share() -> None:
    assert Linear()(t(1, 0), t(-0.1, -3), t(0.5, 0.5), t(0.4, 0.4)).tolist() == pytest.approx([0.8, -0.2])


def test_quadratic_is_blockdrops_reward() -> None:
    # Wu et al., 2018: 1 - (share kept)^2 for a right prediction, -gamma for a wrong one.
    rewards = Quadratic(penalty=0.7)(t(1, 1, 0, 0), t(-1, -1, -1, -1), t(0.5, 1, 0.5, 1), t(1, 1, 1, 1))
    assert rewards.tolist() == pytest.approx([1 - 0.25, 0, -0.7, -0.7])


def test_confidence_is_the_floored_log_probability_minus_the_price_of_the_share() -> None:
    rewards = Confidence(floor=2)(t(1, 0), t(-0.5, -9), t(0.5, 0.5), t(0.2, 0.2))
    assert rewards.tolist() == pytest.approx([-0.6, -2.1])


@pytest.mark.parametrize("name", REWARDS)
def test_the_smooth_task_of_a_certain_right_answer_is_the_free_reward(name: str) -> None:
    reward = create_reward(name)
    certain, wrong = t(0.0), t(-60.0)
    torch.testing.assert_close(reward.smooth_task(certain), reward(t(1), certain, t(0), t(1)))
    torch.testing.assert_close(reward.smooth_task(wrong), reward(t(0), wrong, t(0), t(1)))


@pytest.mark.parametrize("name", REWARDS)
def test_the_smooth_task_rises_with_the_probability_and_has_a_gradient(name: str) -> None:
    log_prob = torch.linspace(-4, -0.01, 20, requires_grad=True)
    task = create_reward(name).smooth_task(log_prob)
    assert (task.diff() > 0).all()
    task.sum().backward()
    assert log_prob.grad is not None
    assert (log_prob.grad > 0).all()


def test_a_shape_is_made_from_its_name_and_parameters() -> None:
    assert create_reward("linear") == Linear()
    assert create_reward("quadratic") == Quadratic(1.0)
    assert create_reward("quadratic:penalty=0.5") == Quadratic(0.5)
    assert create_reward("confidence:floor=2e0") == Confidence(2.0)
    assert create_reward("quadratic:penalty=0") == Quadratic(0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linaer", "unknown reward 'linaer'; did you mean linear"),
        ("", "unknown reward ''; known: confidence, linear, quadratic"),
        ("quadratic:penalti=1", "unknown parameter of reward quadratic 'penalti'; did you mean penalty"),
        ("linear:penalty=1", "unknown parameter of reward linear 'penalty'"),
        ("quadratic:penalty=-1", "penalty must be >= 0, got -1"),
        ("quadratic:penalty=nan", "penalty must be >= 0, got nan"),
        ("quadratic:penalty=much", "penalty must be a number, got 'much'"),
        ("quadratic:penalty", "penalty must be a number, got ''"),
    ],
)
def test_a_wrong_name_parameter_or_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        create_reward(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parameter_that_would_make_rewards_no_numbers_is_refused() -> None:
    with pytest.raises(UserError):
        create_reward("quadratic:penalty=inf")


def test_a_judgement_is_correctness_and_minus_the_cross_entropy() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    correct, log_prob = judge(logits, labels)
    torch.testing.assert_close(-log_prob, F.cross_entropy(logits, labels, reduction="none"))
    assert correct.tolist() == [float(row.argmax() == label) for row, label in zip(logits, labels, strict=True)]
    assert 0 < correct.sum() < 50


def test_a_judgement_of_bfloat16_logits_is_float32() -> None:
    correct, log_prob = judge(torch.tensor([[2.0, 0, 0]]).bfloat16(), torch.tensor([0]))
    assert correct.dtype == log_prob.dtype == torch.float32
    assert log_prob.item() == pytest.approx(2 - math.log(math.exp(2) + 2), rel=1e-5)
