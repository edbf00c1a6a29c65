"""Controls: decisions that a policy must beat before anyone may say that it looks at the image.

Each is a set of actions (depth, N, action_size) to run through the same model, made from the policy's own.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import Results, evaluate, recalibrate
from lcnet_rl.model import LCNet

CONTROLS = ("keep-all", "random", "shuffled", "static")


def keep_all(actions: Tensor) -> Tensor:
    """Everything runs, for every image."""
    return torch.ones_like(actions)


def random(actions: Tensor, seed: int) -> Tensor:
    """Every bit drawn by itself, at the rate at which the policy keeps it."""
    rates = actions.mean(1, keepdim=True).expand_as(actions)
    return torch.bernoulli(rates, generator=torch.Generator().manual_seed(seed))


def shuffled(actions: Tensor, seed: int) -> Tensor:
    """Each image gets the decisions made for another image: the same paths, the same cost, but not looking."""
    count = actions.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    # Along one random cycle, so that (with two images or more) none keeps its own.
    partner[order] = order.roll(1)
    return actions[:, partner]


def static_paths(model: LCNet, actions: Tensor, budget: float, candidates: int, seed: int) -> list[Tensor]:
    """Single paths for all images that cost at most ``budget`` MACs, made from the policy's keep rates.

    The first is the policy's commonest path, if it fits. The second keeps the bits that the policy keeps most often,
    in that order, as far as the budget allows. The others add noise to the rates before ordering.

    Args:
        model: its cost table decides what fits.
        actions: the policy's, (depth, N, action_size).
        budget: MACs of a whole image.
        candidates: how many paths to order bits for.
        seed: of the noise.

    Returns:
        Paths (depth, 1, action_size), without duplicates.
    """
    generator = torch.Generator().manual_seed(seed)
    rates = actions.mean(1)
    noise = 0.15 * torch.randn((candidates, *rates.shape), generator=generator)
    noise[0] = 0
    every, counts = torch.unique(actions.transpose(0, 1).flatten(1), dim=0, return_counts=True)
    commonest = every[counts.argmax()].view(model.depth, 1, model.action_size)
    paths = [commonest] if bill_of(model, commonest) <= budget else []
    for jitter in noise:
        path = fill(model, rates + jitter, budget)
        if not any(torch.equal(path, other) for other in paths):
            paths.append(path)
    return paths


def fill(model: LCNet, priority: Tensor, budget: float) -> Tensor:
    """The path (depth, 1, action_size) that keeps bits in order of ``priority`` (depth, action_size) within ``budget``
    MACs."""
    path = torch.zeros(model.depth, 1, model.action_size)
    mask = model.action_mask.cpu()
    first = int(model.has_l_net)
    for index in priority.flatten().argsort(descending=True, stable=True).tolist():
        block, bit = divmod(index, model.action_size)
        if not mask[block, bit]:
            continue
        trial = path.clone()
        trial[block, 0, bit] = 1
        if model.has_l_net and bit >= first:
            trial[block, 0, 0] = 1  # a filter without its block would be no filter
        if bill_of(model, trial) <= budget:
            path = trial
    return path


def bill_of(model: LCNet, path: Tensor) -> float:
    """MACs of a whole image on ``path`` (depth, 1, action_size), gates included."""
    blocks = sum(float(model.bill(action, t)) for t, action in enumerate(path))
    return model.costs.stem + model.costs.head + blocks


def run_controls(
    model: LCNet,
    dataset: Dataset,
    policy: Results,
    train: Dataset,
    val: Dataset,
    device: torch.device,
    seed: int = 0,
    candidates: int = 8,
) -> dict[str, Results]:
    """All controls on ``dataset``, at the cost of the policy's own results there.

    The static path may cost 2 % more than the policy. It is the best of about ``candidates`` on validation images, with
    BatchNorm recalibrated for it on training images, so it is the fairest static subnetwork of this model that a
    short search finds.
    """
    actions = policy.actions
    results = {
        "keep-all": evaluate(model, dataset, keep_all(actions), device),
        "random": evaluate(model, dataset, random(actions, seed), device),
        "shuffled": evaluate(model, dataset, shuffled(actions, seed), device),
    }
    judges = val.subset(torch.arange(min(1000, len(val))))
    best: tuple[float, Tensor, LCNet] | None = None
    for path in static_paths(model, actions, 1.02 * float(policy.macs.mean()), candidates, seed):
        static = copy.deepcopy(model)
        recalibrate(static, train, path, device, images=1000)
        accuracy = evaluate(static, judges, path.expand(-1, len(judges), -1), device).accuracy
        if best is None or accuracy > best[0]:
            best = (accuracy, path, static)
    assert best is not None
    _, path, static = best
    recalibrate(static, train, path, device)
    results["static"] = evaluate(static, dataset, path.expand(-1, len(dataset), -1), device)
    return results
