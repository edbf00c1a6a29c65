"""``lcnet-rl sweep``: search over settings of ``train``, by as many workers as were started with the same command."""

from __future__ import annotations

import multiprocessing
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from optuna.study import Study
from optuna.trial import TrialState

from agents.controls import shuffled
from lcnet_rl.backbones import Backbone
from lcnet_rl.commands.building import check, starting_backbone
from lcnet_rl.commands.parsing import parse_options
from lcnet_rl.commands.run_defaults import with_defaults
from lcnet_rl.commands.train_settings import ALGOS, AnyTrain
from lcnet_rl.commands.training import start_run
from lcnet_rl.comparison.records import MODULES
from lcnet_rl.comparison.show import show
from lcnet_rl.comparison.standing import standing
from lcnet_rl.data import load_dataset
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.device import check_seed, resolve_device
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.evaluate import evaluate
from lcnet_rl.files import plain, write_json
from lcnet_rl.interrupt import Interrupted, sigterm_as_ctrl_c
from lcnet_rl.macs import dense_macs
from lcnet_rl.memory import keep_freed_memory
from lcnet_rl.progress import console
from lcnet_rl.provenance import command_line
from lcnet_rl.report import measured, summarize
from lcnet_rl.rewards import check_price
from lcnet_rl.runs import recorded_modules
from lcnet_rl.settings import dotted, from_dict, read_preset
from lcnet_rl.sweep.pruning import Pruning
from lcnet_rl.sweep.space import SELECTOR, Space, entries_of, full_name, nested, read_space, scalar, setting_types
from lcnet_rl.sweep.study import REASON, create_sampler, default_storage, finished, of_study, open_study, shown
from lcnet_rl.sweep.worker import Outcome, Report, Worker
from lcnet_rl.weights import load_backbone, load_model

KIND = "sweep"
"""Presets of sweeps are in a folder of this name."""
PRICE = 0.3
"""Of the objective reward, where none is given."""
NOT_FIXED = {
    "preset": "a preset of train is given with --train",
    "resume": "a trial begins anew; to start all from a run give --fixed init=RUN",
    "run": "each trial gets a run folder of its own, in the study's under --runs",
    "runs": "trials get their run folders under --runs",
}
"""Settings of train that trials cannot be given, and what is meant instead."""


