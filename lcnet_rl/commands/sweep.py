"""``lcnet-rl sweep``: search over settings of ``train``, by as many workers as were started with the same command."""

from __future__ import annotations

import multiprocessing
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from optuna.study import Study
from optuna.trial import TrialState

from lcnet_rl.backbones import Backbone
from lcnet_rl.commands.building import check, starting_backbone
from lcnet_rl.commands.run_defaults import with_defaults
from lcnet_rl.commands.sweep_settings import (
    Sweep,
    fixed_values,
    parse,
    price_of,
    settings_of,
    starting_settings,
    storage_of,
)
from lcnet_rl.commands.sweep_trial import run_trial
from lcnet_rl.commands.train_settings import ALGOS, AnyTrain, refuse_price
from lcnet_rl.comparison.show import show
from lcnet_rl.comparison.standing import standing
from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.files import plain
from lcnet_rl.interrupt import Interrupted, sigterm_as_ctrl_c
from lcnet_rl.macs import dense_macs
from lcnet_rl.memory import keep_freed_memory
from lcnet_rl.progress import console, say, warn
from lcnet_rl.provenance import command_line
from lcnet_rl.sweep.space import SELECTOR, Space, read_space
from lcnet_rl.sweep.study import REASON, create_sampler, finished, of_study, open_study, shown
from lcnet_rl.sweep.worker import Report, TrialOutcome, Worker
from lcnet_rl.weights import load_backbone

__all__ = ["parse", "run"]


def run(config: Sweep) -> None:
    """Work until the study has its trials; then show the frontier so far."""
    mine = prepare(config)
    points = mine.space.points
    if config.sampler != "grid" and points is not None and points <= config.trials:
        few = f"the space has {points} points only, and --sampler {config.sampler} may try one twice"
        warn(f"{few}: --sampler grid tries each once")
    if config.workers > 1:
        torch.set_num_threads(1)
    with sigterm_as_ctrl_c():
        others = [start_worker(config, number) for number in range(2, config.workers + 1)]
        try:
            mine.work(command_line())
            wait_for(others)
        except BaseException:
            for process in others:  # the signal may have come to this one only
                process.terminate()
            wait_for(others)
            raise
    if any(process.exitcode for process in others):
        warn(f"a worker ended early; see {config.runs / config.study}/worker-*.log")
    conclude(config, mine.study, space=mine.space)


def wait_for(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
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
    base, fixed = starting_settings(config), fixed_values(config)
    algo = base.get(SELECTOR, "reinforce")
    if algo not in ALGOS:
        raise unknown_name("algo", str(algo), ALGOS)
    space = read_space(config.space, ALGOS, algo)

    def build(values: dict[str, Any]) -> AnyTrain:
        return settings_of(base, values, space)

    networks: dict[tuple[str | float | None, ...], Backbone] = {}
    teachers: set[str] = set()

    def try_settings(values: dict[str, Any]) -> None:
        settings = build(values)
        # Where the reward is searched over, a fixed price is for those of them that have one.
        given = values if "agent.reward" in values else {**fixed, **values}
        if "agent.price" in given:
            refuse_price(settings.agent.reward, "price")
        second = settings.second, settings.second_weight, settings.second_mirrored
        network = settings.dataset, settings.backbone, settings.width, settings.init, *second
        if network not in networks:
            networks[network] = starting_backbone(settings, classes=None)
        if settings.teacher and settings.teacher not in teachers:
            load_backbone(settings.teacher, classes=None)
            teachers.add(settings.teacher)
        check(settings, networks[network])

    space.check(try_settings)
    if config.objective == "reward" and len({dense_macs(network) for network in networks.values()}) > 1:
        raise UserError(
            "--objective reward takes the share of a network's own MACs, and the space has networks of different cost: "
            "search over one of them, or use --objective pareto"
        )
    resolve_device(config.device)
    return worker(config, create_or_join(config, base, space), space, build)


def create_or_join(config: Sweep, base: dict[str, Any], space: Space) -> Study:
    """Create the study, or join it where it exists."""
    plan: dict[str, Any] = {"space": space.describe(), "settings of trials": plain(base), "sampler": config.sampler}
    if config.objective == "reward":
        plan["price"] = price_of(config)
    sampler = create_sampler(config.sampler, config.seed, space)
    return open_study(config.study, storage_of(config), config.objective, plan, sampler, config.patience)


def worker(config: Sweep, study: Study, space: Space, build: Callable[[dict[str, Any]], AnyTrain]) -> Worker:
    """A worker whose trials train with the settings that ``build`` makes."""

    def objective(values: dict[str, Any], folder: Path, report: Report) -> TrialOutcome:
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


def start_worker(config: Sweep, number: int) -> multiprocessing.process.BaseProcess:
    """One more worker process; it writes to ``worker-NUMBER.log`` in the study's folder."""
    log = config.runs / config.study / f"worker-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=_work_alone, args=(config, log))
    process.start()
    return process


def _work_alone(config: Sweep, log: Path) -> None:
    """A worker process: the same as ``run`` alone, without the figures at the end."""
    torch.set_num_threads(1)  # a process begins with as many as OMP_NUM_THREADS says
    keep_freed_memory()
    with sigterm_as_ctrl_c(), log.open("a", buffering=1, encoding="utf-8") as console.file:
        try:
            prepare(config).work(command_line())
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except (UserError, Interrupted) as stop:
            say(str(stop))
            raise SystemExit(130 if isinstance(stop, Interrupted) else 2) from None


def conclude(config: Sweep, study: Study, space: Space) -> None:
    """Count what became of the trials, show the frontier, and say what to do next.

    Raises:
        UserError: when no trial was of use.
    """
    trials = finished(study)
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    say(
        f"study {config.study}: {counts[TrialState.COMPLETE]} trials completed, {counts[TrialState.PRUNED]} stopped as "
        f"hopeless, {counts[TrialState.FAIL]} failed",
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
    say(f"study: {shown(storage_of(config))}")
    say(f"run folders: {config.runs / config.study}")
    most = space.points or config.trials if config.sampler == "grid" else config.trials + 20
    if len(trials) < most:
        what = f"{len(trials)} of the grid's {most} points; all" if config.sampler == "grid" else "more trials"
        say(f"{what}: the same command with --trials {most}")
    say(f"again: {shlex.join(again)}")
