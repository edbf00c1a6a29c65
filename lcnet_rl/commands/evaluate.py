"""``lcnet-rl evaluate``: accuracy, compute and controls of a run, on the screen, as JSON and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from agents.controls import run_controls
from lcnet_rl.budget import Measurement, meet_budget
from lcnet_rl.commands.trained import refuse_policy_options, variant
from lcnet_rl.data import Dataset, load_dataset, load_training
from lcnet_rl.decisions import decision_names
from lcnet_rl.dense import accuracy_of, dense_predictions
from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import Results, evaluate
from lcnet_rl.files import check_target, write_json
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.per_image import table_beside, write_images
from lcnet_rl.plots import picture_paths, plot_tradeoff
from lcnet_rl.progress import Progress, say, warn
from lcnet_rl.provenance import command_line
from lcnet_rl.report import measured, print_summary, rewarded, summarize
from lcnet_rl.rewards import create_reward, price_range
from lcnet_rl.runs import START, WEIGHTS, data_root, has_agent, of_agent, read_config
from lcnet_rl.seeds import check_seed
from lcnet_rl.tradeoff import trade_off
from lcnet_rl.unchanged import check_classes, warn_if_changed, warn_if_edited
from lcnet_rl.weights import load_backbone, load_model
from lcnet_rl.whole import whole


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run greedily, beside its dense backbone and four controls; or the dense network of a pretrain run."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    split: Literal["val", "test"] = "test"
    """val, or test for final figures."""
    budget: float | None = None
    """Mean share of dense MACs to meet: the keep threshold is calibrated for it on validation images, or the price of a
    run that was trained for a range of prices."""
    price: float | None = None
    """The price to decide at, of a run that was trained for a range of them; the middle one if not given."""
    score: str | None = None
    """A reward and its price, such as linear@0.5, to tell the means of; by default those of the training."""
    which: Literal["final", "best"] = "final"
    """The final model, or the best by validation reward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    data_root: Path | None = None
    """Where data sets are kept (of folder:PATH, the folder that holds it); by default where the run had them."""
    seed: int = 0
    """Of the controls."""
    out: Path | None = None
    """Folder of the figures and pictures; by default the run's own, where compare and frontier look for figures. With
    --which best, --price or --budget files are named for it: evaluation-test-budget0.5.json."""


def run(config: Evaluate) -> None:
    """Evaluate, print, and write ``evaluation-SPLIT.json``, ``images-SPLIT.csv`` and pictures."""
    check_seed(config.seed)
    if config.budget is not None and config.price is not None:
        raise UserError("a budget finds its price by itself: give --budget or --price, not both")
    settings = read_config(config.run)
    check_target("--out", figures_of(config))
    if not has_agent(settings):
        evaluate_dense(config, settings)
        return
    model = load_model(config.run / WEIGHTS[config.which])
    root = data_root(config.data_root, settings)
    train, val = load_training(settings["dataset"], root)
    check_classes(config.run, model.classes, train.name, train.classes)
    warn_if_changed(config.run, train)
    dataset = load_dataset(settings["dataset"], "test", root) if config.split == "test" else val
    summary = evaluate_run(config, model, train, val, dataset)
    warn_if_edited(config.run, settings)  # once a reward of the user's own is imported, too
    print_summary(summary)
    for name in ("tradeoff", "paths"):
        say(f"picture: {picture_of(config, name)}")
    print_files(figures_of(config))


def evaluate_dense(config: Evaluate, settings: dict[str, Any]) -> None:
    """Accuracy and MACs of a run of ``pretrain``; writes ``evaluation-SPLIT.json`` and ``images-SPLIT.csv``."""
    refuse_policy_options(config, "split", "device", "data_root", "out")
    root = data_root(config.data_root, settings)
    dataset = load_dataset(settings["dataset"], config.split, root)
    check_classes(config.run, len(dataset.classes), dataset.name, dataset.classes)
    if config.split == "val":
        warn_if_changed(config.run, dataset)
    backbone = load_backbone(str(config.run), classes=len(dataset.classes))
    warn_if_edited(config.run, settings)
    device = resolve_device(config.device)
    with Progress("images", len(dataset)) as bar:
        predictions = dense_predictions(backbone.to(device), dataset, device, each=bar.advance)
    macs = dense_macs(backbone)
    summary = {
        "accuracy": accuracy_of(predictions, dataset),
        "macs_mean": macs,
        "backbone": backbone.spec.title,
        "width": backbone.spec.width,
        "dataset": dataset.name,
        "split": dataset.split,
        **({"fingerprint": dataset.fingerprint} if dataset.files else {}),
        "images": len(dataset),
        "train_seed": settings["seed"],
        "command": command_line(),
    }
    path = figures_of(config)
    write_images(table_beside(path), dataset, predictions, {}, {"macs": torch.full((len(dataset),), float(macs))})
    write_json(path, summary)
    where = f"{summary['backbone']} on {dataset.name}/{dataset.split}, {len(dataset):,} images"
    figures = f"{summary['accuracy']:.2%} at {summary['macs_mean'] / 1e6:.2f} MMACs an image"
    say(f"{where}: {figures}")
    print_files(path)


