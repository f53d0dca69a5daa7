"""Boxes that belong to images of another size, by their positions over a whole data set."""

from collections.abc import Sequence

from ppe_yolo.data.audit.annotation_check import CheckedImage
from ppe_yolo.data.sources.base import Problem

BOX_CODES = (
    "empty-box",
    "swapped-corners",
    "box-outside",
    "box-beyond",
    "zero-based",
    "tiny-box",
    "duplicate-box",
    "whole-image",
)
OUTSIDE_IMAGES, OUTSIDE_FRACTION = 3, 0.2  # one box that is too large proves nothing; many boxes with the centre outside do
CORNER_IMAGES, CORNER_BOXES, CORNER = 20, 50, 0.75  # this many boxes would reach further by chance


def drop_box_problems(images: Sequence[CheckedImage]) -> None:
    """Leaves images out because of a fault of all boxes, which says more than the problems of single ones."""
    for image in images:
        image.image, image.has_faulty_boxes = None, True
        image.problems = [p for p in image.problems if p.code not in BOX_CODES]


def check_positions(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Finds boxes for larger images (many lie outside), and probably for smaller ones (all lie in the upper left).

    Args:
        root: The data set.
        checked: Its images. If boxes lie outside, all are left out, since nothing tells which ones are right.
    """
    with_objects = [
        c
        for c in checked
        if c.raw is not None
        and c.raw.objects
        and not any(p.code in ("size-differs", "exif-rotated", "size-swapped", "pixel-values") for p in c.problems)
    ]
    outside, reach, count = [], 0.0, 0
    for image in with_objects:
        height, width = image.size
        is_outside = False
        for x1, y1, x2, y2 in [o.box_xyxy for o in image.raw.objects] if image.raw is not None else []:
            reach, count = max(reach, x2 / width, y2 / height), count + 1
            is_outside |= (x1 + x2) / 2 > width or (y1 + y2) / 2 > height
        if is_outside:
            outside.append(image)
    if len(outside) >= max(OUTSIDE_IMAGES, OUTSIDE_FRACTION * len(with_objects)):
        files = tuple(str(c.raw.source) for c in outside if c.raw is not None)
        drop_box_problems(with_objects)
        message = (
            f"{len(outside):,} of {len(with_objects):,} images have boxes outside of them, up to {reach:.2g} times their "
            "side: the boxes belong to larger images; use the images that were annotated, or export the annotations for these"
        )
        example = outside[0].raw
        return [
            Problem(
                severity="error",
                code="other-size",
                file=root,
                message=message,
                files=tuple(dict.fromkeys(files)),
                image=example.image if example is not None else "",
                boxes_xyxy=tuple(o.box_xyxy for o in example.objects) if example is not None else (),
            )
        ]
    if len(with_objects) >= CORNER_IMAGES and count >= CORNER_BOXES and reach < CORNER:
        message = (
            f"none of {count:,} boxes in {len(with_objects):,} images reaches the right or lower quarter of its image: the "
            "boxes may belong to smaller images; look at some of them (`ppe-yolo audit --html FILE`)"
        )
        return [Problem(severity="warning", code="other-size", file=root, message=message)]
    return []
