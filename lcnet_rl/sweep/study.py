"""Studies in a database that workers share: SQLite by default, any database that SQLAlchemy knows by its URL.

Workers on one machine can share an SQLite file; for several machines use a database server, as SQLite's locks are not
to be trusted on network file systems.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lcnet_rl.comparison.records import Record, with_width
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.sweep.space import Space

DIRECTIONS: dict[str, tuple[Literal["maximize", "minimize"], ...]] = {
    "pareto": ("maximize", "minimize"),
    "reward": ("maximize",),
}
"""By objective: accuracy and MACs, or one reward."""
SAMPLERS = ("tpe", "nsga2", "random", "grid")
PLAN, OUTCOME, VALIDATIONS, REASON = "plan", "outcome", "validations", "reason"
"""User attributes: the study's settings, what a trial came to, its validations so far, and why it failed."""
LOCK_WAIT = 60
"""Seconds that a worker waits for another's write to an SQLite file."""


def default_storage(runs: Path) -> str:
    """The URL of the SQLite file that holds all studies under ``runs``."""
    return f"sqlite:///{runs / 'studies.db'}"


def open_study(
    name: str, storage: str, objective: str, plan: dict[str, Any], sampler: BaseSampler, patience: int
) -> Study:
    """Create a study, or join it.

    Args:
        name: its name in the storage.
        storage: a database URL.
        objective: a key of ``DIRECTIONS``.
        plan: what all its workers must agree on, plain values.
        sampler: who proposes values.
        patience: seconds without a sign of life after which a worker counts as killed, and its trial is run again.

    Raises:
        UserError: when the database cannot be used, or holds a study of that name with another plan.
    """
    plan = json.loads(json.dumps({"objective": objective, **plan}))
    database = _connect(storage, patience)
    try:
        known = {summary.study_name for summary in optuna.get_all_study_summaries(database)}
        if name in known:  # before Optuna says so in its own words
            _agree(optuna.load_study(study_name=name, storage=database), plan, name)
        study = optuna.create_study(
            study_name=name,
            storage=database,
            sampler=sampler,
            directions=list(DIRECTIONS[objective]),
            load_if_exists=True,
        )
        _agree(study, plan, name)
        study.set_user_attr(PLAN, plan)
    except SQLAlchemyError as error:
        raise lost(storage, error) from error
    return study


def load_study(name: str, storage: str) -> Study:
    """A study to read.

    Raises:
        UserError: when the database cannot be used, or has no such study.
    """
    url = _parsed(storage)
    file = url.database if url.drivername == "sqlite" else None
    if file is not None and not Path(file).is_file():
        raise UserError(f"{name} is no run folder, and no study either: there is no database at {file}; see --storage")
    database = _connect(storage)
    try:
        names = [summary.study_name for summary in optuna.get_all_study_summaries(database)]
        if name not in names:
            raise unknown_name("run folder or study", name, names)
        return optuna.load_study(study_name=name, storage=database)
    except SQLAlchemyError as error:
        raise lost(storage, error) from error


def shown(storage: str) -> str:
    """A storage's URL without its password."""
    return make_url(storage).render_as_string(hide_password=True)


def lost(storage: str, error: Exception) -> UserError:
    """The error for a database that does not answer."""
    reason = str(error.__cause__ or error).strip().splitlines()[0]
    return UserError(f"the storage {shown(storage)} cannot be used: {reason}")


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: completed, pruned, or failed for a reason; not those of killed or stopped workers."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if trial.state != TrialState.FAIL or REASON in trial.user_attrs]


def of_study(study: Study) -> list[Record]:
    """The records of a study's completed trials."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    outcomes = {trial.number: trial.user_attrs[OUTCOME] for trial in completed if OUTCOME in trial.user_attrs}
    return [
        Record(f"{study.study_name}/{number}", with_width(outcome["settings"], outcome["summary"]), outcome["summary"])
        for number, outcome in outcomes.items()
    ]


def fail_stale(study: Study) -> None:
    """Give up the trials of workers that show no sign of life; their values are queued again."""
    with _experimental():
        optuna.storages.fail_stale_trials(study)


def run_again(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial's values for whoever is free next."""
    with _experimental():
        RetryHeartbeatStaleTrialCallback()(study, trial)


def ran_before(trial: FrozenTrial) -> bool:
    """Whether a trial has the values of one that was stopped, killed or broken."""
    with _experimental():
        return RetryHeartbeatStaleTrialCallback.retried_trial_number(trial) is not None


@contextmanager
def _experimental() -> Iterator[None]:
    """Inside, Optuna does not warn that a part of it may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def create_sampler(name: str, seed: int, space: Space) -> BaseSampler:
    """The sampler called ``name``.

    Raises:
        UserError: for an unknown name, or a space that has no grid.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    if name == "grid":
        return GridSampler(space.grid(), seed)
    return SeededByTrial(name, seed)


class SeededByTrial(BaseSampler):
    """A sampler whose randomness follows from the seed and the trial's number.

    So workers with the same command propose different values, and a study that was stopped and continued by one
    worker proposes the values of one that was not.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._inner = self._create(0)

    def _create(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._name == "random":
            return RandomSampler(seed)
        if self._name == "nsga2":
            return NSGAIISampler(population_size=20, seed=seed)
        # Trials that others are running count as bad, so that workers do not all try the same region.
        return TPESampler(seed=seed, constant_liar=True)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See ``BaseSampler``."""
        self._inner = self._create(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See ``BaseSampler``."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See ``BaseSampler``."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See ``BaseSampler``."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """See ``BaseSampler``."""
        self._inner.after_trial(study, trial, state, values)


def _agree(study: Study, plan: dict[str, Any], name: str) -> None:
    """Refuse to join a study whose plan is another one."""
    theirs = study.user_attrs.get(PLAN, plan)
    for key in plan:
        if theirs.get(key) != plan[key]:
            raise UserError(f"study {name} exists with another {key}; give this one a name of its own with --study")


def _parsed(storage: str) -> URL:
    """A database's URL in parts."""
    try:
        return make_url(storage)
    except ArgumentError as error:
        raise UserError(f"{storage!r} is no database URL; e.g. sqlite:///runs/studies.db") from error


def _connect(storage: str, patience: int | None = None) -> RDBStorage:
    """The database at a URL, its tables made where they are missing; with heartbeats for whoever runs trials."""
    # Optuna logs to the screen what this project says in its own words.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = _parsed(storage)
    # A connection for each use: trials take minutes, and servers limit how many may stay open and drop idle ones.
    options: dict[str, Any] = {"poolclass": NullPool}
    if url.drivername == "sqlite":
        options = {"connect_args": {"timeout": LOCK_WAIT}}
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    elif url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    with _experimental():  # as heartbeats are called
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=options,
                heartbeat_interval=None if patience is None else max(1, patience // 4),
                grace_period=patience,
                heartbeat_stale_trial_callback=run_again,
            )
        except (ImportError, NoSuchModuleError) as error:
            raise UserError(
                f"no driver for {shown(storage)} ({error}); for PostgreSQL: pip install 'lcnet-rl[postgres]'"
            ) from error
        except SQLAlchemyError as error:
            raise lost(storage, error) from error
