"""A text or a picture of what ran so far, for both kinds of environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.process import Process
from lcnet_rl.decisions import decision_names
from lcnet_rl.drawing import draw_trace
from lcnet_rl.errors import unknown_name

RENDER_MODES = ("ansi", "rgb_array")


def check_render_mode(mode: str | None) -> str | None:
    """``mode``, if it is one.

    Raises:
        UserError: for anything but None, ``"ansi"`` and ``"rgb_array"``.
    """
    if mode is not None and mode not in RENDER_MODES:
        raise unknown_name("render mode", str(mode), RENDER_MODES)
    return mode


def render(process: Process, index: int, mode: str) -> Any:
    """Image ``index`` of the batch in one of ``RENDER_MODES``.

    Raises:
        ResetNeeded: when there is no image yet.
    """
    return text(process, index) if mode == "ansi" else picture(process, index)


def text(process: Process, index: int) -> str:
    """The trace in words: a line for the image, one a block, one for the bill, and the prediction once there is one.

    ``[#.#.]`` means that the first and the third filter group ran.
    """
    macs = process.macs(index)
    classes, number = process.dataset.classes, int(process.episode.indices[index])
    label = classes[int(process.dataset.labels[number])]
    lines = [f"image {number} of {process.dataset.name}/{process.dataset.split}: {label}"]
    names = decision_names(process.model.depth, len(process.model.backbone.networks))
    for name, (ran, bits) in zip(names, process.trace(index), strict=False):
        shown = f"block {name:>3}" if name.isdigit() else name
        lines.append(f"{shown}  " + (f"[{''.join('#' if bit else '.' for bit in bits)}]" if ran else "skip"))
    lines.append(f"MACs {macs:,} ({macs / process.model.costs.dense:.1%} of dense)")
    if process.episode.logits is not None:
        guess = classes[int(process.episode.logits[index].argmax())]
        lines.append(f"predicted {guess} ({'right' if guess == label else 'wrong'})")
    return "\n".join(lines)


def picture(process: Process, index: int) -> NDArray[np.uint8]:
    """The image enlarged over the trace, uint8 (H, W, 3); always of the same size for one model."""
    share = process.macs(index) / process.model.costs.dense
    number = int(process.episode.indices[index])
    label = process.dataset.classes[int(process.dataset.labels[number])]
    seen, right = f"label: {label}", None
    if process.episode.logits is not None:
        guess = process.dataset.classes[int(process.episode.logits[index].argmax())]
        right = guess == label
        seen = label if right else f"{label} (seen: {guess})"
    return draw_trace(
        process.dataset.images[number].cpu().numpy(),
        process.trace(index),
        depth=process.model.depth,
        caption=f"{seen} · {share:.0%} MACs",
        right=right,
        networks=len(process.model.backbone.networks),
    )
