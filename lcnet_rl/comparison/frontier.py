"""The Pareto frontier of accuracy and compute, and the area under it.

Accuracies are in [0, 1], greater is better; costs are MACs per image, less is better.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""Cost and accuracy."""


def pareto(points: Sequence[Point]) -> list[int]:
    """The points that no other point dominates: none is as accurate at lower cost, or more accurate at the same.

    Returns:
        Indices into ``points``, by rising cost; of equal points, all.
    """
    front: list[int] = []
    best = float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, accuracy = points[index]
        if accuracy > best or (front and points[front[-1]] == (cost, accuracy)):
            front.append(index)
            best = accuracy
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Share of the rectangle between zero cost at full accuracy and ``reference`` that the points dominate.

    (Zitzler and Thiele, 1998.) Points beyond the reference, dearer or less accurate, count for nothing.

    Args:
        points: in any order, dominated ones too.
        reference: the cost and accuracy from which gains count, e.g. the dense network's MACs and accuracy 0.

    Returns:
        In [0, 1].
    """
    most, least = reference
    area, height = 0.0, least
    for index in pareto(points):
        cost, accuracy = points[index]
        if cost < most and accuracy > height:
            area += (most - cost) * (accuracy - height)
            height = accuracy
    return area / (most * (1 - least))
