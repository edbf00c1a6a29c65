"""What an evaluation says: one dictionary for JSON, and the tables for the screen."""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from lcnet_rl.data import Dataset
from lcnet_rl.decisions import decision_names
from lcnet_rl.evaluate import Results
from lcnet_rl.model import LCNet
from lcnet_rl.per_image import paired_difference
from lcnet_rl.progress import console, say, warn
from lcnet_rl.provenance import command_line
from lcnet_rl.rewards import create_reward
from lcnet_rl.tables import table_of
from lcnet_rl.whole import was_pruned, whole

PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GAINS = ("shuffled", "static", "keep-all")
"""Controls that the policy's accuracy is set beside, image by image: the first two cost what it costs, and tell whether
it looks at the image, and whether looking pays; the third tells what skipping loses."""
APART = 0.03
"""Share of the policy's MACs by which the static path may miss them without a word."""


def summarize(
    model: LCNet, dataset: Dataset, policy: Results, dense_accuracy: float, controls: dict[str, Results]
) -> dict[str, Any]:
    """All figures of an evaluation.

    Args:
        model: the network.
        dataset: N images, with their known difficulty if there is one.
        policy: the greedy policy's results on them.
        dense_accuracy: of the backbone that the run started from (pruned or not), all of it, on the same images.
        controls: results of the controls, by name.

    Returns:
        Accuracies in [0, 1]; MACs per image with gates, and as shares ("ratio") of the dense backbone's; kept blocks
        and filters as shares; plain numbers, lists and dictionaries.
    """
    blocks, filters = model.decisions.kept(policy.actions)
    paths = torch.unique(policy.actions.transpose(0, 1).flatten(1), dim=0)
    quantiles = policy.macs.quantile(torch.tensor(PERCENTILES, dtype=torch.float64))
    summary: dict[str, Any] = {
        "accuracy": policy.accuracy,
        "dense_accuracy": dense_accuracy,
        "macs_mean": float(policy.macs.mean()),
        "macs_ratio": policy.macs_ratio,
        "macs_std": float(policy.macs.std(correction=0)),
        "macs_ratio_std": policy.spread,
        "macs_percentiles": {f"{p:.0%}": float(q) for p, q in zip(PERCENTILES, quantiles, strict=True)},
        "dense_macs": model.costs.dense,
        "gate_macs": model.costs.gates,
        "distinct_paths": len(paths),
        "backbone": model.spec.backbone.title,
        "width": model.spec.backbone.width,
        "pruned": was_pruned(model.spec.backbone),
        "networks": len(model.spec.backbone.networks),
        "decides": model.spec.decides,
        "groups": model.spec.groups,
        "confidence": model.spec.confidence,
        "dataset": dataset.name,
        "split": dataset.split,
        **({"fingerprint": dataset.fingerprint} if dataset.files else {}),
        "images": len(dataset),
        "correct": int(policy.correct.sum()),
        "controls": {
            name: {"accuracy": r.accuracy, "macs_ratio": r.macs_ratio, "macs_mean": float(r.macs.mean())}
            for name, r in controls.items()
        },
        "kept_blocks": blocks.mean(1).tolist(),
        "kept_filters": filters.mean(1).tolist(),
        "classes": per_class(dataset, policy),
    }
    for name in (name for name in GAINS if name in controls):
        gain, error = gain_over(policy, controls[name])
        summary |= {_gain(name): gain, f"{_gain(name)}_error": error}
    if dataset.difficulty is not None:
        summary["difficulty_correlation"] = rank_correlation(policy.macs, dataset.difficulty)
    return summary


def per_class(dataset: Dataset, policy: Results) -> dict[str, dict[str, float]]:
    """Accuracy and mean share of dense MACs of each class."""
    table = {}
    for index, name in enumerate(dataset.classes):
        rows = dataset.labels == index
        if bool(rows.any()):
            accuracy, share = policy.correct[rows].double().mean(), policy.shares[rows].mean()
            table[name] = {"accuracy": float(accuracy), "macs_ratio": float(share)}
    return table


def rank_correlation(macs: Tensor, difficulty: Tensor) -> float:
    """Spearman's correlation of compute and difficulty, (N,) each; 0 where all images cost the same."""
    if float(macs.max()) == float(macs.min()):
        return 0.0
    return float(spearmanr(macs.numpy(), difficulty.numpy()).statistic)


def gain_over(policy: Results, control: Results) -> tuple[float, float]:
    """Accuracy of the policy minus that of a control on the same images, and the standard error of the difference."""
    return paired_difference(policy.correct, control.correct)


def rewarded(
    summary: dict[str, Any], name: str, price: float, policy: Results, controls: dict[str, Results]
) -> dict[str, Any]:
    """``summary`` with the mean reward called ``name`` at ``price``, of the policy and of its controls."""
    reward = create_reward(name)
    told = {
        control: {**figures, "mean_reward": controls[control].reward(reward, price)}
        for control, figures in summary["controls"].items()
    }
    earned = policy.reward(reward, price)
    return summary | {"reward": name, "reward_price": price, "mean_reward": earned, "controls": told}


