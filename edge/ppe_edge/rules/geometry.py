"""Geometry of boxes and zones."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def enlarged(boxes_xyxy: Floats, margin: float) -> Floats:
    """Returns boxes [N, 4] with a margin on each side, as a fraction of their width and height."""
    border = margin * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
    return np.concatenate((boxes_xyxy[:, :2] - border, boxes_xyxy[:, 2:] + border), axis=1)


def is_inside(x: float, y: float, polygon: Sequence[tuple[float, float]]) -> bool:
    """Returns whether a point lies in a polygon, by ray casting to the right. Upper and left edges count as inside."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


def area(polygon: Sequence[tuple[float, float]]) -> float:
    """Returns the area of a polygon that does not cross itself."""
    sides = zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in sides)) / 2


def crosses_itself(corners: Sequence[tuple[float, float]]) -> bool:
    """Returns whether two sides of a polygon cross, or are the same; sides that only touch do not count."""
    sides = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    lines = [frozenset(side) for side in sides if side[0] != side[1]]
    if len(set(lines)) < len(lines):  # an outline listed twice would enclose nothing
        return True
    return any(_cross(*first, *second) for first, second in combinations(sides, 2))


def _cross(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]) -> bool:
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Positive if a, b, c turn one way, negative if they turn the other way, 0 if they are in line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
