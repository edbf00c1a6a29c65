"""Pictures of what ran for an image: the image, and under it a column a block with a cell a filter group.

A filled cell ran, a pale one was dropped, a pale dash is a skipped block, and an outline a block not reached yet. A
whole network behind the first has a column of another colour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lcnet_rl.decisions import Decisions

PAPER, INK, PALE, LINE = (255, 255, 255), (43, 52, 69), (226, 230, 236), (200, 206, 215)
RAN, NETWORK, RIGHT, WRONG = (47, 111, 178), (214, 128, 40), (46, 139, 87), (200, 64, 48)
MARGIN = 8
"""Pixels around everything."""
STRIP = 56
"""Height of the trace, in pixels."""
CAPTION, LEADING = 22, 15
"""Height of a caption of one line, and of every further line, in pixels."""
HEADER, SIDE = 30, 46
"""Room for a title above a grid, and for labels beside it, in pixels."""
FINEST = 3.0
"""Cells thinner than this, in pixels, touch each other instead of having a gap."""
SUPERSAMPLING = 4
SEPARATORS = re.compile(r"(, seen as |, | \(seen: | \(|\)| · |/|\.\w+$)")
"""Between the parts of a caption's line, which are shortened one by one where the line is too long."""
DOTS, SHORTEST = "...", 8
"""What stands for what was left out, and how short a part may become, in characters."""

Trace = Sequence[tuple[bool, Sequence[bool]]]
"""One entry a block that was decided: whether it ran, and which of its filter groups did."""


def trace(decisions: Decisions, rows: Iterable[Tensor]) -> list[tuple[bool, list[bool]]]:
    """What ran of one image, from the rows of its actions, (action_size,) for each block so far."""
    kept = []
    for block, row in enumerate(rows):
        bits = [bool(bit) for bit in row[: decisions.bits[block]]]
        keep = bits.pop(0) if decisions.has_l_net else True
        groups = bits or [True]
        kept.append((keep and any(groups), [keep and bit for bit in groups]))
    return kept


def draw_trace(
    image: NDArray[np.uint8],
    kept: Trace,
    depth: int,
    caption: str = "",
    right: bool | None = None,
    networks: int = 1,
    scale: int = 6,
) -> NDArray[np.uint8]:
    """One image over its trace; the size depends on ``scale`` and the caption's lines, so that pictures make a grid.

    Args:
        image: uint8 (3, 32, 32), RGB.
        kept: the blocks decided so far, at most ``depth``.
        depth: number of blocks of the network.
        caption: lines under the image; each is shortened to what fits, as ``fitted`` does.
        right: colours the image's frame, green for True and red for False.
        networks: in a row; of the blocks, the last ``networks - 1`` are all but the first of these.
        scale: screen pixels an image pixel.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    side, lines = image.shape[1] * scale, caption.split("\n")
    under = MARGIN + side + CAPTION + LEADING * (len(lines) - 1)
    width, height = side + 2 * MARGIN, under + STRIP + MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    frame = LINE if right is None else RIGHT if right else WRONG
    pen = ImageDraw.Draw(canvas)
    border = 1 if right is None else 3
    pen.rectangle(
        (MARGIN - border, MARGIN - border, MARGIN + side + border - 1, MARGIN + side + border - 1), fill=frame
    )
    enlarged = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize(
        (side, side), Image.Resampling.NEAREST
    )
    canvas.paste(enlarged, (MARGIN, MARGIN))
    for number, line in enumerate(lines):
        _write(pen, line, MARGIN + side + 5 + number * LEADING, width)
    canvas.paste(_strip(kept, depth, networks, side), (MARGIN, under))
    return np.array(canvas)


def tile(pictures: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures of one size (H, W, 3) as a grid, row by row, white where the last row is short."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    grid = np.full((rows * height, columns * width, 3), PAPER, dtype=np.uint8)
    for number, one in enumerate(pictures):
        top, left = number // columns * height, number % columns * width
        grid[top : top + height, left : left + width] = one
    return grid


def labelled(grid: NDArray[np.uint8], title: str, rows: Sequence[str] = ()) -> NDArray[np.uint8]:
    """A grid (H, W, 3) of ``tile`` under a title, with a label beside each of its rows if there are labels."""
    font, side = _font(14), SIDE if rows else 0
    height, width = grid.shape[0], max(grid.shape[1], int(font.getlength(title)) + 2 * MARGIN)
    canvas = Image.new("RGB", (side + width, HEADER + height), PAPER)
    canvas.paste(Image.fromarray(grid), (side, HEADER))
    pen = ImageDraw.Draw(canvas)
    pen.text((side + MARGIN, HEADER / 2), title, fill=INK, font=font, anchor="lm")
    for row, label in enumerate(rows):
        pen.text((MARGIN, HEADER + (row + 0.5) * height / len(rows)), label, fill=INK, font=font, anchor="lm")
    return np.array(canvas)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has few letters outside ASCII."""
    from matplotlib import get_data_path  # only here: it takes a while, and few commands draw

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _write(pen: ImageDraw.ImageDraw, caption: str, top: int, width: int) -> None:
    font = _font(11)
    room = width - 2 * MARGIN
    text = fitted(caption, lambda line: pen.textlength(line, font=font) <= room)
    pen.text((MARGIN, top), text, fill=INK, font=font)


