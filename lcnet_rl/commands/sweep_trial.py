"""One trial of ``lcnet-rl sweep``: a training, and its evaluation on validation images."""

from __future__ import annotations

import torch

from agents.controls import shuffled
from lcnet_rl.commands.building import starting_backbone
from lcnet_rl.commands.train_settings import AnyTrain
from lcnet_rl.commands.training import start_run
from lcnet_rl.comparison.records import MODULES
from lcnet_rl.data import load_training
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.device import resolve_device
from lcnet_rl.evaluate import evaluate
from lcnet_rl.files import plain, write_json
from lcnet_rl.macs import dense_macs
from lcnet_rl.report import measured, summarize
from lcnet_rl.runs import recorded_modules
from lcnet_rl.sweep.worker import Report, TrialOutcome
from lcnet_rl.weights import load_model


def run_trial(settings: AnyTrain, report: Report) -> TrialOutcome:
    """Train, and evaluate on validation images; writes ``evaluation-val.json`` into the run folder."""
    device = resolve_device(settings.device)
    train, val = load_training(settings.dataset, settings.data_root)
    torch.manual_seed(settings.seed)
    backbone = starting_backbone(settings, len(train.classes))
    dense = dense_macs(backbone)

    def on_validation(done: float, scalars: dict[str, float]) -> None:
        report(done, scalars["eval/accuracy"], scalars["eval/macs_ratio"] * dense, scalars["eval/macs_ratio"])

    reference = dense_accuracy(backbone.to(device), val, device)
    folder = start_run(settings, backbone, train, val, device, on_validation)
    model = load_model(folder).to(device)
    policy = evaluate(model, val, model.greedy(), device)
    control = evaluate(model, val, shuffled(policy.actions, seed=0), device)
    summary = summarize(model, val, policy, reference, {"shuffled": control})
    summary = measured(summary, model, settings.seed)
    write_json(folder / "evaluation-val.json", summary)
    told = {**plain(settings), MODULES: recorded_modules(folder)}
    if model.spec.prices is not None:  # of a range, measured at the middle one
        told["evaluate"] = {"price": float(model.price)}
    return TrialOutcome(policy.accuracy, summary["macs_mean"], policy.macs_ratio, folder, told, summary)
