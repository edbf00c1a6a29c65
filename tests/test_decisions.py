"""Decisions by themselves, on cost tables that no network has."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcnet_rl.decisions import Decisions
from lcnet_rl.macs import BlockCost, CostTable


def small(has_l_net: bool = True, groups: tuple[int, ...] = (2, 2, 2)) -> Decisions:
    """About three blocks of 4, 8 and 16 filters."""
    blocks = BlockCost(0, 700, 4, 30, 50), BlockCost(90, 500, 8, 30, 80), BlockCost(0, 400, 16, 40, 120)
    return Decisions(CostTable(1000, blocks, 60, skips_blocks=has_l_net), groups)


@st.composite
def any_decisions(draw: st.DrawFn) -> Decisions:
    """About up to three blocks, of which some may be networks behind."""
    macs = st.integers(0, 2**40)
    has_l_net = draw(st.booleans())
    blocks, counts = [], []
    for _ in range(draw(st.integers(1, 3))):
        groups, each = draw(st.integers(0 if has_l_net else 1, 3)), draw(st.integers(1, 4))
        blocks.append(BlockCost(draw(macs), draw(macs), max(groups, 1) * each, draw(macs), draw(macs)))
        counts.append(groups)
    return Decisions(CostTable(draw(macs), tuple(blocks), draw(macs), draw(macs), has_l_net), tuple(counts))


@settings(max_examples=50)
@given(any_decisions(), st.integers(0, 2**31), st.floats(0, 1))
def test_a_bill_is_linear_in_every_bit(decisions: Decisions, seed: int, share: float) -> None:
    action = torch.rand(1, decisions.action_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for block, bit in itertools.product(range(decisions.depth), range(decisions.action_size)):
        bills = []
        for value in (0.0, 1.0, share):
            action[0, bit] = value
            bills.append(decisions.bill(action, block).item())
        assert bills[2] == pytest.approx((1 - share) * bills[0] + share * bills[1], rel=1e-12)
        assert bills[0] <= bills[1]


@settings(max_examples=50)
@given(any_decisions(), st.integers(0, 2**31))
def test_rows_about_different_blocks_are_asked_as_each_block_is(decisions: Decisions, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, decisions.depth, (8,), generator=generator)
    action = torch.randint(0, 2, (8, decisions.action_size), generator=generator).float()
    asked = [decisions.consulted(row[None], block) for row, block in zip(action, blocks.tolist(), strict=True)]
    assert torch.equal(decisions.consulted(action, blocks), torch.cat(asked))
    for row, block in zip(asked, blocks.tolist(), strict=True):
        assert not row[0, decisions.bits[block] :].any()


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_bill_of_keep_probabilities_is_the_expected_bill(block: int) -> None:
    decisions = small(groups=(4, 4, 4))
    p = torch.tensor([0.7, 0.1, 0.5, 0.9, 0.3], dtype=torch.float64)
    expected = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=5):
        action = torch.tensor(bits, dtype=torch.float64)
        expected += float((p * action + (1 - p) * (1 - action)).prod() * decisions.bill(action[None], block)[0])
    assert decisions.bill(p[None], block).item() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50)
@given(any_decisions(), st.integers(0, 2**31))
def test_a_path_costs_what_its_one_spelling_costs_between_floor_and_ceiling(decisions: Decisions, seed: int) -> None:
    shape = (decisions.depth, 8, decisions.action_size)
    actions = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()
    executed = decisions.executed(actions)
    assert torch.equal(decisions.path_bill(executed), decisions.path_bill(actions))
    assert torch.equal(decisions.executed(executed), executed)
    assert not executed[~decisions.action_mask[:, None].expand_as(executed)].any()
    for all_bits, bill in ((0, decisions.costs.floor), (1, decisions.costs.ceiling)):
        assert (decisions.path_bill(torch.full(shape, float(all_bits))) == bill).all()


@pytest.mark.parametrize(
    ("has_l_net", "groups", "bits"),
    [
        (True, (0, 0, 0), (1, 1, 1)),
        (False, (2, 2, 2), (2, 2, 2)),
        (False, (4, 8, 16), (4, 8, 16)),
        (True, (4, 8, 16), (5, 9, 17)),
        (True, (2, 2, 0), (3, 3, 1)),
    ],
)
def test_an_action_has_room_for_the_block_with_the_most_bits(
    has_l_net: bool, groups: tuple[int, ...], bits: tuple[int, ...]
) -> None:
    decisions = small(has_l_net, groups)
    assert decisions.bits == bits
    assert decisions.action_size == max(bits)
    assert decisions.action_mask.sum(1).tolist() == [*bits]


def test_kept_reports_blocks_and_shares_of_filters() -> None:
    ran, shares = small().kept(torch.tensor([[[1.0, 1, 0]], [[0, 1, 1]], [[1, 1, 1]]]))
    assert ran[:, 0].tolist() == [1, 0, 1]
    assert shares[:, 0].tolist() == [0.5, 0, 1]
