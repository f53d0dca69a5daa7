"""Faults that a tool makes in every annotation of a data set. They are named once, with their cause."""

from collections.abc import Sequence

from ppe_yolo.data.audit.images import CheckedImage
from ppe_yolo.data.sources.base import Problem

LEAST_OBJECTS = 3  # fewer may agree by chance
_BOX_CODES = ("empty-box", "box-outside", "box-beyond", "zero-based", "tiny-box", "duplicate-box", "whole-image")


def check_habits(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Finds the faults of tools. The images are left out, and the problems of single boxes give way to one for all.

    VoTT 1 writes xmin into ymax, in every object.

    Args:
        root: The data set.
        checked: Its images; those with such a fault are changed.
    """
    with_objects = [c for c in checked if c.raw is not None and c.raw.objects]
    boxes = [o.box_xyxy for c in with_objects if c.raw is not None for o in c.raw.objects]
    if len(boxes) < LEAST_OBJECTS or not all(y2 == x1 for x1, _, _, y2 in boxes):
        return []
    for image in with_objects:
        image.image = None
        image.problems = [p for p in image.problems if p.code not in _BOX_CODES]
    message = (
        f"ymax equals xmin in all {len(boxes)} objects, as a fault of VoTT writes them, so the height of the boxes is lost: "
        "export the annotations again, from VoTT as JSON or CSV"
    )
    return [Problem(severity="error", code="ymax-is-xmin", file=root, message=message)]
