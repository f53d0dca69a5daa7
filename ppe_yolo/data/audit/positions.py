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
        c for c in checked if c.boxes_xyxy and not c.has("size-differs", "exif-rotated", "size-swapped", "pixel-values")
    ]
    count = sum(len(image.boxes_xyxy) for image in with_objects)
    reach = max((_reach(image) for image in with_objects), default=0.0)
    outside = [image for image in with_objects if _has_centre_outside(image)]
    if len(outside) >= max(OUTSIDE_IMAGES, OUTSIDE_FRACTION * len(with_objects)):
        files = [str(image.raw.source) for image in outside if image.raw is not None]
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
                boxes_xyxy=tuple(outside[0].boxes_xyxy),
            )
        ]
    if len(with_objects) >= CORNER_IMAGES and count >= CORNER_BOXES and reach < CORNER:
        message = (
            f"none of {count:,} boxes in {len(with_objects):,} images reaches the right or lower quarter of its image: the "
            "boxes may belong to smaller images; look at some of them (`ppe-yolo audit --html FILE`)"
        )
        return [Problem(severity="warning", code="other-size", file=root, message=message)]
    return []


def _reach(image: CheckedImage) -> float:
    """How far its boxes extend to the right and down, as a fraction of the side."""
    height, width = image.size
    return max(max(x2 / width, y2 / height) for _, _, x2, y2 in image.boxes_xyxy)


def _has_centre_outside(image: CheckedImage) -> bool:
    """Whether the centre of a box lies beyond the right or lower edge."""
    height, width = image.size
    return any((x1 + x2) / 2 > width or (y1 + y2) / 2 > height for x1, y1, x2, y2 in image.boxes_xyxy)
