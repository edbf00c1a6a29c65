"""Controls: decisions that a policy must beat before anyone may say that it looks at the image.

Each is a set of actions (depth, N, action_size) to run through the same model, made from the policy's own.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from lcnet_rl.data import Dataset
from lcnet_rl.decisions import Decisions
from lcnet_rl.evaluate import Results, evaluate, recalibrate
from lcnet_rl.macs import cost_table
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.progress import Progress
from lcnet_rl.rewards import PriceRange


def keep_all(actions: Tensor) -> Tensor:
    """Everything runs, for every image."""
    return torch.ones_like(actions)


def random(decisions: Decisions, actions: Tensor, seed: int) -> Tensor:
    """Every decision drawn by itself, at the rate at which the policy keeps it, C-Net's where the block is kept."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.bernoulli(keep_rates(decisions, actions)[:, None].expand_as(actions), generator=generator)
    return decisions.executed(draws)


def keep_rates(decisions: Decisions, actions: Tensor) -> Tensor:
    """How often the policy keeps each bit when its gate is asked, (depth, action_size), from executed actions."""
    asked = torch.stack([decisions.consulted(action, t) for t, action in enumerate(actions)]).sum(1)
    return actions.sum(1) / asked.clamp(min=1)


def shuffled(actions: Tensor, seed: int) -> Tensor:
    """Each image gets the decisions made for another image: the same paths, the same cost, but not looking."""
    count = actions.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    # Along one random cycle, so that (with two images or more) none keeps its own.
    partner[order] = order.roll(1)
    return actions[:, partner]


def static_paths(decisions: Decisions, actions: Tensor, budget: float, candidates: int, seed: int) -> list[Tensor]:
    """Single paths for all images that cost at most ``budget`` MACs, made from the policy's keep rates.

    The first is the policy's commonest path, if it fits. The second keeps the bits that the policy keeps most often,
    in that order, as far as the budget allows. The others add noise to the rates before ordering.

    Args:
        decisions: their cost table decides what fits.
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
    commonest = every[counts.argmax()].view(decisions.depth, 1, decisions.action_size)
    paths = [commonest] if decisions.path_bill(commonest) <= budget else []
    for jitter in noise:
        path = fill(decisions, rates + jitter, budget)
        if not any(torch.equal(path, other) for other in paths):
            paths.append(path)
    return paths


def fill(decisions: Decisions, priority: Tensor, budget: float) -> Tensor:
    """The path (depth, 1, action_size) that keeps bits by ``priority`` (depth, action_size) within ``budget`` MACs."""
    path = torch.zeros(decisions.depth, 1, decisions.action_size)
    for index in priority.flatten().argsort(descending=True, stable=True).tolist():
        block, bit = divmod(index, decisions.action_size)
        if bit >= decisions.bits[block]:
            continue
        if decisions.has_l_net and decisions.decides_filters(block) and bit < decisions.first_group:
            continue  # a block comes with its first filter group; without any it would do nothing and still ask C-Net
        trial = path.clone()
        trial[block, 0, bit] = 1
        if decisions.has_l_net and bit >= decisions.first_group:
            trial[block, 0, 0] = 1
        if decisions.path_bill(trial) <= budget:
            path = trial
    return path


def without_policy(model: LCNet) -> LCNet:
    """A copy of ``model`` whose bill leaves out a rival's policy, which fixed decisions do not need."""
    fixed = copy.deepcopy(model)
    if fixed.policy is not None:
        costs = cost_table(fixed.backbone, [0] * fixed.depth, [0] * fixed.depth)
        fixed.decisions = replace(fixed.decisions, costs=costs)
    return fixed


def run_controls(
    model: LCNet,
    dataset: Dataset,
    policy: Results,
    train: Dataset,
    val: Dataset,
    device: torch.device,
    seed: int = 0,
    candidates: int = 8,
    prices: PriceRange | None = None,
) -> dict[str, Results]:
    """All controls on ``dataset``, at the cost of the policy's own results there.

    Keep-all, random and static run with BatchNorm statistics of their own decisions, on training images.

    The static path may cost 2 % more than the policy. It is the best of about ``candidates`` on validation images,
    so it is the fairest static subnetwork of this model that a short search finds. L-Net and C-Net run along it, for
    their scales; a rival's policy, which only decides, does not, and is not billed.

    Args:
        model: the policy's.
        dataset: what ``policy`` is of.
        policy: the greedy results.
        train: images for BatchNorm statistics.
        val: images that choose the static path.
        device: where to compute.
        seed: of random and shuffled decisions, and of the search for a static path.
        candidates: static paths to try, about.
        prices: spread over the images where the policy's were, as scales read them; None is the model's price for all.
    """
    actions = policy.actions
    results = {}
    rates = keep_rates(model.decisions, actions)
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(observation: Observation) -> Tensor:
        rate = rates[observation.block].to(device).expand(len(observation.pooled), -1)
        return torch.bernoulli(rate, generator=generator)

    judges = val.sample(1000)
    bare = without_policy(model)
    paths = static_paths(bare.decisions, actions, 1.02 * float(policy.macs.mean()), candidates, seed)
    best: tuple[float, Tensor, LCNet] | None = None
    with Progress("controls", len(paths) + 4) as bar:
        # Decisions of another distribution get BatchNorm statistics of their own; shuffled ones have the policy's.
        for name, decide, fixed in (
            ("keep-all", model.keep_everything, keep_all(actions)),
            ("random", draw, random(model.decisions, actions, seed)),
        ):
            control = copy.deepcopy(model)
            recalibrate(control, train, decide, device, images=2000, prices=prices)
            results[name] = evaluate(control, dataset, fixed, device, prices=prices)
            bar.advance()
        results["shuffled"] = evaluate(model, dataset, shuffled(actions, seed), device, prices=prices)
        bar.advance()
        for path in paths:
            static = copy.deepcopy(bare)
            recalibrate(static, train, path, device, images=1000, prices=prices)
            judged = evaluate(static, judges, path.expand(-1, len(judges), -1), device, prices=prices)
            if best is None or judged.accuracy > best[0]:
                best = (judged.accuracy, path, static)
            bar.advance()
        assert best is not None
        _, path, static = best
        recalibrate(static, train, path, device, prices=prices)
        results["static"] = evaluate(static, dataset, path.expand(-1, len(dataset), -1), device, prices=prices)
        bar.advance()
    return results
