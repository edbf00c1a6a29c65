"""Pictures of an evaluation: accuracy against compute, and what ran for the easiest and hardest images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from lcnet_rl.data import Dataset
from lcnet_rl.drawing import draw_trace, labelled, legend, tile, trace
from lcnet_rl.evaluate import Results
from lcnet_rl.files import replacing
from lcnet_rl.model import LCNet
from lcnet_rl.whole import whole

BELOW = 4
"""Points of accuracy that are drawn below the worst control."""
MARGIN, ABOVE = 0.1, 0.05
"""What is left free on both sides of the points, as a share of the MACs that are shown, and above the best one, as a
share of the accuracies: less than from one tick to the next, so that none is above 100 %."""


def plot_tradeoff(summary: dict[str, Any], curve: list[tuple[float, float]], line: str, name: str, path: Path) -> None:
    """Accuracy over MMACs an image: the policy, its controls, the dense backbone, and the policy at other settings.

    Args:
        summary: of ``report.summarize``.
        curve: (MACs, accuracy) of the policy at other settings, perhaps on fewer images.
        line: what these settings are, for the legend.
        name: the run's, for the title.
        path: the PNG to write.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    if curve:
        # Through the policy's own point: its neighbours on the line may be far away.
        macs, accuracies = zip(*sorted([*curve, (summary["macs_mean"], summary["accuracy"])]), strict=True)
        places = [m / 1e6 for m in macs], [100 * a for a in accuracies]
        axes.plot(*places, ".-", color="tab:blue", lw=1.5, alpha=0.6, label=f"policy at {line}")
    own = summary["macs_mean"] / 1e6, 100 * summary["accuracy"]
    axes.plot(*own, "o", color="tab:blue", ms=7, zorder=3, label="policy")  # before a control at the same place
    everything = whole(summary["networks"], summary["pruned"])
    axes.plot(summary["dense_macs"] / 1e6, 100 * summary["dense_accuracy"], "k*", ms=12, label=everything)
    # The first colour is the policy's.
    for index, ((kind, control), marker) in enumerate(zip(summary["controls"].items(), "sv^DPX", strict=False), 1):
        point = control["macs_mean"] / 1e6, 100 * control["accuracy"]
        axes.plot(*point, marker, ms=8, ls="", color=f"C{index}", label=f"control: {kind}")
    axes.set_xlabel("MMACs per image, gates included")
    axes.set_ylabel("accuracy, %")
    points = [(summary["macs_mean"], summary["accuracy"]), (summary["dense_macs"], summary["dense_accuracy"])]
    points += [(control["macs_mean"], control["accuracy"]) for control in summary["controls"].values()]
    # The line may go on to where nothing is kept.
    lowest = min(accuracy for _, accuracy in points) - BELOW / 100
    shown = [macs for macs, accuracy in [*points, *curve] if accuracy >= lowest]
    highest = max(accuracy for _, accuracy in [*points, *curve])
    axes.set_ylim(100 * lowest, 100 * (highest + ABOVE * (highest - lowest)))
    cheapest, dearest = min(shown), max(shown)
    room = MARGIN * (dearest - cheapest)
    axes.set_xlim((cheapest - room) / 1e6, (dearest + room) / 1e6)
    title = f"{name}: {summary['backbone']} on {summary['dataset']}/{summary['split']}"
    axes.set_title(title, fontsize="medium")  # a run that is named by its settings has a long name
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def plot_latencies(latencies: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Time an image against its MACs, one dot an image: a network that really skips rises from left to right.

    Args:
        latencies: by contestant, ``macs`` and ``milliseconds`` of the same images, and whether it is ``dense``.
        title: above it.
        path: the PNG to write.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, row) in enumerate(latencies.items()):
        marker = "x" if row["dense"] else "o"
        macs = [m / 1e6 for m in row["macs"]]
        axes.plot(macs, row["milliseconds"], marker, ms=4, alpha=0.5, color=f"C{index}", label=name)
    axes.set_xlabel("MMACs of the image, gates included")
    axes.set_ylabel("ms an image, batch 1")
    axes.set_yscale("log", subs=(2, 5))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def picture_paths(
    model: LCNet, dataset: Dataset, policy: Results, everything: Results, name: str, path: Path, count: int = 8
) -> None:
    """What ran for the easiest images (upper row) and the hardest (lower row).

    Easy and hard are the data set's known difficulty, or else the label's log-probability where everything runs: the
    policy's own depends on what ran, and with several networks those images look easiest that all of them saw.

    Args:
        model: the network.
        dataset: N images.
        policy: the greedy policy's results on them.
        everything: those of the whole network.
        name: the run's, for the title.
        path: the PNG to write.
        count: images a row; with fewer in the data set, each row has all of them.
    """
    known = dataset.difficulty is not None
    difficulty = dataset.difficulty if dataset.difficulty is not None else everything.log_prob.abs()
    order, count = difficulty.argsort(stable=True), min(count, len(dataset))
    pictures, networks = [], len(model.backbone.networks)
    for index in torch.cat((order[:count], order[-count:])).tolist():
        how = f"difficulty {difficulty[index]:.2f}" if known else f"-log p {difficulty[index]:.2f}"
        label, seen = (dataset.classes[int(number[index])] for number in (dataset.labels, policy.predictions))
        caption = f"{label}{'' if seen == label else f', seen as {seen}'}\n{policy.shares[index]:.0%} MACs, {how}"
        pictures.append(
            draw_trace(
                dataset.images[index].numpy(),
                trace(model.decisions, policy.actions[:, index]),
                model.depth,
                caption,
                bool(policy.correct[index]),
                networks,
            )
        )
    where = f"{name}: {model.spec.backbone.title} on {dataset.name}/{dataset.split}"
    title = f"{where}: what ran ({legend(networks)}; frame: green if right, else red)"
    with replacing(path) as temporary:
        Image.fromarray(labelled(tile(pictures, count), title, ("easy", "hard"))).save(temporary, "png")
