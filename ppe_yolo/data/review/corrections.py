"""Corrections of the boxes of one image, where they are certain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.audit.annotation_check import CheckedImage, box_text, fits, is_possible, is_same_box
from ppe_yolo.data.audit.meanings import numbers
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import EXIF_ORIENTATION, local_path, shown
from ppe_yolo.data.sources.base import Box

# problems that `correct` decides about itself
_BOXES = frozenset({"swapped-corners", "empty-box", "box-outside"})
_COORDINATES = frozenset({"size-differs", "exif-rotated", "pixel-values"})
LEAST_PROOFS = 3  # images that must prove the same before it is assumed of images that prove nothing

PixelForm = Literal["centre", "corners", "corner and size"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the corrected copy.

    Attributes:
        code: Kind of problem that it corrects, as in the audit.
        file: The file of the data set.
        item: The part of the file, such as an object.
        message: What was changed, or why the image is left out.
        left_out: Whether the image is left out, since only a person can correct it.
    """

    code: str
    file: str
    item: str = ""
    message: str
    left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What all images together prove about those that prove nothing.

    Attributes:
        factors: Factors (rounded) by which boxes must be scaled.
        are_sides_swapped: Whether annotated sizes with swapped sides are just that, and the boxes fit the upright images.
        is_rotation_missing: Whether boxes lack the EXIF rotation.
        pixel_form: The meaning of YOLO's numbers where they are pixels; None if more than one is possible.
    """

    factors: frozenset[float]
    are_sides_swapped: bool
    is_rotation_missing: bool
    pixel_form: PixelForm | None

    @classmethod
    def collect(cls, checked: Sequence[CheckedImage]) -> "Evidence":
        """Collects the evidence of a data set."""
        factors, swapped, rotated = set(), 0, 0
        pixels: list[tuple[Box, tuple[int, int]]] = []
        for image in checked:
            boxes = image.boxes_xyxy
            swapped += image.has("size-swapped")
            if image.annotated_size is not None and not fits(boxes, image.size) and fits(boxes, image.annotated_size):
                rotated += image.has("exif-rotated")
                factor = _factor(image)
                if image.has("size-differs") and factor is not None:
                    factors.add(factor)
            if image.has("pixel-values"):
                pixels += [(box, image.size) for box in boxes]
        forms: tuple[PixelForm, ...] = ("centre", "corners", "corner and size")
        possible = [f for f in forms if pixels and all(is_possible(_from_pixels(box, f), size) for box, size in pixels)]
        return cls(
            factors=frozenset(factors),
            are_sides_swapped=swapped >= LEAST_PROOFS and not rotated,
            is_rotation_missing=rotated >= LEAST_PROOFS and not swapped,
            pixel_form=possible[0] if len(possible) == 1 else None,
        )


def correct(checked: CheckedImage, evidence: Evidence, class_map: ClassMap) -> tuple[AnnotatedImage | None, list[Change]]:
    """Corrects one image.

    Returns:
        The image with the names of the data set, or None if it is left out; and the changes.
    """
    left_out = [
        Change(code=p.code, file=p.file, item=p.item, message=p.message, left_out=True)
        for p in checked.problems
        if p.severity == "error" and p.code not in _BOXES | _COORDINATES
    ]
    if left_out or checked.raw is None:
        return None, left_out
    file = str(checked.raw.source) if checked.raw.source.suffix.lower() in (".xml", ".txt") else shown(checked.raw.image)
    changes: list[Change] = []
    objects = list(checked.raw.objects)
    for code in sorted(_COORDINATES & {p.code for p in checked.problems if p.severity == "error"}):
        moved = _to_image_pixels(code, checked, evidence)
        if moved is None:
            message = next(p.message for p in checked.problems if p.code == code)
            return None, [Change(code=code, file=file, message=message, left_out=True)]
        boxes, message = moved
        objects = [replace(o, box_xyxy=box) for o, box in zip(objects, boxes, strict=True)]
        changes.append(Change(code=code, file=file, message=message))
    if checked.has("size-swapped"):
        changes.append(Change(code="size-swapped", file=file, message="the annotated width and height are exchanged"))
    kept, more = _correct_objects(objects, checked.size, class_map, file)
    return (None, more) if kept is None else (replace(checked.raw, objects=tuple(kept)), changes + more)


def _correct_objects(
    objects: Sequence[AnnotatedObject], size: tuple[int, int], class_map: ClassMap, file: str
) -> tuple[list[AnnotatedObject] | None, list[Change]]:
    """The objects with correct boxes, each once; None if one cannot be corrected. And the changes."""
    kept: list[AnnotatedObject] = []
    changes: list[Change] = []
    for number, item in enumerate(objects, start=1):
        name = f"object {number} ({item.class_name})"
        box, notes = _to_box(item.box_xyxy, size)
        if box is None and item.class_name not in class_map.ignored:
            return None, [Change(code=code, file=file, item=name, message=text, left_out=True) for code, text in notes]
        changes += [Change(code=code, file=file, item=name, message=text) for code, text in notes]
        if box is None:
            continue
        if any(o.class_name == item.class_name and is_same_box(o.box_xyxy, box) for o in kept):
            message = f"{box_text(box)} is there already: removed"
            changes.append(Change(code="duplicate-box", file=file, item=name, message=message))
        else:
            kept.append(replace(item, box_xyxy=box))
    return kept, changes


def _to_box(box: Box, size: tuple[int, int]) -> tuple[Box | None, list[tuple[str, str]]]:
    """The box with its corners in order and inside of the image; None if there is none. And the changes: (code, message)."""
    notes = []
    x1, x2 = sorted(box[::2])
    y1, y2 = sorted(box[1::2])
    if (x1, y1, x2, y2) != box:
        notes.append(("swapped-corners", f"{box_text(box)} is now {box_text((x1, y1, x2, y2))}: the corners were swapped"))
    height, width = size
    if x1 == x2 or y1 == y2:
        return None, [("empty-box", f"{box_text(box)} has no area")]
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return None, [("box-outside", f"{box_text(box)} lies outside the {width}x{height} image")]
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped != (x1, y1, x2, y2):
        notes.append(("box-beyond", f"{box_text((x1, y1, x2, y2))} is now {box_text(clipped)}: clipped to the image"))
    return clipped, notes


def _to_image_pixels(code: str, checked: CheckedImage, evidence: Evidence) -> tuple[list[Box], str] | None:
    """The boxes in pixels of the upright image, and what was done; None if it is not certain."""
    boxes, (height, width) = checked.boxes_xyxy, checked.size
    if code == "pixel-values":
        if evidence.pixel_form is None:
            return None
        return [_from_pixels(box, evidence.pixel_form) for box in boxes], f"pixels ({evidence.pixel_form}) are now normalised"
    if checked.annotated_size is None:
        return None
    annotated = "{1}x{0}".format(*checked.annotated_size)
    if checked.annotated_size == checked.size[::-1] and evidence.are_sides_swapped and fits(boxes, checked.size):
        return boxes, "the annotated width and height are exchanged, as in other images of the data set"
    if code == "exif-rotated":
        proves = not fits(boxes, checked.size)
        if checked.raw is not None and fits(boxes, checked.stored_size) and (proves or evidence.is_rotation_missing):
            rotated = list(_rotate(checked.raw.image, checked.stored_size, boxes))
            return rotated, f"the boxes are rotated with the image, from {annotated} to {width}x{height}"
        return None
    if _factor(checked) in evidence.factors and fits(boxes, checked.annotated_size):
        sy, sx = height / checked.annotated_size[0], width / checked.annotated_size[1]
        scaled = [(x1 * sx, y1 * sy, x2 * sx, y2 * sy) for x1, y1, x2, y2 in boxes]
        return [_rounded(box) for box in scaled], f"the boxes are scaled from {annotated} to {width}x{height}"
    return None


def _rotate(image: str, stored_size: tuple[int, int], boxes: Sequence[Box]) -> Iterator[Box]:
    with Image.open(local_path(image)) as opened:
        orientation = opened.getexif().get(EXIF_ORIENTATION, 1)
    height, width = stored_size
    for x1, y1, x2, y2 in boxes:
        # the row of the upright image is the column of the stored one, perhaps from the other end
        left, right = (height - y2, height - y1) if orientation in (6, 7) else (y1, y2)
        top, bottom = (width - x2, width - x1) if orientation in (7, 8) else (x1, x2)
        yield left, top, right, bottom


def _factor(checked: CheckedImage) -> float | None:
    """Annotated size / size, if both sides have the same factor and it is not 1."""
    if checked.annotated_size is None:
        return None
    height, width = (old / new for old, new in zip(checked.annotated_size, checked.size, strict=True))
    return round(width, 1) if abs(height / width - 1) < 0.02 else None


def _from_pixels(box: Box, form: PixelForm) -> Box:
    """The box of the numbers that were read as centre and size."""
    a, b, c, d = numbers(box, "centre and size")
    if form == "corners":
        return a, b, c, d
    return box if form == "centre" else (a, b, a + c, b + d)


def _rounded(box: Box) -> Box:
    x1, y1, x2, y2 = (round(v, 6) for v in box)
    return x1, y1, x2, y2
