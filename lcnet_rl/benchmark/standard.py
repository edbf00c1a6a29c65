"""The standard benchmark: forced decisions on networks with random weights (no time depends on them).

Whoever decides, half of the blocks or half of the filters is the same work, so this says what skipping is worth on a
machine before anything is trained. The gates run all the same.
"""

from __future__ import annotations

import copy
import functools
import itertools
import statistics
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lcnet_rl.backbones import create_backbone
from lcnet_rl.benchmark.contestants import Contestant, dense_contestants, engine_contestants, onnx_contestants
from lcnet_rl.benchmark.record import case, figures
from lcnet_rl.model import LCNet
from lcnet_rl.progress import Progress, console
from lcnet_rl.state import Outcome
from lcnet_rl.timing import race

KEEPS = ("all", "blocks50", "groups50")
BATCH = 128
NETWORKS: dict[str, tuple[str, int | None]] = {
    "w64": ("resnet18", 64),
    "w32": ("resnet18", 32),
    "resnet20": ("resnet20", None),
    "resnet56": ("resnet56", None),
}
SETTLE = {1: (4, 5), BATCH: (0, 1)}
"""Uncounted and counted calls in a row, by batch size: single images come in a stream, in deployment."""
SECONDS = 10.0
"""That the counted trials of one network and batch size may take: with all that is built, tuned and compiled before
them, the standard cases are to take less than five minutes on a slow machine too."""
CANDIDATES = 100
FORCED = 20.0
"""How much a forced keep logit changes from price to price; half of it leaves no doubt."""
HALF, ALL, OTHER_HALF = 0.0, 1.0, 2.0
"""Prices, for one file of forced gates to decide in three ways: building a file for each would take minutes."""


def standard(trials: Mapping[int, int], seconds: float = SECONDS) -> dict[str, Any]:
    """Run all cases on the CPU, in float32.

    Args:
        trials: counted trials of each contestant, by batch size (1 and 128).
        seconds: that they may take, of one network and batch size; as of ``race``.

    Returns:
        ``cases``, as of ``record.case``, and ``contestants``, as of ``record.figures``.
    """
    cases, rows = [], []
    for label, (name, width) in NETWORKS.items():
        torch.manual_seed(0)
        model = LCNet(create_backbone(name, 10, width)).eval()
        for batch, cases_of in ((1, onnx_cases), (BATCH, engine_cases)):
            console.print(f"{label}, {batch} at a time ...", highlight=False)
            images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
            found, entries = cases_of(label, model, images)
            runs = {one.name: functools.partial(_run, one, images) for one in found}
            settle, repeat = SETTLE[batch]
            with Progress("trials", trials[batch], between=True) as bar:
                times = race(runs, trials[batch], settle=settle, repeat=repeat, each=bar.advance, seconds=seconds)
            if (ran := len(times[found[0].name])) < trials[batch]:
                console.print(f"{ran} trials of {trials[batch]}, which took {seconds:g} s", highlight=False)
            for case_name, (ways, billed, beyond) in entries.items():
                fastest, *others = sorted(ways, key=lambda way: statistics.median(times[way.name]))
                named = {case_name: fastest, **{f"{case_name}, {way.name.split()[-1]}": way for way in others}}
                cases += [case(this, times, way, found, billed, beyond) for this, way in named.items()]
            rows += [{"network": label, **figures(one, times[one.name], batch, repeat)} for one in found]
    return {"cases": cases, "contestants": rows}


Entry = tuple[list[Contestant], float, float | None]
"""The ways to run a case, and the shares of dense MACs that it is billed and that are computed beyond, if known."""


