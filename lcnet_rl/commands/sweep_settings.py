"""Settings of ``lcnet-rl sweep``, and those that it gives to its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcnet_rl.commands.parsing import parse_options
from lcnet_rl.commands.train_settings import ALGOS, AnyTrain, without_width
from lcnet_rl.errors import UserError
from lcnet_rl.files import file_name
from lcnet_rl.rewards import check_price
from lcnet_rl.seeds import check_seed
from lcnet_rl.settings import dotted, from_dict, read_preset
from lcnet_rl.sweep.pruning import Pruning
from lcnet_rl.sweep.space import SELECTOR, Space, entries_of, full_name, nested, scalar, setting_types
from lcnet_rl.sweep.study import default_storage

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
    """Where data sets are kept (of folder:PATH, the folder that holds it); by default LCNET_RL_DATA or the user's cache
    folder."""
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
        if not self.study.strip(".") or file_name(self.study) != self.study:
            raise UserError(f"study is a name, which a folder gets too: without / : ? and the like, got {self.study!r}")


def parse(arguments: Sequence[str], prog: str) -> Sweep:
    """Settings from the command line, over those of --preset.

    Raises:
        UserError: for --space or --fixed more than once, of which only the last would count.
    """
    for name in ("--space", "--fixed"):
        if sum(argument.partition("=")[0] == name for argument in arguments) > 1:
            raise UserError(f"{name} is given more than once: name all after one, {name} NAME=... NAME=...")
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


def starting_settings(config: Sweep) -> dict[str, Any]:
    """What every trial starts from: nested values of --train and --fixed.

    Raises:
        UserError: for what ``fixed_values`` refuses.
    """
    base = read_preset(config.train) if config.train else {}
    fixed = fixed_values(config)
    return nested(fixed, without_width(base, fixed.get("backbone")))


def fixed_values(config: Sweep) -> dict[str, Any]:
    """The values of --fixed, by the settings' dotted names.

    Raises:
        UserError: for a setting that no algorithm has, or that a study cannot fix.
    """
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
    return fixed


def settings_of(base: dict[str, Any], values: dict[str, Any], space: Space) -> AnyTrain:
    """A trial's settings: its values over the base.

    Where the algorithm is searched over, settings of the base that this trial's does not have are left out.
    """
    merged = nested(values, without_width(base, values.get("backbone")))
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
