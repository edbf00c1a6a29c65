"""The controls are what they say."""

from __future__ import annotations

import pytest
import torch

from agents.controls import bill_of, fill, keep_all, random, shuffled, static_paths, without_policy
from lcnet_rl.backbones import create_backbone
from lcnet_rl.model import LCNet
from lcnet_rl.spec import Decides


def actions(images: int = 400) -> torch.Tensor:
    rates = torch.tensor([[0.9, 0.2, 0.7], [0.5, 0.5, 0.1], [0.3, 1.0, 0.0]])[:, None].expand(-1, images, -1)
    return torch.bernoulli(rates, generator=torch.Generator().manual_seed(0))


def small() -> LCNet:
    return LCNet(create_backbone("resnet8", 4, 4), "both", groups=2).eval()


def test_keep_all_keeps_everything() -> None:
    assert (keep_all(actions()) == 1).all()


def test_random_keeps_every_bit_at_the_policys_rate_but_for_other_images() -> None:
    model = small()
    policy = actions(4000)
    policy[1, :, 1:] = policy[1, :, :1]  # C-Net of block 1 keeps all where L-Net keeps the block
    policy = model.executed(policy)
    drawn = random(model, policy, seed=1)
    assert torch.allclose(drawn.mean(1), policy.mean(1), atol=0.04)
    assert not torch.equal(drawn, policy)
    assert torch.equal(drawn, random(model, policy, seed=1))
    bills = [sum(float(model.bill(a, t).mean()) for t, a in enumerate(path)) for path in (policy, drawn)]
    assert abs(bills[1] / bills[0] - 1) < 0.05, "the same cost"


@pytest.mark.parametrize("decides", ["layers", "channels", "both"])
def test_controls_of_a_model_on_another_device_are_made_on_the_cpu(decides: Decides) -> None:
    model = LCNet(create_backbone("resnet8", 4, 4), decides, groups=2)
    policy = model.executed(actions()[..., : model.action_size])
    expected = [random(model, policy, seed=1), *static_paths(model, policy, 0.7 * model.costs.dense, 4, seed=0)]
    model.to("meta")
    found = [random(model, policy, seed=1), *static_paths(model, policy, 0.7 * model.costs.dense, 4, seed=0)]
    assert all(map(torch.equal, found, expected))


def test_executed_actions_run_the_same_path() -> None:
    model = small()
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw = actions(6)
    one, other = (model.run(images, lambda seen, path=path: path[seen.block]) for path in (raw, model.executed(raw)))
    assert not torch.equal(raw, model.executed(raw))
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.macs, other.macs)


def test_no_block_of_a_filled_path_runs_without_a_filter() -> None:
    model = small()
    path = fill(model, actions().mean(1), 0.5 * model.costs.dense)
    assert ((path[..., 1:].sum(-1) > 0) == (path[..., 0] > 0)).all()


def test_shuffled_gives_every_image_the_whole_path_of_another() -> None:
    numbered = torch.arange(50.0).expand(3, 50)[..., None]
    mixed = shuffled(numbered, seed=0)
    assert torch.equal(mixed[0, :, 0].sort().values, torch.arange(50.0))
    assert (mixed != numbered).all()
    assert torch.equal(mixed[0], mixed[2]), "paths stay whole"


def test_static_paths_stay_within_the_budget_and_use_it() -> None:
    model = small()
    budget = 0.6 * model.costs.dense
    paths = static_paths(model, actions(), budget, candidates=6, seed=0)
    assert len(paths) > 1
    assert all(bill_of(model, path) <= budget for path in paths)
    dearest_filter = max(cost.filter * cost.filters // 2 + cost.c_net for cost in model.costs.blocks)
    filled = fill(model, actions().mean(1), budget)
    assert bill_of(model, filled) > budget - dearest_filter


def test_the_bill_of_a_static_path_is_what_running_it_costs() -> None:
    model = small()
    path = fill(model, actions().mean(1), 0.7 * model.costs.dense)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    outcome = model.run(images, lambda seen: path[seen.block].expand(2, -1))
    assert outcome.macs.tolist() == [bill_of(model, path)] * 2


def test_a_fixed_path_needs_no_rivals_policy_and_is_not_billed_for_it() -> None:
    model = LCNet(create_backbone("resnet8", 4, 4), "layers", confidence=False, policy="blockdrop").eval()
    bare, path = without_policy(model), torch.tensor([1.0, 0, 1]).view(3, 1, 1)
    costs = model.costs
    kept = sum(block.filter * block.filters for block in (costs.blocks[0], costs.blocks[2]))
    assert bill_of(bare, path) == costs.stem + kept + costs.head == bill_of(model, path) - costs.start
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outcomes = [net.run(images, lambda seen: path[seen.block].expand(2, -1)) for net in (bare, model)]
    assert (outcomes[0].macs == bill_of(bare, path)).all()
    assert torch.equal(outcomes[0].logits, outcomes[1].logits)
    assert without_policy(small()).costs == small().costs, "ours runs its gates for their scales"


def test_a_filter_in_a_static_path_brings_its_block_along() -> None:
    model = small()
    priority = torch.zeros(3, 3)
    priority[1, 2] = 1.0
    path = fill(model, priority, model.costs.stem + model.costs.head + 0.4 * model.costs.dense)
    assert path[1, 0].tolist()[0] == 1
    assert path[1, 0].tolist()[2] == 1
