"""A trained run's own decisions on real images: how long each image takes, and what that depends on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lcnet_rl.backbones import Backbone
from lcnet_rl.benchmark.contestants import (
    Contestant,
    dense_contestants,
    engine_contestants,
    masked_contestant,
    onnx_contestants,
    short,
)
from lcnet_rl.benchmark.record import case, figures
from lcnet_rl.device import synchronize
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.progress import Progress, console
from lcnet_rl.state import Outcome
from lcnet_rl.timing import race

POLICY = "policy"
SINGLES = 10
"""As many times more trials at batch 1: images take unlike times, and few of them need a second network."""
SETTLE = 4
"""Uncounted calls with the same image before one is timed, at batch 1: in deployment nothing else runs in between."""


def trained(
    model: LCNet,
    images: Tensor,
    batches: Sequence[int],
    dtypes: Sequence[torch.dtype],
    trials: int,
    device: torch.device,
    rival: tuple[str, Backbone] | None = None,
) -> dict[str, Any]:
    """Time the greedy policy beside a dense network, every trial on other images.

    Args:
        model: the network.
        images: real ones, uint8 (N, 3, 32, 32); taken in turn, from the start again when they end.
        batches: images at a time. ONNX Runtime takes part on the CPU, in float32; skipping in it at 1 only.
        dtypes: of the convolutions in PyTorch, each compared with the dense network in the same one.
        trials: counted trials of each contestant and batch size; of single images ``SINGLES`` times as many.
        device: where PyTorch computes.
        rival: the dense network and its name; None is the model's own backbone.

    Returns:
        ``cases``, as of ``record.case``; ``contestants``, as of ``record.figures``; and ``latencies``, for every
        contestant at batch 1: ``macs`` and ``milliseconds`` of each trial's image, and whether it is ``dense``.
    """
    cases, rows, latencies = [], [], {}
    dense = ("dense", model.backbone) if rival is None else rival
    model = model.to(device).eval()
    for batch in batches:
        count = trials * SINGLES if batch == 1 else trials
        parts = [images[torch.arange(start, start + batch) % len(images)] for start in range(0, count * batch, batch)]
        moved = [part.to(device) for part in parts]
        for dtype in dtypes:
            console.print(f"batch {batch}, {short(dtype)}, {device} ...", highlight=False)
            found = _contestants(model, moved[0], dtype, *dense)
            engine = found[0]
            outcomes = [cast(Outcome, engine.run(part)) for part in moved]
            bills = torch.stack([outcome.macs.mean().cpu() for outcome in outcomes])
            share = float(bills.mean()) / dense_macs(dense[1])
            excess = sum(outcome.excess for outcome in outcomes) / (count * batch) / dense_macs(dense[1])
            runs = {one.name: functools.partial(_run, one, moved) for one in found}
            with Progress("trials", count, between=True) as bar:
                times = race(runs, count, settle=SETTLE if batch == 1 else 0, each=bar.advance)
            cases += [
                case(f"{one.name}, batch {batch}", times, one, found, share, excess if one is engine else None)
                for one in found
                if not one.dense
            ]
            rows += [figures(one, times[one.name], batch) for one in found]
            for one in found if batch == 1 else ():
                milliseconds = [1000 * seconds for seconds in times[one.name]]
                macs = [float(dense_macs(dense[1]))] * count if one.dense else bills.tolist()
                latencies[one.name] = {"dense": one.dense, "macs": macs, "milliseconds": milliseconds}
    return {"cases": cases, "contestants": rows, "latencies": latencies}


def _contestants(model: LCNet, images: Tensor, dtype: torch.dtype, name: str, dense: Backbone) -> list[Contestant]:
    """All that take part; the engine is the first."""
    found = engine_contestants(model, images, dtype, {POLICY: None})
    if dtype == torch.float32:
        found.append(masked_contestant(model, images))
        if len(images) == 1 and images.device.type == "cpu" and model.policy is None:  # a rival's cannot be exported
            found += onnx_contestants(model, images, {POLICY: [None]})[POLICY]
    return found + dense_contestants(dense, images, dtype, name=name)


def _run(contestant: Contestant, parts: Sequence[Tensor], trial: int) -> None:
    contestant.run(parts[trial])
    synchronize(parts[trial].device)
