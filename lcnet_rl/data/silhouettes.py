"""Ten silhouettes as signed distance functions: negative inside, zero on the edge, positive outside.

A point (x, y) is in the shape's own frame, where the shape is about one unit in radius; so position, size and
rotation are changes of coordinates, and a soft edge is a clamp. Formulas after Inigo Quilez, "2D distance
functions"; where a union or an intersection makes the value only a bound of the distance, the edge is still
exact. No silhouette is another one rotated or mirrored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""Any shape; coordinates and distances in units of the silhouette's radius."""


def box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """Distance to a rectangle around the origin."""
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def disc(x: Field, y: Field) -> Field:
    """A filled circle."""
    return np.hypot(x, y) - np.float32(0.92)


def ring(x: Field, y: Field) -> Field:
    """A circle with a hole."""
    return np.abs(np.hypot(x, y) - np.float32(0.74)) - np.float32(0.24)


def square(x: Field, y: Field) -> Field:
    """A filled square."""
    return box(x, y, 0.78, 0.78)


def frame(x: Field, y: Field) -> Field:
    """A square with a hole."""
    return np.maximum(box(x, y, 0.86, 0.86), -box(x, y, 0.44, 0.44))


def triangle(x: Field, y: Field) -> Field:
    """An equilateral triangle."""
    slanted = np.float32(np.sqrt(3) / 2) * np.abs(x) + np.float32(0.5) * y
    return np.maximum(slanted, -y) - np.float32(0.54)


def cross(x: Field, y: Field) -> Field:
    """Two bars that cross in the middle."""
    return np.minimum(box(x, y, 1.0, 0.3), box(x, y, 0.3, 1.0))


def star(x: Field, y: Field) -> Field:
    """A star with five points: one edge, folded ten times around the centre."""
    fifth = np.float32(2 * np.pi / 5)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    angle = np.abs(np.mod(angle + fifth / 2, fifth) - fifth / 2)
    point, notch = np.array([1.12, 0.0]), 0.46 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    along = (notch - point) / np.linalg.norm(notch - point)
    outward = np.array([along[1], -along[0]], dtype=np.float32)
    distance = (radius * np.cos(angle) - np.float32(point[0])) * outward[0] + radius * np.sin(angle) * outward[1]
    return distance.astype(np.float32)


def crescent(x: Field, y: Field) -> Field:
    """A disc with a bite of another disc."""
    bite = np.hypot(x - np.float32(0.62), y) - np.float32(0.78)
    return np.maximum(np.hypot(x, y) - np.float32(0.98), -bite)


def half_disc(x: Field, y: Field) -> Field:
    """A disc cut through its middle."""
    x = x + np.float32(0.42)
    return np.maximum(np.hypot(x, y) - np.float32(1.05), -x)


def bars(x: Field, y: Field) -> Field:
    """Two parallel bars."""
    return box(np.abs(x) - np.float32(0.56), y, 0.27, 0.92)


SILHOUETTES: dict[str, Callable[[Field, Field], Field]] = {
    function.__name__: function
    for function in (disc, ring, square, frame, triangle, cross, star, crescent, half_disc, bars)
}
"""Class name to signed distance, in the order of the labels."""
