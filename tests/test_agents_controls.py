"""The controls are what they say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from networks import balance, lively
from networks import images as noise
from test_decisions import small

from agents import controls
from agents.controls import fill, keep_all, random, run_controls, shuffled, static_paths, without_policy
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import evaluate, recalibrate
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange

CPU = torch.device("cpu")


def actions(images: int = 400) -> torch.Tensor:
    rates = torch.tensor([[0.9, 0.2, 0.7], [0.5, 0.5, 0.1], [0.3, 1.0, 0.0]])[:, None].expand(-1, images, -1)
    return torch.bernoulli(rates, generator=torch.Generator().manual_seed(0))


def network() -> LCNet:
    return LCNet(create_backbone("resnet8", 4, 4), "both", groups=2).eval()


def test_keep_all_keeps_everything() -> None:
    assert (keep_all(actions()) == 1).all()


def test_random_keeps_every_bit_at_the_policys_rate_but_for_other_images() -> None:
    decisions = small()
    policy = actions(4000)
    policy[1, :, 1:] = policy[1, :, :1]  # C-Net of block 1 keeps all where L-Net keeps the block
    policy = decisions.executed(policy)
    drawn = random(decisions, policy, seed=1)
    assert torch.allclose(drawn.mean(1), policy.mean(1), atol=0.04)
    assert not torch.equal(drawn, policy)
    assert torch.equal(drawn, random(decisions, policy, seed=1))
    bills = [sum(float(decisions.bill(a, t).mean()) for t, a in enumerate(path)) for path in (policy, drawn)]
    assert abs(bills[1] / bills[0] - 1) < 0.05, "the same cost"


def test_executed_actions_run_the_same_path() -> None:
    model = network()
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw = actions(6)
    executed = model.decisions.executed(raw)
    one, other = (model.run(images, lambda seen, path=path: path[seen.block]) for path in (raw, executed))
    assert not torch.equal(raw, executed)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.macs, other.macs)


def test_no_block_of_a_filled_path_runs_without_a_filter() -> None:
    decisions = small()
    path = fill(decisions, actions().mean(1), 0.5 * decisions.costs.dense)
    assert ((path[..., 1:].sum(-1) > 0) == (path[..., 0] > 0)).all()


def test_shuffled_gives_every_image_the_whole_path_of_another() -> None:
    numbered = torch.arange(50.0).expand(3, 50)[..., None]
    mixed = shuffled(numbered, seed=0)
    assert torch.equal(mixed[0, :, 0].sort().values, torch.arange(50.0))
    assert (mixed != numbered).all()
    assert torch.equal(mixed[0], mixed[2]), "paths stay whole"


def test_static_paths_stay_within_the_budget_and_use_it() -> None:
    decisions = small()
    budget = 0.6 * decisions.costs.dense
    paths = static_paths(decisions, actions(), budget, candidates=6, seed=0)
    assert len(paths) > 1
    assert all(decisions.path_bill(path) <= budget for path in paths)
    dearest_filter = max(cost.filter * cost.filters // 2 + cost.if_kept for cost in decisions.costs.blocks)
    filled = fill(decisions, actions().mean(1), budget)
    assert decisions.path_bill(filled) > budget - dearest_filter


def test_the_bill_of_a_static_path_is_what_running_it_costs() -> None:
    model = network()
    path = fill(model.decisions, actions().mean(1), 0.7 * model.costs.dense)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    outcome = model.run(images, lambda seen: path[seen.block].expand(2, -1))
    assert outcome.macs.tolist() == model.decisions.path_bill(path).tolist() * 2


def test_a_fixed_path_needs_no_rivals_policy_and_is_not_billed_for_it() -> None:
    model = LCNet(create_backbone("resnet8", 4, 4), "layers", confidence=False, policy="blockdrop").eval()
    bare, path = without_policy(model), torch.tensor([1.0, 0, 1]).view(3, 1, 1)
    costs = model.costs
    kept = sum(block.filter * block.filters for block in (costs.blocks[0], costs.blocks[2]))
    bill = bare.decisions.path_bill(path)
    assert bill == costs.stem + kept + costs.head == model.decisions.path_bill(path) - costs.start
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outcomes = [net.run(images, lambda seen: path[seen.block].expand(2, -1)) for net in (bare, model)]
    assert (outcomes[0].macs == bill).all()
    assert torch.equal(outcomes[0].logits, outcomes[1].logits)
    assert without_policy(network()).costs == network().costs, "ours runs its gates for their scales"


def test_a_filter_in_a_static_path_brings_its_block_along() -> None:
    decisions = small()
    priority = torch.zeros(3, 3)
    priority[1, 2] = 1.0
    path = fill(decisions, priority, decisions.costs.stem + decisions.costs.head + 0.4 * decisions.costs.dense)
    assert path[1, 0].tolist()[0] == 1
    assert path[1, 0].tolist()[2] == 1


def test_the_commonest_path_is_the_first_static_one_where_it_fits() -> None:
    # Of the last block's two filter groups the first is kept more often, so no order of rates leads to this path.
    decisions, common = small(), torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 1]])[:, None]
    policy = torch.cat((common.expand(-1, 60, -1), decisions.executed(actions(200))), 1)
    budget = float(decisions.path_bill(common))
    for few, first in ((budget, True), (budget - 1, False)):
        paths = static_paths(decisions, policy, few, candidates=1, seed=0)
        assert torch.equal(paths[0], common) == first
        assert sum(torch.equal(path, common) for path in paths) == first


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls recalibrate on a fiftieth of the images that they usually do."""

    def on_fewer(*arguments: Any, images: int = 4000, **options: Any) -> None:
        recalibrate(*arguments, images=images // 50, **options)

    monkeypatch.setattr(controls, "recalibrate", on_fewer)


def some(count: int, split: str, labels: torch.Tensor | None = None) -> Dataset:
    return Dataset("", split, noise(count), torch.arange(count) % 10 if labels is None else labels, (*"abcdefghij",))


def recalibrated(model: LCNet, decisions: Any, count: int, prices: PriceRange | None = None) -> LCNet:
    changed = copy.deepcopy(model)
    recalibrate(changed, some(100, "train"), decisions, CPU, images=count, prices=prices)
    return changed


@pytest.mark.usefixtures("fewer")
def test_controls_run_what_they_say_with_statistics_of_their_own() -> None:
    model, data = balance(lively(width=4, groups=0), noise(40)), some(40, "test")
    policy, before = evaluate(model, data, model.greedy(), CPU), copy.deepcopy(model.state_dict())
    results = run_controls(model, data, policy, some(100, "train"), some(30, "val"), CPU, seed=3, candidates=1)
    everything = model.decisions.action_mask[:, None].expand_as(policy.actions).float()
    assert torch.equal(results["keep-all"].actions, everything)
    whole = evaluate(recalibrated(model, model.keep_everything, 40), data, model.keep_everything, CPU)
    assert torch.equal(results["keep-all"].log_prob, whole.log_prob)
    assert torch.equal(results["random"].actions, random(model.decisions, policy.actions, 3))
    assert torch.equal(results["shuffled"].actions, model.decisions.executed(shuffled(policy.actions, 3)))
    assert not torch.equal(results["shuffled"].actions, policy.actions)
    assert torch.equal(results["shuffled"].macs.sort().values, policy.macs.sort().values)
    mixed = evaluate(model, data, shuffled(policy.actions, 3), CPU)
    assert torch.equal(results["shuffled"].log_prob, mixed.log_prob), "with the policy's statistics"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("fewer")
def test_controls_see_the_prices_that_the_policy_saw() -> None:
    prices = PriceRange(0.1, 10)
    model, data = balance(lively(width=4, prices=prices), noise(40)), some(40, "test")
    policy = evaluate(model, data, model.greedy(), CPU, prices=prices)
    splits = some(100, "train"), some(30, "val")
    results = run_controls(model, data, policy, *splits, CPU, seed=3, candidates=1, prices=prices)
    mixed = evaluate(model, data, shuffled(policy.actions, 3), CPU, prices=prices)
    assert torch.equal(results["shuffled"].log_prob, mixed.log_prob)
    at_all = recalibrated(model, model.keep_everything, 40, prices)
    whole = evaluate(at_all, data, model.keep_everything, CPU, prices=prices)
    assert torch.equal(results["keep-all"].log_prob, whole.log_prob), "with statistics of these prices"
    at_one = run_controls(model, data, policy, *splits, CPU, seed=3, candidates=1)
    assert all(not torch.equal(result.log_prob, at_one[name].log_prob) for name, result in results.items())


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("winner", range(4))
def test_the_static_control_is_the_path_that_does_best_on_validation_images(winner: int) -> None:
    model, data = balance(lively(width=4), noise(60)), some(60, "test")
    policy = evaluate(model, data, model.greedy(), CPU)
    paths = static_paths(model.decisions, policy.actions, 1.02 * float(policy.macs.mean()), 3, seed=0)
    found = [evaluate(recalibrated(model, path, 20), data, path.expand(-1, 60, -1), CPU).predictions for path in paths]
    val = some(60, "val", found[winner])
    assert sum(torch.equal(val.labels, predictions) for predictions in found) == 1, "the others do worse"
    result = run_controls(model, data, policy, some(100, "train"), val, CPU, seed=0, candidates=3)["static"]
    path = paths[winner].expand(-1, 60, -1)
    assert torch.equal(result.actions, model.decisions.executed(path))
    assert torch.equal(result.log_prob, evaluate(recalibrated(model, path[:, :1], 80), data, path, CPU).log_prob)
