"""Warnings about policies that collapse or miss their target."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import lively
from test_agents_runs import noise, setup_in
from torch import Tensor

from agents.alarms import COLLAPSED, MISSED, warn_if_collapsed, warn_if_missed, warn_if_price_is_idle
from agents.pricing import PricingConfig
from agents.validation import Validation
from lcnet_rl.evaluate import evaluate, spread_prices
from lcnet_rl.rewards import Judgement, PriceRange, register_reward


@pytest.mark.parametrize(("spread", "warned"), [(0.0, True), (0.9 * COLLAPSED, True), (1.1 * COLLAPSED, False)])
def test_decisions_that_are_the_same_for_all_images_are_called_collapsed(
    spread: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warn_if_collapsed(7, spread, 0.7) == warned
    assert ("step 7: collapsed" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(("share", "advice"), [(1.0006, "a higher --price"), (0.1, "a lower --price")])
def test_what_to_do_about_collapsed_decisions_hangs_on_what_they_keep(
    share: float, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_collapsed(7, 0.0002, share)
    said = " ".join(capsys.readouterr().out.split())
    assert advice in said
    assert f"spend {share:.1%} of dense MACs, give or take 0.02%" in said


@pytest.mark.parametrize(("ranged", "advice"), [(False, "or a --target,"), (True, "or a longer training (--epochs),")])
def test_no_target_is_advised_for_a_range_of_prices(
    ranged: bool, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_collapsed(7, 0.0, 1.0, ranged=ranged)
    assert advice in " ".join(capsys.readouterr().out.split())


def test_with_a_target_the_price_is_not_the_users_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    warn_if_collapsed(7, 0.0, 1.0, target=0.6)
    said = " ".join(capsys.readouterr().out.split())
    assert "a larger --gate-lr" in said
    assert "--price" not in said


def flat(judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
    return judged.correct - 0.3 * share


@pytest.mark.parametrize(("reward", "warned"), [("test-flat", True), ("linear", False), ("budget", False)])
def test_a_price_that_changes_nothing_is_told_before_training(
    reward: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    register_reward("test-flat")(flat)
    assert warn_if_price_is_idle(reward) == warned
    said = capsys.readouterr().out
    assert ("reward test-flat charges the same at all prices" in said) == warned
    assert bool(said) == warned


def test_no_other_price_is_advised_where_it_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_reward("test-flat")(flat)
    model = lively("resnet8", "layers")
    for gate in model.l_nets:
        gate.keep.weight.data.zero_()
    validation = Validation(model, PricingConfig(reward="test-flat"), setup_in(tmp_path))
    validation.validate(PriceRange(0.3, 0.3), 1, settled=True)
    said = capsys.readouterr().out
    assert "collapsed" in said
    assert "--reward" in said
    assert "--price" not in said


@pytest.mark.parametrize(
    ("share", "target", "warned"),
    [
        (0.6 + 1.1 * MISSED, 0.6, True),
        (0.6 - 1.1 * MISSED, 0.6, True),
        (0.6 + 0.9 * MISSED, 0.6, False),
        (0.9, None, False),
    ],
)
def test_a_share_far_from_the_target_is_told(
    share: float, target: float | None, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warn_if_missed(share, target) == warned
    assert ("the target of 60.0%" in " ".join(capsys.readouterr().out.split())) == warned


def test_a_policy_that_looks_at_its_price_alone_has_collapsed(tmp_path: Path) -> None:
    prices, val, cpu = PriceRange(0.1, 0.9), noise(64, "val"), torch.device("cpu")
    model = lively("resnet8", "layers", prices=prices)
    for gate in model.l_nets:
        gate.keep.weight.data.zero_()
        gate.keep.bias.data.zero_()
        gate.keep.weight.data[:, -1] = -1
    unlike = evaluate(model, val, model.greedy(), cpu, prices=spread_prices(prices, len(val)))
    assert unlike.spread > 0.1, "some images run all, others nothing"
    validation = Validation(model, PricingConfig(price="0.1..0.9"), setup_in(tmp_path))
    scalars = validation.validate(prices, 1, settled=True)
    assert (scalars["eval/macs_spread"], scalars["eval/collapsed"]) == (0, 1)


def test_that_decisions_have_collapsed_is_said_on_one_line_and_again_only_after_they_had_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collapsed, varied = (lively("resnet8", "layers") for _ in range(2))
    for gate in collapsed.l_nets:
        gate.keep.weight.data.zero_()
    validation = Validation(collapsed, PricingConfig(), setup_in(tmp_path))
    logged = []
    for step, model in enumerate((collapsed, collapsed, varied, collapsed)):
        validation.model = model
        logged.append(validation.validate(PriceRange(0.3, 0.3), step, settled=True)["eval/collapsed"])
    assert logged == [1, 1, 0, 1]
    said = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["step 0", "step 3"]
