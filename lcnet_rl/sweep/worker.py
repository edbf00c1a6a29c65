"""One worker of a study: asks for values, runs the trial, tells what came of it, until the study has enough trials."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lcnet_rl.errors import UserError
from lcnet_rl.files import new_folder
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.progress import console, say
from lcnet_rl.sweep.pruning import Pruning
from lcnet_rl.sweep.space import Space
from lcnet_rl.sweep.study import OUTCOME, REASON, VALIDATIONS, fail_stale, finished, lost, ran_before, run_again

OWN_REASONS = (UserError, torch.OutOfMemoryError)
"""What a trial fails for by itself: its settings cannot be run, it diverges, or it needs more memory than a GPU has."""
Report = Callable[[float, float, float, float], None]
"""Takes a validation: share of the training that is done, accuracy, MACs per image, share of dense MACs.

Raises to stop a hopeless trial; what it raises is not the objective's to catch."""


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial came to, on validation images."""

    accuracy: float
    """In [0, 1]."""
    macs: float
    """Mean MACs per image, gates included."""
    share: float
    """The same as a share of the dense backbone's."""
    run: Path
    """The run folder, on the machine of whoever ran it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The trial's settings, nested, plain values."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Its evaluation, plain values."""


Objective = Callable[[dict[str, Any], Path, Report], TrialOutcome]
"""Takes the trial's values by dotted name, its run folder, empty, and where to report validations.

Raises UserError for a trial that cannot be run or diverges.
"""


@dataclass(frozen=True)
class Worker:
    """What a worker does with a study."""

    study: Study
    space: Space
    objective: Objective
    values: Callable[[float, float, float], tuple[float, ...]]
    """The study's objectives from accuracy, MACs per image, and share of dense MACs."""
    folder: Path
    """Trials get their run folders in here."""
    trials: int
    """The study has enough once so many trials have finished, whoever ran them."""
    pruning: Pruning = field(default_factory=Pruning)
    patience: int = 120
    """Seconds without a sign of life after which another worker counts as killed."""
    storage: str = ""
    """The study's storage, for messages."""

    def work(self, command: str) -> None:
        """Run trials until the study has enough.

        A trial that fails for a reason of its own, or has too little memory on a GPU, is recorded with it, and the
        study goes on. What else goes wrong ends the worker, and the trial is queued to be run again; if that breaks, it
        is recorded too. Workers do not wait for each other when they ask, so a study can end with a trial more than it
        needs for each of its other workers.

        Args:
            command: what to type to go on after Ctrl-C.

        Raises:
            Interrupted: after Ctrl-C; the trial is queued to be run again.
            UserError: when the database is lost.
        """
        try:
            while self._wait_for_turn():
                number = self._run_one(command)
                if number is not None:
                    self._say(self.study.get_trials(deepcopy=False)[number])
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise lost(self.storage, error) from error

    def _wait_for_turn(self) -> bool:
        """Whether the study needs another trial; waits while only other workers' trials are left to finish.

        They may be killed, and then their trials are for whoever is still there.
        """
        waited = False
        while True:
            fail_stale(self.study)
            done = len(finished(self.study))
            running = len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
            queued = len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
            if done >= self.trials:
                return False
            if queued or done + running < self.trials:
                return True
            if not waited:
                console.print(f"waiting for {running} trial(s) of other workers")
                waited = True
            time.sleep(min(5.0, self.patience / 4))

    def _run_one(self, command: str) -> int | None:
        """One trial; returns its number, or None if it was lost to another worker."""
        number, ended = -1, False

        def run(trial: Trial) -> tuple[float, ...]:
            nonlocal number, ended
            number = trial.number
            try:
                values = self._trial(trial)
            except (*OWN_REASONS, optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
                ended = True
                raise
            ended = True
            return values

        try:
            self.study.optimize(run, n_trials=1, catch=OWN_REASONS)
        except (Interrupted, KeyboardInterrupt) as stop:
            self._run_again(number)
            raise Interrupted(command, len(finished(self.study)), self.trials, "trial") from stop
        except Exception as error:
            if ended and isinstance(error, (ValueError, optuna.exceptions.UpdateFinishedTrialError)):
                # Optuna's answer about a trial that others gave up, which may be finished elsewhere by now.
                told = f"trial {number}: given up, as no sign of life came for {self.patience} s; it is run again"
                console.print(told)
                return None
            self._run_again(number)
            raise
        return number

    def _run_again(self, number: int) -> None:
        """Queue a trial again that began, unless it is recorded why it failed."""
        if number >= 0 and REASON not in (trial := self.study.get_trials()[number]).user_attrs:
            run_again(self.study, trial)

    def _trial(self, trial: Trial) -> tuple[float, ...]:
        """Suggest, run, record; returns the objectives."""
        validations: list[list[float]] = []
        trial.set_user_attr(VALIDATIONS, validations)  # a trial that is run again has those of its first run

        def report(done: float, accuracy: float, macs: float, share: float) -> None:
            validations.append([done, *self._scores(self.values(accuracy, macs, share))])
            trial.set_user_attr(VALIDATIONS, validations)
            completed = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if self.pruning.hopeless(validations[-1], [other.user_attrs[VALIDATIONS] for other in completed]):
                raise optuna.TrialPruned

        try:
            values = self.space.suggest(trial)
            # Another study of the same name, in another database, has its trials in the same place.
            outcome = self.objective(values, new_folder(self.folder / f"trial-{trial.number:04d}"), report)
        except OWN_REASONS as error:
            trial.set_user_attr(REASON, str(error))
            raise
        except (Interrupted, optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except Exception as error:
            if ran_before(self.study.get_trials(deepcopy=False)[trial.number]):
                trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
            raise
        trial.set_user_attr(OUTCOME, asdict(outcome) | {"run": str(outcome.run), "host": socket.gethostname()})
        return self.values(outcome.accuracy, outcome.macs, outcome.share)

    def _scores(self, values: tuple[float, ...]) -> list[float]:
        """Objectives such that greater is better."""
        ways = self.study.directions
        return [v if way == StudyDirection.MAXIMIZE else -v for v, way in zip(values, ways, strict=True)]

    def _say(self, trial: FrozenTrial) -> None:
        """A line about a trial that has ended."""
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        if trial.state == TrialState.COMPLETE:
            outcome = trial.user_attrs[OUTCOME]
            what = f"accuracy {outcome['accuracy']:.2%} at {outcome['macs'] / 1e6:.2f} MMACs ({outcome['share']:.1%})"
        elif trial.state == TrialState.PRUNED:
            what = f"stopped as hopeless at {trial.user_attrs[VALIDATIONS][-1][0]:.0%} of its training"
        else:
            what = f"failed: {trial.user_attrs.get(REASON)}"
        done = len(finished(self.study))
        say(f"trial {trial.number} ({done}/{self.trials}): {what}; {values}")