def print_files(figures: Path) -> None:
    """Where an evaluation's figures are, and those of every image."""
    say(f"figures: {figures}")
    say(f"every image: {table_beside(figures)}")


def figures_of(config: Evaluate) -> Path:
    """Where the figures are written."""
    return (config.out or config.run) / f"evaluation-{called(config)}.json"


def picture_of(config: Evaluate, name: str) -> Path:
    """Where a picture, ``tradeoff`` or ``paths``, is drawn."""
    return figures_of(config).with_name(f"{name}-{called(config)}.png")


def called(config: Evaluate) -> str:
    """What the files are called after: the split, and what else is not as usual."""
    return config.split + variant(config.which, config.price, config.budget)


def evaluate_run(config: Evaluate, model: LCNet, train: Dataset, val: Dataset, dataset: Dataset) -> dict[str, Any]:
    """The figures of ``report.summarize``, written with their pictures."""
    device = resolve_device(config.device)
    model.to(device)
    settings = read_config(config.run)
    score = None if config.score is None else parse_score(config.score)
    prices = price_range(of_agent(config.run, settings, "price"))
    if config.price is not None:
        model.price.fill_(prices.checked(config.price))
    elif config.budget is not None:
        with Progress(f"tries for budget {config.budget:g}", None) as bar:
            measurement = Measurement(train, val, device, prices=model.spec.prices, each=bar.advance)
            said, _ = meet_budget(model, measurement, config.budget)
        say(said)
    start = load_backbone(str(config.run / START), classes=model.classes).to(device)
    with Progress("images, by policy and dense network", 2 * len(dataset)) as bar:
        policy = evaluate(model, dataset, model.greedy(), device, each=bar.advance)
        dense = dense_predictions(start, dataset, device, each=bar.advance)
    controls = run_controls(model, dataset, policy, train, val, device, config.seed)
    summary = summarize(model, dataset, policy, accuracy_of(dense, dataset), controls)
    summary = measured(summary, model, settings["seed"], config.budget, config.which, config.seed)
    reward, price = score or (of_agent(config.run, settings, "reward"), summary["price"])
    try:
        summary = rewarded(summary, reward, price, policy, controls)
    except UserError as error:  # a module of the user's own may be elsewhere by now
        warn(f"no mean rewards: {error}")
    everything = whole(summary["networks"], summary["pruned"])
    others = {everything: dense, **{name: results.predictions for name, results in controls.items()}}
    write_run_images(table_beside(figures_of(config)), model, dataset, policy, others)
    write_json(figures_of(config), summary)
    few = dataset.sample(2000)
    line = ("other thresholds" if prices.is_one else f"prices {prices}") + f", {len(few):,} images"
    curve = trade_off(model, train, few, device)
    name = config.run.resolve().name
    plot_tradeoff(summary, curve, line, name, picture_of(config, "tradeoff"))
    picture_paths(model, dataset, policy, controls["keep-all"], name, picture_of(config, "paths"))
    return summary


def parse_score(text: str) -> tuple[str, float]:
    """A reward's name and the price of ``REWARD@PRICE``.

    Raises:
        UserError: when there is no such reward, or no price.
    """
    name, _, price = text.rpartition("@")
    if not name:
        raise UserError(f"--score is a reward and its price, such as linear@0.5, got {text}")
    prices = price_range(price)
    if not prices.is_one:
        raise UserError(f"--score has one price, got {price}")
    create_reward(name)
    return name, prices.low


def write_run_images(
    path: Path, model: LCNet, dataset: Dataset, policy: Results, others: dict[str, torch.Tensor]
) -> None:
    """The table of every image: what the policy predicts, how surely, at what cost, what ran, and what others predict.

    Args:
        path: where to.
        model: whose policy it is.
        dataset: the N images.
        policy: its results on them.
        others: predictions of others, (N,) each, by their names.
    """
    names = decision_names(model.depth, len(model.spec.backbone.networks))
    columns = [f"block {name}" if name.isdecimal() else name for name in names]
    ran = dict(zip(columns, model.decisions.kept(policy.actions)[1], strict=True))
    figures = {"confidence": policy.confidence, "log_prob": policy.log_prob, "macs": policy.macs, **ran}
    write_images(path, dataset, policy.predictions, others, figures)
