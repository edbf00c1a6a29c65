"""The scalars of a run, as it goes: progress.csv and TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lcnet_rl.files import write_text
from lcnet_rl.job import by_main
from lcnet_rl.runs import PROGRESS


class MetricsLog:
    """Scalars of a run, to progress.csv and TensorBoard; a resumed run goes on in the same files.

    Of several processes the main one alone has files.
    """

    @by_main
    def __init__(self, run: Path, resume_at: int | None = None) -> None:
        """Open the log of ``run``; on resume, rows past the checkpoint's step ``resume_at`` go: they come again."""
        self._path = run / PROGRESS
        self._rows: list[dict[str, str]] = []
        if resume_at is not None and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
            self._rows = [row for row in rows if int(row["time/total_timesteps"]) <= resume_at]
        self._tensorboard = SummaryWriter(str(run), purge_step=None if resume_at is None else resume_at + 1)
        self._flush()

    @by_main
    def write(self, step: int, values: dict[str, float]) -> None:
        """Log one row, unless it is there already: a finished run that is resumed ends with the same validation.

        Args:
            step: environment steps or training images so far, the x axis.
            values: scalar names (stable-baselines3's where it has one) to values.
        """
        row = {"time/total_timesteps": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        if row in self._rows:
            return
        for name, value in values.items():
            if math.isfinite(value):
                self._tensorboard.add_scalar(name, value, step)
        self._rows.append(row)
        self._flush()

    @by_main
    def close(self) -> None:
        """Close TensorBoard's file."""
        self._tensorboard.close()

    def _flush(self) -> None:
        # Small (a row a log point) and new columns may appear at any time, so the whole table is written anew.
        columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["time/total_timesteps"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


def last_validation(folder: Path) -> int:
    """Timesteps until the last row of a run's log, if that is a validation, which the final model gets too; else -1."""
    if not (folder / PROGRESS).is_file():
        return -1
    with (folder / PROGRESS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return int(rows[-1]["time/total_timesteps"]) if rows and rows[-1].get("eval/accuracy") else -1