def fitted(line: str, fits: Callable[[str], bool]) -> str:
    """``line``, its longest parts shortened in their middle as far as it takes, so that something of each is told.

    Parts are a class and what it was seen as, say, or a path's folders. If there are too many, the line ends early.
    """
    parts = SEPARATORS.split(line)
    longest = max(map(len, parts[::2]))  # between them are the separators
    while not fits(line) and longest > SHORTEST:
        longest -= 1
        line = "".join(part if index % 2 else _shortened(part, longest) for index, part in enumerate(parts))
    while not fits(line) and line != DOTS:
        line = line.removesuffix(DOTS)[:-1] + DOTS
    return line


def _shortened(part: str, length: int) -> str:
    if len(part) <= length:
        return part
    end = (length - len(DOTS)) // 3
    return part[: length - len(DOTS) - end] + DOTS + part[len(part) - end :]


def legend(networks: int) -> str:
    """What a column of so many networks in a row shows, in words."""
    return "a column a block, filled: kept" + ("; orange: a further network" if networks > 1 else "")


def _strip(kept: Trace, depth: int, networks: int, width: int) -> Image.Image:
    """The columns, drawn large and scaled down so that fine cells stay even."""
    strip = Image.new("RGB", (width * SUPERSAMPLING, STRIP * SUPERSAMPLING), PAPER)
    pen = ImageDraw.Draw(strip)
    pitch = strip.width / depth
    # Shallow networks get narrow columns rather than slabs.
    column = min(pitch * 0.78, 22 * SUPERSAMPLING)
    for block in range(depth):
        left = block * pitch + (pitch - column) / 2
        if block >= len(kept):
            _cell(pen, left, 0, column, strip.height, None)
        elif not kept[block][0]:
            thickness = 3 * SUPERSAMPLING
            _cell(pen, left, (strip.height - thickness) / 2, column, thickness, LINE)
        else:
            bits, fill = kept[block][1], RAN if block <= depth - networks else NETWORK
            step = strip.height / len(bits)
            gap = 2 * SUPERSAMPLING if step > FINEST * SUPERSAMPLING else 0
            for group, ran in enumerate(bits):
                _cell(pen, left, group * step + gap / 2, column, step - gap, fill if ran else PALE)
    return strip.resize((width, STRIP), Image.Resampling.LANCZOS)


def _cell(
    pen: ImageDraw.ImageDraw, left: float, top: float, width: float, height: float, fill: tuple[int, int, int] | None
) -> None:
    """A rounded rectangle; without a fill, its outline."""
    radius = min(width, height) / 5
    box = (left, top, left + max(width - 1, 0), top + max(height - 1, 0))  # of many groups, less than a pixel each
    pen.rounded_rectangle(box, radius, fill=fill, outline=LINE if fill is None else None, width=SUPERSAMPLING)
