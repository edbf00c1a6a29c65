"""``lcnet-rl bench``: what skipping saves and what deciding costs, beside what a user would run instead."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from lcnet_rl.benchmark.profile import print_profile, profile_engine
from lcnet_rl.benchmark.record import machine, print_cases, print_contestants
from lcnet_rl.benchmark.standard import standard
from lcnet_rl.benchmark.trained import trained
from lcnet_rl.commands.bench_overhead import Overhead, bench_env, bench_train, report
from lcnet_rl.data import load_dataset
from lcnet_rl.device import Precision, has_fast_bf16, resolve_device
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.files import check_target, write_json
from lcnet_rl.plots import plot_latencies
from lcnet_rl.progress import console, say
from lcnet_rl.provenance import command_line
from lcnet_rl.runs import data_root, read_config
from lcnet_rl.unchanged import warn_if_edited
from lcnet_rl.weights import load_backbone, load_model

OVERHEADS = {"env": bench_env, "train": bench_train}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
IMAGES = 1000
"""Validation images that a run is timed on."""
RUN = "RUN"
ONLY_OF = {
    "json": (RUN, "standard"),
    **dict.fromkeys(("against", "batches", "precisions", "data_root"), (RUN,)),
    **dict.fromkeys(("backbone", "width", "images"), ("env", "train")),
    "precision": ("train",),
    "device": (RUN, "env", "train"),
}
"""Options that only some benchmarks have, and which."""
STANDARD_TRIALS = {1: 50, 128: 12}
"""Counted trials of the standard cases, by batch size."""


@dataclass(frozen=True)
class Bench:
    """Times in turn, and ratios of medians: of a run's network, of the standard cases, or of env and train."""

    what: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|env|train", help_behavior_hint="(or --preset)")
    ] = ""
    """A run folder: its policy in the engine, masked and in ONNX Runtime, against its dense backbone. env: stepping the
    vector environment, against a forward pass. train: a joint step of reinforce, against a dense step."""
    preset: Literal["standard"] | None = None
    """standard, instead of a run: forced decisions on random weights, in ONNX Runtime and in the engine."""
    json: Path | None = None
    """Where to write the figures of a run (by default bench.json in its folder) or of the standard cases."""
    against: str | None = None
    """Of a run: another dense network than its own backbone to be compared with, that a user might run instead: a
    pretrain run or a file."""
    batches: tuple[int, ...] = (1, 128)
    """Of a run: images at a time."""
    precisions: tuple[Literal["fp32", "bf16"], ...] | None = None
    """Of a run: fp32, bf16, or both; by default fp32, and bf16 where the device computes in it."""
    trials: int | None = None
    """Counted trials of each: 30 for a run, and ten times as many of single images; 50 and 12 for the standard cases at
    batch 1 and 128, but fewer on a slow machine; else 12."""
    threads: int | None = None
    """CPU threads; as many as torch takes when not given (OMP_NUM_THREADS, else all cores)."""
    backbone: str = "resnet20"
    """Of env and train: as of lcnet-rl train."""
    width: int | None = None
    """Of env and train: filters of the stem; the usual width when not given."""
    images: int | None = None
    """Of env and train: images at a time, by default 512 and 128."""
    precision: Precision = "auto"
    """Of train: bf16, fp32 or auto."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; the standard cases are the CPU's."""
    data_root: Path | None = None
    """Of a run: where data sets are kept; by default where the run had them."""

    def __post_init__(self) -> None:
        if bool(self.what) == bool(self.preset):
            raise UserError("give one of: a run folder, env, train, or --preset standard")
        if self.what and self.what not in OVERHEADS and not Path(self.what).is_dir():
            others = f"{', '.join(OVERHEADS)}, --preset standard"
            raise unknown_name("benchmark, and no run folder:", self.what, OVERHEADS, listed=others)
        kind = self.preset or (self.what if self.what in OVERHEADS else RUN)
        for option in fields(self):
            kinds = ONLY_OF.get(option.name, (kind,))
            if kind not in kinds and getattr(self, option.name) != option.default:
                raise UserError(f"--{option.name.replace('_', '-')} is for bench {' or '.join(kinds)}, not for {kind}")
        if self.json and (self.json.is_dir() or self.json.suffix == ".png"):
            raise UserError(f"--json {self.json}: a file for figures is needed, beside which a picture may be written")
        for name, least in (("trials", 2), ("images", 2), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be at least {least}, got {value}")
        if min(self.batches, default=0) < 1 or self.precisions == ():
            raise UserError("--batches and --precisions need at least one entry, and batches of at least one image")
        if any(len(set(entries)) < len(entries) for entries in (self.batches, self.precisions or ())):
            raise UserError("--batches and --precisions take each entry once")


def run(config: Bench) -> None:
    """Time, print, and write JSON and a plot where there is a run or a preset."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(0)
    device = resolve_device(config.device)
    if config.preset:
        bench_standard(config)
    elif config.what in OVERHEADS:
        overhead = Overhead(config.backbone, config.width, config.images, config.trials or 12, config.precision)
        report(overhead, device, *OVERHEADS[config.what](overhead, device))
    else:
        bench_run(config, Path(config.what), device)


def bench_standard(config: Bench) -> None:
    """The standard cases."""
    if config.json:
        check_target("--json", config.json)
    if config.trials is None:
        figures = standard(STANDARD_TRIALS)
    else:
        figures = standard(dict.fromkeys(STANDARD_TRIALS, config.trials), math.inf)
    print_contestants(figures["contestants"])
    print_cases(figures["cases"])
    if config.json:
        save(config.json, torch.device("cpu"), figures)


def bench_run(config: Bench, run: Path, device: torch.device) -> None:
    """A run's network on validation images: tables, ``bench.json``, and a plot of latency against MACs."""
    path = config.json or run / "bench.json"
    check_target("--json", path)
    settings, model = read_config(run), load_model(run)
    warn_if_edited(run, settings)
    dataset = load_dataset(settings["dataset"], "val", data_root(config.data_root, settings)).sample(IMAGES)
    precisions = config.precisions or ("fp32", *(("bf16",) if has_fast_bf16(device) else ()))
    dtypes = [DTYPES[name] for name in precisions]
    figures: dict[str, Any] = {"run": str(run), "dataset": dataset.name, "split": dataset.split}
    figures |= {"threshold": 0.5, "price": float(model.price)}
    if "bf16" in precisions:
        say("bf16: without the masked network and ONNX Runtime, which compute in float32")
    rival = None
    if config.against is not None:
        rival = Path(config.against).name, load_backbone(config.against, classes=model.classes)
        figures["against"] = config.against
    figures |= trained(model, dataset.images, config.batches, dtypes, config.trials or 30, device, rival)
    print_contestants(figures["contestants"])
    print_cases(figures["cases"])
    figures["profile"] = {}
    if device.type != "cpu":
        console.print(f"no profile: it would be of the CPU's time, and this ran on {device}", highlight=False)
    for name, dtype in zip(precisions, dtypes, strict=True) if device.type == "cpu" else ():
        images = dataset.images[: max(config.batches)]
        engine = Engine(model, dtype)
        engine.tune(len(images))
        figures["profile"][name] = profile_engine(engine, images)
        print_profile(figures["profile"][name], name, len(images), len(model.backbone.networks))
    save(path, device, figures)
    if figures["latencies"]:
        picture = path.with_suffix(".png")
        where = f"{dataset.name}/{dataset.split}, {device}, threads: {torch.get_num_threads()}"
        plot_latencies(figures["latencies"], f"{run.resolve().name}: single images of {where}", picture)
        say(f"picture: {picture}")


def save(path: Path, device: torch.device, figures: dict[str, Any]) -> None:
    """Write figures, with the command, the machine and the device, as JSON."""
    write_json(path, {"command": command_line(), "machine": machine(device), **figures})
    say(f"figures: {path}")
