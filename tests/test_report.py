"""An evaluation's statistics, by hand."""

from __future__ import annotations

import pytest
import torch
from networks import images, lively
from torch import Tensor

from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import Results
from lcnet_rl.report import gain_over, looks_at_image, per_class, rank_correlation, rewarded, summarize

MODEL = lively(width=4, groups=2)


def results(correct: list[int], macs: list[float] | None = None, actions: Tensor | None = None) -> Results:
    count, bills = len(correct), torch.tensor(macs or [0.0] * len(correct), dtype=torch.float64)
    nothing = torch.zeros(count)
    shares = bills / MODEL.costs.dense
    actions = torch.zeros(MODEL.depth, count, MODEL.action_size) if actions is None else actions
    return Results(nothing.long(), torch.tensor(correct).float(), nothing, nothing, bills, shares, actions)


def data(labels: list[int], difficulty: list[float] | None = None) -> Dataset:
    hard = None if difficulty is None else torch.tensor(difficulty)
    return Dataset("noise", "val", images(len(labels)), torch.tensor(labels), ("a", "b", "c"), hard)


def test_a_gain_comes_with_the_standard_error_of_the_mean_difference() -> None:
    # Differences 0, 1, 0, 1: their mean is 1/2, their standard deviation 1/2, that of the mean of four 1/2 / sqrt(4).
    assert gain_over(results([1, 1, 0, 1]), results([1, 0, 0, 0])) == (0.5, 0.25)
    # Differences -1, 0, 0: mean -1/3, variance 2/9; images that both get wrong or right count too.
    assert gain_over(results([0, 1, 0]), results([1, 1, 0])) == pytest.approx((-1 / 3, (2 / 9 / 3) ** 0.5))


@pytest.mark.parametrize(("gain", "looks"), [(0.021, True), (0.02, False), (-0.021, False)])
def test_a_policy_looks_at_the_image_if_it_gains_more_than_two_standard_errors(gain: float, looks: bool) -> None:
    assert looks_at_image({"gain_over_shuffled": gain, "gain_over_shuffled_error": 0.01}) == looks


@pytest.mark.parametrize(
    ("macs", "expected"),
    [([1, 20, 300, 4000], 1.0), ([9, 8, 7, -5], -1.0), ([5, 5, 5, 5], 0.0), ([1, 20, 4000, 300], 0.8)],
)
def test_the_rank_correlation_looks_at_the_order_alone(macs: list[float], expected: float) -> None:
    # Of four ranks with differences d, it is 1 - 6 sum(d^2) / (4 (4^2 - 1)).
    difficulty = torch.tensor([0.1, 0.2, 0.3, 0.9])
    assert rank_correlation(torch.tensor(macs, dtype=torch.float64), difficulty) == pytest.approx(expected)


def test_every_class_that_has_images_has_its_own_accuracy_and_share() -> None:
    dense = MODEL.costs.dense
    found = per_class(data([2, 0, 2, 2]), results([1, 0, 1, 0], [0.1 * dense, 0.5 * dense, 0.2 * dense, 0.6 * dense]))
    assert found.keys() == {"a", "c"}, "nothing is known of b"
    assert found["a"] == pytest.approx({"accuracy": 0.0, "macs_ratio": 0.5})
    assert found["c"] == pytest.approx({"accuracy": 2 / 3, "macs_ratio": 0.3})


def test_a_summarys_figures_are_those_of_a_hand_count() -> None:
    actions = torch.zeros(MODEL.depth, 5, MODEL.action_size)
    actions[0, 1:3] = 1  # two images share a path, two have their own, one runs nothing
    actions[2, 3, :2] = 1
    actions[1, 4, :2] = 1
    policy = results([1, 1, 0, 1, 0], [50.0, 10, 30, 20, 40], actions)
    control = results([1, 0, 0, 0, 1], [30.0] * 5)
    static = results([1, 1, 1, 1, 0], [30.0] * 5)
    controls = {"shuffled": control, "static": static}
    summary = summarize(MODEL, data([0] * 5, [0.5, 0.1, 0.3, 0.2, 0.4]), policy, 0.75, controls)
    assert (summary["correct"], summary["images"], summary["accuracy"]) == (3, 5, pytest.approx(0.6))
    assert summary["distinct_paths"] == 4
    assert summary["macs_mean"] == 30
    assert summary["macs_std"] == pytest.approx(200**0.5)
    assert summary["macs_ratio"] == pytest.approx(30 / MODEL.costs.dense)
    # Of 10, 20, 30, 40, 50, which are 0, 25, 50, 75 and 100 %, and straight lines between them.
    expected = {"5%": 12.0, "25%": 20.0, "50%": 30.0, "75%": 40.0, "95%": 48.0}
    assert summary["macs_percentiles"] == pytest.approx(expected)
    assert summary["kept_blocks"] == pytest.approx([0.4, 0.2, 0.2])
    assert summary["kept_filters"] == pytest.approx([0.4, 0.1, 0.1])
    # Differences 0, 1, 0, 1, -1: mean 1/5, variance 3/5 - 1/25.
    assert summary["gain_over_shuffled"] == pytest.approx(0.2)
    assert summary["gain_over_shuffled_error"] == pytest.approx((0.56 / 5) ** 0.5)
    # Differences 0, 0, -1, 0, 0: mean -1/5, variance 1/5 - 1/25.
    assert summary["gain_over_static"] == pytest.approx(-0.2)
    assert summary["gain_over_static_error"] == pytest.approx((0.16 / 5) ** 0.5)
    assert "gain_over_keep_all" not in summary
    assert summary["controls"]["shuffled"]["accuracy"] == pytest.approx(0.4)
    assert summary["difficulty_correlation"] == pytest.approx(1.0)


def test_rewards_are_those_of_the_shape_at_the_price() -> None:
    dense = MODEL.costs.dense
    policy, control = results([1, 1, 0, 1], [0.5 * dense] * 4), results([1, 1, 1, 1], [dense] * 4)
    summary = summarize(MODEL, data([0] * 4), policy, 0.75, {"keep-all": control})
    assert summary["gain_over_keep_all"] == pytest.approx(-0.25)
    summary = rewarded(summary, "linear", 0.3, policy, {"keep-all": control})
    assert summary["mean_reward"] == pytest.approx(0.75 - 0.3 * 0.5)
    assert summary["controls"]["keep-all"]["mean_reward"] == pytest.approx(1 - 0.3)
    assert summary["controls"]["keep-all"]["accuracy"] == 1