def onnx_cases(label: str, model: LCNet, image: Tensor) -> tuple[list[Contestant], dict[str, Entry]]:
    """One image in ONNX Runtime: who takes part, and entries by the case's name."""
    shares, ways = {"all": share(model, half_kept(model, 1, "all"))}, dict[str, list[Contestant]]()
    for keep in ("blocks50", "groups50"):
        halves = fair_halves(model, keep)
        shares[keep] = share(model, torch.cat(halves, 1))
        prices: dict[str, list[float | None]] = {keep: [HALF, OTHER_HALF]}
        if "all" not in ways:
            prices["all"] = [ALL]
        ways |= onnx_contestants(force(model, *(half[:, 0] for half in halves)), image, prices)
    entries: dict[str, Entry] = {f"onnx-b1-{label}-{keep}": (ways[keep], shares[keep], None) for keep in KEEPS}
    dense = dense_contestants(model.backbone, image, torch.float32, compiled=False)
    return [*dense, *itertools.chain(*ways.values())], entries


def engine_cases(label: str, model: LCNet, images: Tensor) -> tuple[list[Contestant], dict[str, Entry]]:
    """A batch in the engine, every image keeping another half; the same as of ``onnx_cases``."""
    actions = {keep: half_kept(model, len(images), keep) for keep in KEEPS}
    engines = engine_contestants(model, images, torch.float32, actions)
    entries: dict[str, Entry] = {}
    for keep, one in zip(KEEPS, engines, strict=True):
        excess = cast(Outcome, one.run(images)).excess / len(images) / model.costs.dense
        entries[f"engine-b{len(images)}-{label}-{keep}"] = [one], share(model, actions[keep]), excess
    return engines + dense_contestants(model.backbone, images, torch.float32), entries


def fair_halves(model: LCNet, keep: str) -> list[Tensor]:
    """Actions (depth, 1, action_size) of ``half_kept``, and the other half, so no part is kept more often.

    Blocks of the same MACs take unlike times: a ResNet-18's last ones have to fetch the most weights.
    """
    half, decided = half_kept(model, 1, keep), slice(0, 1) if keep == "blocks50" else slice(1, None)
    other = half.clone()
    other[:, :, decided] = 1 - half[:, :, decided]
    return [half, other]


def half_kept(model: LCNet, count: int, keep: str) -> Tensor:
    """Actions (depth, count, action_size) in which every image keeps half of the blocks, or of each block's groups.

    Args:
        model: with L-Net and C-Net.
        count: images. For a single one, the blocks are chosen so that half of the MACs is kept, as nearly as can be.
        keep: ``all``, ``blocks50`` or ``groups50``.
    """
    actions = torch.ones(model.depth, count, model.action_size)
    if keep == "groups50":
        groups = model.action_size - 1
        actions[:, :, 1:] = (torch.rand(model.depth, count, groups).argsort(2) < groups // 2).float()
    if keep == "blocks50":
        draws = torch.rand(model.depth, count if count > 1 else CANDIDATES).argsort(0) < model.depth // 2
        if count == 1:
            distances = [abs(share(model, actions * draw[:, None, None]) - 0.5) for draw in draws.T]
            draws = draws[:, distances.index(min(distances)), None]
        actions[:, :, 0] = draws.float()
    return actions


def share(model: LCNet, actions: Tensor) -> float:
    """Mean share of dense MACs that actions (depth, B, action_size) cost, gates included."""
    return float(model.decisions.path_bill(actions).mean()) / model.costs.dense


def force(model: LCNet, half: Tensor, other: Tensor) -> LCNet:
    """A copy of ``model`` whose gates run and then decide by the price alone, which is the last of what they read.

    Args:
        model: it has no range of prices.
        half: what they decide at the price ``HALF``, (depth, action_size).
        other: and at ``OTHER_HALF``; every bit is 1 in one of both at least, and all are kept at ``ALL``.
    """
    model = copy.deepcopy(model)
    bias, slope = FORCED * (2 * half - 0.5 - half * other / 2), FORCED * (other - half)
    for t in range(model.depth):
        for gate, bits in ((model.l_net(t), slice(0, 1)), (model.c_net(t), model.decisions.group_bits(t))):
            if gate is not None:
                gate.keep.weight.data.zero_()
                gate.keep.weight.data[:, -1] = slope[t, bits]
                gate.keep.bias.data.copy_(bias[t, bits])
    return model


def _run(contestant: Contestant, images: Tensor, trial: int) -> None:
    contestant.in_trial(trial)(images)
