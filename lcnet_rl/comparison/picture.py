"""The frontier as a picture: accuracy over MACs, seeds as error bars, references beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from lcnet_rl.comparison.frontier import Point, pareto
from lcnet_rl.comparison.kinds import parted
from lcnet_rl.comparison.published import Published
from lcnet_rl.comparison.records import Group, network_count
from lcnet_rl.files import replacing

WIDE = 4
"""Costs whose largest is this many times the smallest are drawn on a logarithmic axis."""
NAMED = 4
"""Dense backbones, and pruned ones, that the legend names; of more it says only what they are."""
PUBLISHED_COLORS = ("C1", "C2", "C4", "C5", "C6", "C8", "C9", "gold", "navy", "teal", "deeppink")
"""All but blue, red and grey, which ours and the rivals have."""
LABELLED = 12
"""Runs that are labelled; the names of more would lie over each other."""
FURTHEST = 1.5
"""Published networks that cost more than so many times all of ours are not drawn: they would take half the picture."""
MARGIN = 1.0
"""Points of accuracy below all else from which on a dominated run is told at the picture's foot instead of drawn."""
TOLD = 3
"""Runs at the foot that are told with their accuracy; of more it says only how many they are."""
CROSSES = "x+12_34|"
"""Markers of rivals; where there are more runs than markers, those of one algorithm share one."""
OTHER, FRONTIER, BEATEN = "others", "frontier of policies", "frontier, beaten by a static network"
KINDS = ((OTHER, "0.6", "0.6", 5), (FRONTIER, "tab:blue", "tab:blue", 8), (BEATEN, "tab:blue", "white", 8))
"""Of policies: the label, colour, face and size of their markers."""
POINTS: dict[str, Any] = {"ls": "", "capsize": 3, "elinewidth": 1}
"""How points with bars are drawn."""
WRITTEN: dict[str, Any] = {"textcoords": "offset points", "color": "0.5", "fontsize": "small"}
"""How what is written into the picture looks."""
PLACES = (
    ((7, 8), "left"),
    ((7, -9), "left"),
    ((-7, 8), "right"),
    ((-7, -9), "right"),
    ((7, 20), "left"),
    ((7, -21), "left"),
)
"""Where a name may be, points from the run's marker, the best first."""


