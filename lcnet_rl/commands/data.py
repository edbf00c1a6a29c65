"""``lcnet-rl data``: fetch a data set if it is not on the machine yet, verify it, and say what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lcnet_rl.data import Dataset, load_dataset, load_training, place
from lcnet_rl.progress import console, say
from lcnet_rl.tables import table_of


@dataclass(frozen=True)
class Data:
    """Fetch, verify and describe a data set."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """cifar10, shapes (built in), or folder:PATH (PATH/train/CLASS/* and PATH/test/CLASS/*); or held-out:NAME."""
    data_root: Path | None = None
    """Where downloaded data lives; default LCNET_RL_DATA, else lcnet_rl/data in the user's cache folder."""


def run(config: Data) -> None:
    """Load every split and print a table of them, a line each.

    Raises:
        UserError: an unknown name, data that cannot be had, or a faulty folder.
    """
    table = table_of(config.name, ["split"], ["images", "classes", "a class, min", "a class, max"])
    for images in (*load_training(config.name, config.data_root), load_dataset(config.name, "test", config.data_root)):
        table.add_row(*_row(images))
    console.print(table)
    say(f"stored in: {place(config.name, config.data_root)}")


def _row(dataset: Dataset) -> tuple[str, ...]:
    counts = dataset.labels.bincount(minlength=len(dataset.classes))
    numbers = (len(dataset), len(dataset.classes), int(counts.min()), int(counts.max()))
    return dataset.split, *(f"{number:,}" for number in numbers)
