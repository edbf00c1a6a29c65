"""What became of every image of an evaluation, as a CSV file; and accuracies compared on the same images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lcnet_rl.data import Dataset
from lcnet_rl.errors import UserError
from lcnet_rl.files import replacing

FIRST = ("image", "label", "predicted")
"""The first columns."""
NAMES = "surrogateescape"
"""Files may have names that are not UTF-8."""


def table_beside(evaluation: Path) -> Path:
    """Where the table is of an evaluation, ``evaluation-SPLIT.json``: ``images-SPLIT.csv``."""
    return evaluation.with_name(evaluation.name.replace("evaluation-", "images-", 1)).with_suffix(".csv")


def write_images(
    path: Path, dataset: Dataset, predictions: Tensor, others: Mapping[str, Tensor], figures: Mapping[str, Tensor]
) -> None:
    """A line for each of N images, in the order of the data set, after one with the columns' names.

    An image is named by its file, or where it is none by its place in the split, from 0. Its difficulty, where that is
    known, comes last.

    Args:
        path: replaced, atomically.
        dataset: the N images.
        predictions: (N,), indices of classes; written as class names, as are labels.
        others: by column, what others predict, (N,), indices of classes.
        figures: by column, (N,) each; written with six digits, or whole where it is.
    """
    image, label, predicted = FIRST
    columns: dict[str, Sequence[object]] = {image: dataset.files or range(len(dataset))}
    for name, classes in {label: dataset.labels, predicted: predictions, **others}.items():
        columns[name] = [dataset.classes[index] for index in classes.tolist()]
    known = {} if dataset.difficulty is None else {"difficulty": dataset.difficulty}
    for name, values in {**figures, **known}.items():
        columns[name] = [f"{value:.0f}" if value == round(value) else f"{value:.6g}" for value in values.tolist()]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=NAMES) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_correct(path: Path) -> tuple[list[tuple[str, str]], Tensor]:
    """Which images a table is of, each with its label, and which were classified correctly: (N,), 0 or 1, float64.

    Raises:
        UserError: when it is no table of ``write_images``.
    """
    with path.open(newline="", encoding="utf-8", errors=NAMES) as file:
        names = file.readline().rstrip("\n").split(",")
        rows = list(csv.reader(file))
    if names[: len(FIRST)] != list(FIRST) or not rows or any(len(row) != len(names) for row in rows):
        raise UserError(f"{path} is damaged, or no table of lcnet-rl evaluate, which begins with {', '.join(FIRST)}")
    correct = [label == predicted for _, label, predicted, *_ in rows]
    return [(image, label) for image, label, *_ in rows], torch.tensor(correct, dtype=torch.float64)


def paired_difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """The mean of ``one - other``, and its standard error, over N pairs.

    Args:
        one: (N,), of the same images in the same order as the other.
        other: (N,).
    """
    difference = one.double() - other.double()
    return float(difference.mean()), float(difference.std(correction=0)) / len(difference) ** 0.5
