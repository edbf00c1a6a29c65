"""Where policies stand: which of them no other beats, and what is shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lcnet_rl.comparison.frontier import Point, hypervolume, pareto
from lcnet_rl.comparison.published import CIFAR10, Published
from lcnet_rl.comparison.records import Fill, Group, Record, Split, differing, grouped, left_out, one_data_set
from lcnet_rl.comparison.words import nothing_skipped
from lcnet_rl.errors import UserError

Reference = Literal["all", "dense", "published", "none"]
"""What to show beside policies: the dense backbones that they started from, published results, all, or none."""


@dataclass(frozen=True)
class Standing:
    """Policies, and networks to hold them against, on the images of one data set."""

    dataset: str
    split: Split
    groups: Sequence[Group]
    """The policies, one a setting."""
    left_out: Sequence[str]
    """Names of records that are in no group, as a later one has the same settings and seed."""
    differing: dict[str, list[Any]]
    """Settings that differ between groups, by dotted name; a value each."""
    front: Sequence[int]
    """Indices of the groups on the frontier, by rising MACs."""
    most: float
    """MACs from which the hypervolume counts."""
    most_named: str
    """What these are, in words."""
    dense: dict[str, Point]
    """Networks that the policies started from, by a name that says what they are: MACs and accuracy in [0, 1]. Not
    those that are among ``fixed``."""
    beside: dict[str, Point]
    """Those of them that are shown."""
    fixed: Sequence[Group]
    """Networks that treat all images alike, given to hold the policies against, one a setting."""
    published: Sequence[Published]

    @property
    def points(self) -> list[Point]:
        """MACs and accuracy of every group."""
        return [group.point for group in self.groups]

    @property
    def volume(self) -> float:
        """Hypervolume of the policies, in [0, 1]."""
        return hypervolume(self.points, (self.most, 0.0))

    @property
    def given(self) -> dict[str, Point]:
        """MACs and accuracy of ``fixed``, by name."""
        return {group.first.name: group.point for group in self.fixed}


def standing(
    records: Sequence[Record],
    split: Split,
    filled: Fill,
    reference: Reference = "all",
    fixed: Sequence[Record] = (),
    mmacs: float | None = None,
) -> Standing:
    """Group records, find the frontier, and choose what stands beside it.

    Args:
        records: of policies.
        split: that they were measured on.
        filled: completes settings with their defaults, as of ``grouped``.
        reference: what to show beside.
        fixed: networks that treat all images alike, to hold the policies against.
        mmacs: from which the hypervolume counts; None for those of the dearest network with nothing skipped.

    Raises:
        UserError: for records on different data sets, or none; and where nothing is published, but asked for.
    """
    dataset = one_data_set([*records, *fixed])
    published = CIFAR10 if reference in ("all", "published") and dataset == "cifar10" else ()
    if reference == "published" and not published:
        raise UserError(f"there are published results for cifar10 only, not for {dataset}")
    groups, alike = grouped(records, filled), grouped(fixed, filled)
    given = [(network.macs, network.accuracy) for network in fixed]
    dense = {name: at for name, at in dense_backbones(records).items() if at not in given}
    dearest = max(records, key=lambda record: float(record.summary["dense_macs"]))
    return Standing(
        dataset=dataset,
        split=split,
        groups=groups,
        left_out=left_out([*records, *fixed], [*groups, *alike]),
        differing=differing(groups, filled),
        front=pareto([group.point for group in groups]),
        most=float(dearest.summary["dense_macs"]) if mmacs is None else 1e6 * mmacs,
        most_named=nothing_skipped(dearest) if mmacs is None else "as asked for",
        dense=dense,
        beside=dense if reference in ("all", "dense") else {},
        fixed=alike,
        published=published,
    )


def dense_backbones(records: Sequence[Record]) -> dict[str, Point]:
    """MACs and accuracy of the backbones that the records started from, by a name that says what they are."""
    points = {}
    for record in records:
        of = record.summary
        kind = nothing_skipped(record)
        name = f"{kind}: {of['backbone']}, width {of['width']} ({of['dense_accuracy']:.2%})"
        points[name] = (of["dense_macs"], of["dense_accuracy"])
    return points