@dataclass(frozen=True)
class Sweep:
    """Search over settings of train. The same command again is one more worker, or goes on."""

    preset: str | None = None
    """Start from these settings of sweep: smoke, or a YAML file; further options override them."""
    space: tuple[str, ...] = ()
    """What to search over, NAME=SPEC each: price=0.1..2:log, rollouts=1..4, reward=linear,confidence. A reward's
    parameters are searched as a list of rewards: reward='[confidence:floor=3, "asymmetric:sure=1,unsure=0"]'."""
    train: str | None = None
    """Settings that every trial starts from: a preset of train or a YAML file; train's own defaults when not given."""
    fixed: tuple[str, ...] = ()
    """Further settings of every trial, NAME=VALUE each, over those of --train: agent.epochs=4 seed=1."""
    study: str = "sweep"
    """Name of the study; workers with the same name and storage share it."""
    storage: str | None = None
    """The study's database: a URL such as postgresql://user@host/name (leave the password to PGPASSWORD or ~/.pgpass).
    By default an SQLite file under --runs, for workers on one machine."""
    trials: int = 20
    """Trials of the whole study, whoever runs them; pruned and failed ones count."""
    objective: Literal["pareto", "reward"] = "pareto"
    """pareto: more accuracy, fewer MACs; reward: accuracy - price * share of dense MACs. On validation images."""
    price: float | None = None
    """Of the objective reward, 0.3 if not given, the same for all trials: rewards at the prices that they train with do
    not compare."""
    sampler: str = "tpe"
    """tpe, nsga2, random, or grid (choices and ranges with steps only)."""
    pruning: Pruning = field(default_factory=Pruning)
    seed: int = 0
    """Of the sampler; trials have the seed of train."""
    workers: int = 1
    """Worker processes to start here, one thread each where there are several."""
    patience: int = 120
    """Seconds without a sign of life after which a worker counts as killed, and its trial is run again."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    data_root: Path | None = None
    """Where data sets are kept; by default LCNET_RL_DATA or the user's cache folder."""
    runs: Path = Path("runs")
    """Trials' run folders are made in a folder of the study's name in here."""

    def __post_init__(self) -> None:
        for name in ("trials", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patience < 4:
            raise UserError(f"patience must be at least 4 seconds, got {self.patience}")
        if self.price is not None:
            check_price(self.price)
        check_seed(self.seed)
        if not self.study or "/" in self.study:
            raise UserError(f"study is a name, which a folder gets too, got {self.study!r}")


def parse(arguments: Sequence[str], prog: str) -> Sweep:
    """Settings from the command line, over those of --preset."""
    given = parse_options(Sweep, arguments, prog)
    if given.preset is None:
        return given
    values = read_preset(given.preset, KIND)
    for name in ("space", "fixed"):
        if isinstance(values.get(name), dict):
            values[name] = entries_of(values[name])
        if name in values:
            entries = values[name] or ()
            if not isinstance(entries, list | tuple):
                raise UserError(f"preset {given.preset}: {name} is a table or a list, got {entries!r}")
            values[name] = tuple(entries)
    default = from_dict(Sweep, values, f"preset {given.preset}")
    return parse_options(Sweep, arguments, prog, default)


def run(config: Sweep) -> None:
    """Work until the study has its trials; then show the frontier so far."""
    mine = prepare(config)
    points = mine.space.points
    if config.sampler != "grid" and points is not None and points <= config.trials:
        few = f"the space has {points} points only, and --sampler {config.sampler} may try one twice"
        console.print(f"{few}: --sampler grid tries each once", style="yellow", soft_wrap=True)
    with sigterm_as_ctrl_c():
        others = [start_worker(config, number) for number in range(2, config.workers + 1)]
        try:
            mine.work(command_line())
            join_all(others)
        except BaseException:
            for process in others:  # the signal may have come to this one only
                process.terminate()
            join_all(others)
            raise
    if any(process.exitcode for process in others):
        console.print(f"a worker ended early; see {config.runs / config.study}/worker-*.log", style="yellow")
    conclude(config, mine.study, space=mine.space)


def join_all(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Wait until all have ended."""
    for process in processes:
        process.join()


def prepare(config: Sweep) -> Worker:
    """Check everything that can be checked before a trial starts, and create the study or join it."""
    # Not with the settings themselves: they are read once without the preset, which may give the objective.
    if config.objective == "pareto" and config.price is not None:
        raise UserError(
            "--price is of --objective reward; for the price that trials train with give "
            f"--fixed price={config.price:g}, or search over it"
        )
    base = starting_settings(config)
    algo = base.get(SELECTOR, "reinforce")
    if algo not in ALGOS:
        raise unknown_name("algo", str(algo), ALGOS)
    space = read_space(config.space, ALGOS, algo)

    def build(values: dict[str, Any]) -> AnyTrain:
        return settings_of(base, values, space)

    networks: dict[tuple[str | float | None, ...], Backbone] = {}

    def try_settings(values: dict[str, Any]) -> None:
        settings = build(values)
        second = settings.second, settings.second_weight, settings.second_mirrored
        network = settings.dataset, settings.backbone, settings.width, settings.init, *second
        if network not in networks:
            networks[network] = starting_backbone(settings, classes=None)
        if settings.teacher and (settings.teacher,) not in networks:
            networks[settings.teacher,] = load_backbone(settings.teacher, classes=None)
        check(settings, networks[network])

    space.check(try_settings)
    resolve_device(config.device)
    return worker(config, join(config, base, space), space, build)


def join(config: Sweep, base: dict[str, Any], space: Space) -> Study:
    """Create the study, or join it where it exists."""
    plan: dict[str, Any] = {"space": space.describe(), "settings of trials": plain(base), "sampler": config.sampler}
    if config.objective == "reward":
        plan["price"] = price_of(config)
    sampler = create_sampler(config.sampler, config.seed, space)
    return open_study(config.study, storage_of(config), config.objective, plan, sampler, config.patience)


def worker(config: Sweep, study: Study, space: Space, build: Callable[[dict[str, Any]], AnyTrain]) -> Worker:
    """A worker whose trials train with the settings that ``build`` makes."""

    def objective(values: dict[str, Any], folder: Path, report: Report) -> Outcome:
        settings = replace(build(values), run=folder)
        if config.device != "auto":
            settings = replace(settings, device=config.device)
        return run_trial(replace(settings, data_root=config.data_root or settings.data_root), report)

    def objectives(accuracy: float, macs: float, share: float) -> tuple[float, ...]:
        return (accuracy, macs) if config.objective == "pareto" else (accuracy - price_of(config) * share,)

    return Worker(
        study,
        space,
        objective,
        objectives,
        config.runs / config.study,
        min(config.trials, space.points or config.trials) if config.sampler == "grid" else config.trials,
        config.pruning,
        config.patience,
        storage_of(config),
    )


def run_trial(settings: AnyTrain, report: Report) -> Outcome:
    """Train, and evaluate on validation images; writes ``evaluation-val.json`` into the run folder."""
    device = resolve_device(settings.device)
    train, val = (load_dataset(settings.dataset, split, settings.data_root) for split in ("train", "val"))
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
    return Outcome(policy.accuracy, summary["macs_mean"], policy.macs_ratio, folder, told, summary)


def starting_settings(config: Sweep) -> dict[str, Any]:
    """What every trial starts from: nested values of --train and --fixed.

    Raises:
        UserError: for a setting that no algorithm has.
    """
    base = read_preset(config.train) if config.train else {}
    types = {name: hint for kind in ALGOS.values() for name, hint in setting_types(kind).items()}
    fixed = {}
    for entry in config.fixed:
        name, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"fixed {entry!r}: give NAME=VALUE")
        name = full_name(name, types)
        if name in NOT_FIXED:
            raise UserError(f"fixed {entry!r}: {NOT_FIXED[name]}")
        fixed[name] = scalar(value, types[name])
    return nested(fixed, base)


def settings_of(base: dict[str, Any], values: dict[str, Any], space: Space) -> AnyTrain:
    """A trial's settings: its values over the base.

    Where the algorithm is searched over, settings of the base that this trial's does not have are left out.
    """
    merged = nested(values, base)
    kind = ALGOS[merged.get(SELECTOR, "reinforce")]
    if SELECTOR in space.dimensions:
        known = setting_types(kind)
        found = dotted(merged)
        merged = nested({name: found[name] for name in found if name in known or not name.startswith("agent.")})
    return from_dict(kind, merged, "settings of trials")


def price_of(config: Sweep) -> float:
    """Of the objective reward."""
    return PRICE if config.price is None else config.price


def storage_of(config: Sweep) -> str:
    """The study's database."""
    return config.storage or default_storage(config.runs)


def start_worker(config: Sweep, number: int) -> multiprocessing.process.BaseProcess:
    """One more worker process; it writes to ``worker-NUMBER.log`` in the study's folder."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    log = config.runs / config.study / f"worker-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=_work_alone, args=(config, log))
    process.start()
    return process


def _work_alone(config: Sweep, log: Path) -> None:
    """A worker process: the same as ``run`` alone, without the figures at the end."""
    keep_freed_memory()
    with sigterm_as_ctrl_c(), log.open("a", buffering=1, encoding="utf-8") as console.file:
        try:
            prepare(config).work(command_line())
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except (UserError, Interrupted) as stop:
            console.print(str(stop), soft_wrap=True, highlight=False)
            raise SystemExit(130 if isinstance(stop, Interrupted) else 2) from None


def conclude(config: Sweep, study: Study, space: Space) -> None:
    """Count what became of the trials, show the frontier, and say what to do next.

    Raises:
        UserError: when no trial was of use.
    """
    trials = finished(study)
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    console.print(
        f"study {config.study}: {counts[TrialState.COMPLETE]} trials completed, {counts[TrialState.PRUNED]} stopped as "
        f"hopeless, {counts[TrialState.FAIL]} failed",
        highlight=False,
        soft_wrap=True,
    )
    records = of_study(study)
    if not records:
        reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        raise UserError(f"no trial of study {config.study} has completed; the last reason: {reasons[-1]}")
    show(standing(records, "val", with_defaults), config.runs / config.study)
    if config.objective == "reward":
        best = study.best_trial
        console.print(f"best reward: {best.value:.4f}, trial {best.number}", highlight=False)
    again = ["lcnet-rl", "frontier", config.study]
    if config.storage:
        again += ["--storage", shown(config.storage)]
    if config.runs != Path("runs"):
        again += ["--runs", str(config.runs)]
    console.print(f"study: {shown(storage_of(config))}", soft_wrap=True, highlight=False)
    console.print(f"run folders: {config.runs / config.study}", soft_wrap=True, highlight=False)
    most = space.points or config.trials if config.sampler == "grid" else config.trials + 20
    if len(trials) < most:
        what = f"{len(trials)} of the grid's {most} points; all" if config.sampler == "grid" else "more trials"
        console.print(f"{what}: the same command with --trials {most}", soft_wrap=True, highlight=False)
    console.print(f"again: {shlex.join(again)}", soft_wrap=True, highlight=False)