def plot_frontier(
    policies: Sequence[Group],
    dense: Mapping[str, Point],
    static: Mapping[str, Point],
    published: Sequence[Published],
    title: str,
    path: Path,
) -> None:
    """Draw groups of runs, the frontier through the best of ours, and references.

    Args:
        policies: ours and rivals, through which the line does not go.
        dense: dense backbones by name, MACs and accuracy in [0, 1].
        static: pruned backbones by name, as ``dense``.
        published: results from papers.
        title: of the picture.
        path: the PNG to write.
    """
    groups, rivals = parted(policies)
    front = pareto([group.point for group in groups])
    costs = [_shown(point)[0] for point in (*(group.point for group in policies), *dense.values(), *static.values())]
    published = [result for result in published if min(result.points)[0] <= FURTHEST * max(costs, default=math.inf)]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots()
    _draw_policies(axes, groups, front, [*dense.values(), *static.values()], rivals)
    _draw_rivals(axes, rivals)
    _draw_networks(axes, dense, "*", 13, "dense backbones")
    _draw_networks(axes, static, "d", 9, "pruned backbones")
    _draw_published(axes, published)
    beside = [*dense.values(), *static.values(), *(rival.point for rival in rivals)]
    shown = [_shown(point) for point in [*(groups[index].point for index in front), *beside]]
    shown += [point for result in published for point in result.points]
    foot = min(percent for _, percent in shown) - MARGIN
    _scale(axes, [mmacs for mmacs, _ in [*shown, *(_shown(group.point) for group in groups)]])
    low = [group for group in groups if _shown(group.point)[1] < foot]
    if low:
        axes.set_ylim(bottom=foot)
    axes.set_xlabel("MMACs per image")
    axes.set_ylabel("accuracy, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(
        *sorted(legend, key=lambda pair: (not pair[1].startswith("ours"), OTHER in pair[1])), strict=True
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    if low:
        _tell_low(axes, low, foot)
    if len(groups) <= LABELLED:
        _name(axes, [group for group in groups if group not in low], shown)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _draw_policies(
    axes: Axes,
    groups: Sequence[Group],
    front: Sequence[int],
    fixed: Sequence[Point],
    rivals: Sequence[Group],
) -> None:
    """Ours, by kind, chains apart, with bars where any run has several seeds; and the line of the frontier."""
    several_seeds = any(len(group.records) > 1 for group in [*groups, *rivals])
    kinds = [
        ((_kind(group, index in front, fixed), network_count(group.first.summary["backbone"]) > 1), group)
        for index, group in enumerate(groups)
    ]
    for kind, color, face, size in KINDS:
        for several, marker in ((False, "o"), (True, "s")):
            chosen = [group for of, group in kinds if of == (kind, several)]
            if chosen:
                label = f"ours{', chains' if several else ''}: {kind}"
                macs, accuracies = zip(*(_shown(group.point) for group in chosen), strict=True)
                macs_bars, accuracy_bars = zip(*(_shown(group.spread) for group in chosen), strict=True)
                bars: dict[str, Any] = {"xerr": macs_bars, "yerr": accuracy_bars} if several_seeds else {}
                faced: dict[str, Any] = {"color": color, "mfc": face, "label": label}
                axes.errorbar(macs, accuracies, **bars, fmt=marker, ms=size, **faced, **POINTS)
    steps = [_shown(groups[index].point) for index in front]
    if len(steps) > 1:
        axes.plot(*zip(*steps, strict=True), "-", drawstyle="steps-post", color="tab:blue", lw=1.2, alpha=0.6)


def _draw_rivals(axes: Axes, rivals: Sequence[Group]) -> None:
    """Other methods' runs: called by their own names where there are markers for all, else by their algorithms'."""
    markers: dict[str, str] = {}
    for rival in rivals:
        few = len(rivals) <= len(CROSSES)
        name = f"rival: {Path(rival.first.name).name if few else rival.first.settings['algo']}"
        said = None if name in markers else name
        marker = markers.setdefault(name, CROSSES[len(markers) % len(CROSSES)])
        axes.plot(*_shown(rival.point), marker=marker, ms=11, mew=2, ls="", color="tab:red", label=said)
        wide, high = _shown(rival.spread)
        axes.errorbar(*_shown(rival.point), high, wide, fmt="none", ecolor="tab:red", **POINTS)


def _draw_networks(axes: Axes, points: Mapping[str, Point], marker: str, size: int, together: str) -> None:
    """Networks that treat all images alike, in black and greys by name, or where they are many, ``together``."""
    named = len(points) <= NAMED
    for index, (name, point) in enumerate(points.items()):
        shade = f"{0.55 * index / len(points):.2f}" if named else "black"
        said = name if named else together if index == 0 else None
        axes.plot(*_shown(point), marker=marker, ms=size, ls="", color=shade, label=said)


def _draw_published(axes: Axes, published: Sequence[Published]) -> None:
    """Results from papers, those of one method joined by a line; hollow where all images cost the same."""
    colors = itertools.cycle(PUBLISHED_COLORS)
    for result, marker, color in zip(published, itertools.cycle("vD^P<X>hpd8"), colors, strict=False):
        line = "-" if len(result.points) > 1 else ""
        how: dict[str, Any] = {"marker": marker, "ms": 6, "ls": line, "lw": 0.8, "color": color, "alpha": 0.8}
        told = f"published, {'dynamic: ' if result.is_dynamic else ''}{result.method}"
        axes.plot(*zip(*result.points, strict=True), **how, mfc=color if result.is_dynamic else "white", label=told)


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    """Draw costs, in MMACs, on a logarithmic axis where they differ much."""
    if max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _tell_low(axes: Axes, low: Sequence[Group], foot: float) -> None:
    """Say at the picture's foot, ``foot`` %, what groups lie below it."""
    costs = [_shown(group.point)[0] for group in low]
    axes.plot(costs, [foot] * len(low), "v", ms=5, color="0.6", alpha=0.6, clip_on=False)
    if len(low) > TOLD:  # their figures would lie over each other
        told = f"{len(low)} runs below {foot:.1f} %"
        axes.annotate(told, (1, 0), (-4, 6), xycoords="axes fraction", ha="right", **WRITTEN)
        return
    for group, mmacs in zip(low, costs, strict=True):
        axes.annotate(f"{_shown(group.point)[1]:.1f} %", (mmacs, foot), (-6, 4), ha="right", **WRITTEN)


def _name(axes: Axes, groups: Sequence[Group], points: Sequence[Point]) -> None:
    """Write each group's name beside its point, where it hides least of other points and names, inside the frame."""
    cast(Figure, axes.figure).draw_without_rendering()
    frame, points = axes.get_window_extent(), [*points, *(_shown(group.point) for group in groups)]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(points)]
    for group in groups:
        name, point = Path(group.first.name).name + group.first.at, _shown(group.point)
        texts = [axes.annotate(name, point, offset, ha=side, va="center", **WRITTEN) for offset, side in PLACES]
        boxes = [text.get_window_extent() for text in texts]
        hidden = [box.count_overlaps(taken) + (box.x0 < frame.x0) + (box.x1 > frame.x1) for box in boxes]
        best = hidden.index(min(hidden))
        taken.append(boxes.pop(best))
        texts.pop(best)
        for text in texts:
            text.remove()


def _kind(group: Group, best: bool, fixed: Sequence[Point]) -> str:
    """Which of ``KINDS`` a group is, beside networks ``fixed`` (MACs, accuracy) that treat all images alike."""
    macs, accuracy = group.point
    beaten = any(cost <= macs and reached >= accuracy for cost, reached in fixed)
    return OTHER if not best else BEATEN if beaten else FRONTIER


def _shown(point: tuple[float, float]) -> tuple[float, float]:
    """MACs and a fraction as MMACs and percent."""
    return point[0] / 1e6, 100 * point[1]
