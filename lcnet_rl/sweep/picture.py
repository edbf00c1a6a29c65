"""The frontier as a picture: accuracy over MACs, seeds as error bars, references beside it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from lcnet_rl.sweep.published import Published
from lcnet_rl.sweep.records import Group, networks

mpl.use("Agg")
WIDE = 4
"""Costs whose largest is this many times the smallest are drawn on a logarithmic axis."""
NAMED = 4
"""Dense backbones, and pruned ones, that the legend names; of more it says only what they are."""
PUBLISHED_COLORS = ("C1", "C2", "C4", "C5", "C6", "C8", "C9", "gold", "navy", "teal", "deeppink")
"""All but blue, red and grey, which ours and the rivals have."""
LABELLED = 12
"""Runs that are labelled; the names of more would lie over each other."""
MARGIN = 1.0
"""Points of accuracy below all else from which on a dominated run is told at the picture's foot instead of drawn."""
TOLD = 3
"""Runs at the foot that are told with their accuracy; of more it says only how many they are."""
CROSSES = "1234|_+x"
"""Markers of rivals; where there are more runs than markers, those of one algorithm share one."""
OTHER, FRONTIER, BEATEN = "others", "frontier of policies", "the same, but a static network beats it"
KINDS = ((OTHER, "0.6", "0.6", 5), (FRONTIER, "tab:blue", "tab:blue", 8), (BEATEN, "tab:blue", "white", 8))
"""Of policies: the label, colour, face and size of their markers."""


def plot_frontier(
    groups: Sequence[Group],
    front: Sequence[int],
    dense: Mapping[str, tuple[float, float]],
    published: Sequence[Published],
    title: str,
    path: Path,
    rivals: Sequence[Group] = (),
    static: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> None:
    """Draw groups of runs, the frontier through the best of them, and references.

    Args:
        groups: what was run, perhaps nothing but rivals.
        front: indices of those on the frontier, by rising cost.
        dense: dense backbones by name, MACs and accuracy in [0, 1].
        published: results from papers.
        title: of the picture.
        path: the PNG to write.
        rivals: other methods' runs, through which the line does not go.
        static: pruned backbones by name, as ``dense``.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots()
    style: dict[str, Any] = {"ls": "", "capsize": 3, "elinewidth": 1}
    several_seeds = any(len(group.records) > 1 for group in [*groups, *rivals])
    fixed = [*dense.values(), *static.values()]
    kinds = [(_kind(group, index in front, fixed), group) for index, group in enumerate(groups)]
    for kind, color, face, size in KINDS:
        for several, marker in ((False, "o"), (True, "s")):
            chosen = [
                group for of, group in kinds if (of, networks(group.first.summary["backbone"]) > 1) == (kind, several)
            ]
            if chosen:
                label = f"ours{', chains' if several else ''}: {kind}"
                macs, accuracies = zip(*(_shown(group.point) for group in chosen), strict=True)
                macs_bars, accuracy_bars = zip(*(_shown(group.spread) for group in chosen), strict=True)
                bars: dict[str, Any] = {"xerr": macs_bars, "yerr": accuracy_bars} if several_seeds else {}
                faced: dict[str, Any] = {"color": color, "mfc": face, "label": label}
                axes.errorbar(macs, accuracies, **bars, fmt=marker, ms=size, **faced, **style)
    markers: dict[str, str] = {}
    for rival in rivals:
        few = len(rivals) <= len(CROSSES)
        name = f"rival: {Path(rival.first.name).name if few else rival.first.settings['algo']}"
        known = name in markers
        cross = markers.setdefault(name, CROSSES[len(markers) % len(CROSSES)])
        said = None if known else name
        axes.plot(*_shown(rival.point), marker=cross, ms=11, mew=2, ls="", color="tab:red", label=said)
        wide, high = _shown(rival.spread)
        axes.errorbar(*_shown(rival.point), high, wide, fmt="none", ecolor="tab:red", **style)
    steps = [_shown(groups[index].point) for index in front]
    if len(steps) > 1:
        axes.plot(*zip(*steps, strict=True), "-", drawstyle="steps-post", color="tab:blue", lw=1.2, alpha=0.6)
    for points, marker, size, kind in ((dense, "*", 13, "dense backbones"), (static, "d", 9, "pruned backbones")):
        named = len(points) <= NAMED
        for index, (name, point) in enumerate(points.items()):
            shade = f"{0.55 * index / len(points):.2f}" if named else "black"
            told = name if named else kind if index == 0 else None
            axes.plot(*_shown(point), marker=marker, ms=size, ls="", color=shade, label=told)
    colors = itertools.cycle(PUBLISHED_COLORS)
    for result, marker, color in zip(published, itertools.cycle("vD^P<X>hpd8"), colors, strict=False):
        line = "-" if len(result.points) > 1 else ""
        axes.plot(
            *zip(*result.points, strict=True),
            marker=marker,
            ms=6,
            ls=line,
            lw=0.8,
            color=color,
            alpha=0.8,
            label=result.method,
        )
    others = [*steps, *map(_shown, [*dense.values(), *static.values()]), *(_shown(rival.point) for rival in rivals)]
    others += [point for result in published for point in result.points]
    foot = min(percent for _, percent in others) - MARGIN
    low = [(mmacs, percent) for mmacs, percent in (_shown(group.point) for group in groups) if percent < foot]
    if low:
        axes.set_ylim(bottom=foot)
    grey: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": "0.5", "fontsize": "small"}
    for group in groups if len(groups) <= LABELLED else []:
        if (point := _shown(group.point)) not in low:
            axes.annotate(Path(group.first.name).name + group.first.at, point, (5, 5), **{**grey, "ha": "left"})
    for mmacs, percent in low if len(low) <= TOLD else []:
        axes.annotate(f"{percent:.1f}\N{DOWNWARDS ARROW}", (mmacs, foot), (0, 4), **grey)
    if len(low) > TOLD:  # their figures would lie over each other
        axes.plot([mmacs for mmacs, _ in low], [foot] * len(low), "v", ms=5, color="0.6", alpha=0.6, clip_on=False)
        told = f"{len(low)} runs below {foot:.1f} %"
        axes.annotate(told, (1, 0), (-4, 6), xycoords="axes fraction", **grey)
    drawn = [*dense.values(), *static.values(), *(group.point for group in [*groups, *rivals])]
    costs = [macs / 1e6 for macs, _ in drawn]
    costs += [macs for result in published for macs, _ in result.points]
    if max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("MMACs per image, gates included")
    axes.set_ylabel("accuracy, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(legend, key=lambda pair: not pair[1].startswith("ours")), strict=True)
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _kind(group: Group, best: bool, fixed: Sequence[tuple[float, float]]) -> str:
    """Which of ``KINDS`` a group is, beside networks ``fixed`` (MACs, accuracy) that treat all images alike."""
    macs, accuracy = group.point
    beaten = any(cost <= macs and reached >= accuracy for cost, reached in fixed)
    return OTHER if not best else BEATEN if beaten else FRONTIER


def _shown(point: tuple[float, float]) -> tuple[float, float]:
    """MACs and a fraction as MMACs and percent."""
    return point[0] / 1e6, 100 * point[1]