def measured(
    summary: dict[str, Any],
    model: LCNet,
    train_seed: int,
    budget: float | None = None,
    which: str = "final",
    seed: int = 0,
) -> dict[str, Any]:
    """``summary`` with how it was measured: the seed of the training, the options of ``evaluate``, the command."""
    options = {"budget": budget, "which": which, "seed": seed}
    return summary | options | {"price": float(model.price), "train_seed": train_seed, "command": command_line()}


def looks_at_image(summary: dict[str, Any]) -> bool:
    """Whether the policy beats its own decisions shuffled among images, by more than two standard errors."""
    return summary["gain_over_shuffled"] > 2 * summary["gain_over_shuffled_error"]


def print_summary(summary: dict[str, Any]) -> None:
    """The tables of an evaluation, and what they say, on the screen."""
    everything = whole(summary["networks"], summary["pruned"])
    print_deciders(summary, everything)
    print_blocks(summary)
    print_classes(summary, everything)
    print_spread(summary)
    print_gains(summary)


def print_deciders(summary: dict[str, Any], everything: str) -> None:
    """The policy beside its controls and all of the network, which is called ``everything``."""
    title = f"{summary['backbone']} on {summary['dataset']}/{summary['split']}, {summary['images']:,} images"
    reward = ["reward"] if "mean_reward" in summary else []
    columns = "accuracy", "MMACs/image", f"share of {everything.split()[0]}", *reward
    table = table_of(title, ["who decides"], columns)

    def row(name: str, of: dict[str, Any], style: str | None = None) -> None:
        macs, earned = of["macs_mean"], of.get("mean_reward")
        cells = f"{of['accuracy']:.2%}", f"{macs / 1e6:.2f}", f"{macs / summary['dense_macs']:.1%}"
        table.add_row(name, *cells, *(["" if earned is None else f"{earned:.4f}"] if reward else []), style=style)

    row(f"{everything}, no gates", {"accuracy": summary["dense_accuracy"], "macs_mean": summary["dense_macs"]})
    row("policy (greedy)", summary, "bold")
    for name, control in summary["controls"].items():
        row(f"control: {name}", control)
    console.print(table)
    if reward:
        text = f"Rewards are means of {summary['reward']} at price {summary['reward_price']:.4g}."
        say(text)


def print_blocks(summary: dict[str, Any]) -> None:
    """How often each block ran, and how much of it."""
    table = table_of("kept per block, share of images and of filters", [], ["block", "runs", "filters"])
    names = decision_names(len(summary["kept_blocks"]), summary["networks"])
    for name, *shares in zip(names, summary["kept_blocks"], summary["kept_filters"], strict=True):
        table.add_row(name, *(f"{share:.2f}" for share in shares))
    console.print(table)


def print_classes(summary: dict[str, Any], everything: str) -> None:
    """Accuracy of each class, and its MACs as a share of those of all of the network, called ``everything``."""
    table = table_of("per class", ["class"], ["accuracy", f"share of {everything.split()[0]}"])
    for name, figures in summary["classes"].items():
        table.add_row(name, f"{figures['accuracy']:.1%}", f"{figures['macs_ratio']:.1%}")
    console.print(table)


def print_spread(summary: dict[str, Any]) -> None:
    """How unlike images are treated."""
    spread = ", ".join(f"{name} {macs / 1e6:.2f}" for name, macs in summary["macs_percentiles"].items())
    deviation, paths, gates = summary["macs_std"] / 1e6, summary["distinct_paths"], summary["gate_macs"]
    say(
        f"MMACs over images: std {deviation:.2f}, percentiles {spread}; {paths:,} distinct paths; gates included, all "
        f"of which take {gates:,} MACs",
    )
    reads = "reads" if summary["confidence"] else "does not read"
    console.print(f"The policy {reads} the confidence of a probe on the features.")
    if "difficulty_correlation" in summary:
        console.print(f"rank correlation of MACs with known difficulty: {summary['difficulty_correlation']:+.3f}")


def print_gains(summary: dict[str, Any]) -> None:
    """What looking at the image is worth, and what skipping loses."""
    gain, beside_static, beside_all = (_worded_gain(summary, name) for name in GAINS)
    looks = looks_at_image(summary)
    verdict = "depend" if looks else "are not shown to depend"
    sentence = f"The decisions {verdict} on the image: {gain} over the same decisions shuffled among images."
    (say if looks else warn)(sentence)
    static, policy = summary["controls"]["static"]["macs_mean"], summary["macs_mean"]
    apart = f", of the policy's {policy / 1e6:.2f}" if abs(static / policy - 1) > APART else ""
    cost = f"{static / 1e6:.2f} MMACs{apart}"
    chosen = ", which was chosen on some of these images and so looks a little better than it is"
    aside = chosen if summary["split"] == "val" else ""
    say(f"Beside the best static path found{aside}, at {cost}: {beside_static}.")
    own = "its own network" if summary["networks"] == 1 else "its own networks"
    everything = summary["controls"]["keep-all"]["macs_mean"] / 1e6
    say(f"Beside all of {own}, at {everything:.2f} MMACs: {beside_all}.")


def _gain(control: str) -> str:
    """What the policy's gain over a control is called in a summary."""
    return f"gain_over_{control.replace('-', '_')}"


def _worded_gain(summary: dict[str, Any], control: str) -> str:
    gain, error = summary[_gain(control)], summary[f"{_gain(control)}_error"]
    return f"{100 * gain:+.2f} +- {100 * error:.2f} points (standard error)"
