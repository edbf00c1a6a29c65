"""Running statistics that are frozen, restored or fresh while a network runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest
import torch
from networks import images, lively
from torch import nn

from lcnet_rl.batchnorm import batch_norms, fresh_statistics, frozen_statistics, restored_statistics

Context = Callable[[Sequence[nn.BatchNorm2d]], AbstractContextManager[None]]


def norms() -> tuple[nn.Sequential, list[nn.BatchNorm2d]]:
    """A network in train mode that has seen something, and its BatchNorms, each of another momentum."""
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.1), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=None))
    network(pictures(0))
    return network, batch_norms(network)


def pictures(seed: int) -> torch.Tensor:
    return 1 + torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))


def test_the_batchnorms_of_a_network_come_in_its_order() -> None:
    network, found = norms()
    assert found == [network[0], network[2]]


def test_frozen_statistics_do_not_move_and_the_batchs_are_used() -> None:
    (network, found), x = norms(), pictures(1)
    before, expected = copy.deepcopy(found), copy.deepcopy(network)(x)
    with frozen_statistics(found):
        assert torch.equal(network(x), expected)
        for was, now in zip(before, found, strict=True):
            assert torch.equal(was.running_mean, now.running_mean)
            assert torch.equal(was.running_var, now.running_var)


def test_restored_statistics_move_and_are_as_before_in_the_end() -> None:
    (network, found), x = norms(), pictures(1)
    before = copy.deepcopy(found)
    with restored_statistics(found):
        network(x)
        assert not torch.equal(before[0].running_mean, found[0].running_mean)
    for was, now in zip(before, found, strict=True):
        assert all(torch.equal(value, now.state_dict()[name]) for name, value in was.state_dict().items())


def test_fresh_statistics_are_the_mean_over_the_batches_inside() -> None:
    (network, found), batches = norms(), [pictures(seed) for seed in (1, 2, 3)]
    with fresh_statistics(found):
        for x in batches:
            network(x)
    torch.testing.assert_close(found[0].running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(found[0].running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))


@pytest.mark.parametrize("context", [frozen_statistics, restored_statistics, fresh_statistics])
def test_every_momentum_is_its_own_again_however_it_ends(context: Context) -> None:
    _, found = norms()
    with pytest.raises(KeyboardInterrupt), context(found):
        raise KeyboardInterrupt
    assert [norm.momentum for norm in found] == [0.1, None]


def test_a_pass_with_a_networks_statistics_frozen_counts_for_the_gates_neither() -> None:
    model = lively(width=4).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "num_batches" not in name}

    def moved() -> list[str]:
        return [name for name, value in before.items() if not torch.equal(model.state_dict()[name], value)]

    with model.statistics_frozen():
        model.run(images(4), model.keep_everything)
    assert not moved()
    model.run(images(4), model.keep_everything)
    assert {name.rsplit(".")[-1] for name in moved()} == {"running_mean", "running_var", "mean", "var", "count"}
