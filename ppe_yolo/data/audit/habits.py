"""Faults that a tool makes in every annotation of a data set. They are named once, with their cause."""

from collections.abc import Sequence

from ppe_yolo.data.audit.images import CheckedImage
from ppe_yolo.data.sources.base import Problem

LEAST_OBJECTS = 3  # fewer may agree by chance
LEAST_IMAGES = 3
_BOX_CODES = ("empty-box", "box-outside", "box-beyond", "zero-based", "tiny-box", "duplicate-box", "whole-image")


def check_habits(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Finds the faults of tools. The problems of single boxes give way to one for all.

    VoTT 1 writes xmin into ymax, in every object; such images are left out. Many tools count pixels from 0.

    Args:
        root: The data set.
        checked: Its images; those with such a fault are changed.
    """
    return _check_ymax(root, checked) or _check_zero_based(root, checked)


def _check_zero_based(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    affected = [c for c in checked if any(p.code == "zero-based" for p in c.problems)]
    if len(affected) < LEAST_IMAGES:
        return []
    for image in affected:
        image.problems = [p for p in image.problems if p.code != "zero-based"]
    message = (
        f"xmin or ymin is 0 in {len(affected):,} images, but Pascal VOC counts pixels from 1: the annotation tool probably "
        "counts from 0; boxes are used as they are, so no action is needed"
    )
    return [Problem(severity="warning", code="zero-based", file=root, message=message)]


def _check_ymax(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
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
