"""Checks of one image and its annotation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.audit.image_check import ImageCheck
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import ImageError, shown
from ppe_yolo.data.sources.base import Box, Entry, Problem, Severity

TINY_SIDE = 3.0  # pixels
WHOLE_IMAGE = 0.95  # fraction of its area


@dataclass(kw_only=True)
class CheckedImage:
    """One image after the checks.

    Attributes:
        key: Key of the image in its source.
        problems: Problems of the image and its annotation.
        raw: The image as annotated; None if the annotation or the image cannot be read.
        image: The image for training: classes of the model, boxes clipped to the image. None if it must not be used.
        size: (height, width), pixels.
        stored_size: (height, width) before the EXIF rotation, pixels.
        annotated_size: (height, width) according to the annotation; None if it does not say.
        is_one_based: Whether the format counts pixels from 1.
        perceptual_hash: 64 bits, see `group_alike`.
        content_hash: Hash of the file; equal for identical files.
        has_faulty_boxes: Whether it is left out because all its boxes have one fault, which correcting single boxes cannot fix.
    """

    key: str
    problems: list[Problem]
    raw: AnnotatedImage | None = None
    image: AnnotatedImage | None = None
    size: tuple[int, int] = (0, 0)
    stored_size: tuple[int, int] = (0, 0)
    annotated_size: tuple[int, int] | None = None
    is_one_based: bool = True
    perceptual_hash: int = 0
    content_hash: str = ""
    has_faulty_boxes: bool = False

    @property
    def boxes_xyxy(self) -> list[Box]:
        """The boxes as annotated, pixels; empty if the annotation or the image cannot be read."""
        return [] if self.raw is None else [o.box_xyxy for o in self.raw.objects]

    def has(self, *codes: str) -> bool:
        """Whether it has a problem of one of these kinds."""
        return any(problem.code in codes for problem in self.problems)


def check_entry(key: str, entry: Entry, check: ImageCheck | ImageError, class_map: ClassMap) -> CheckedImage:
    """Checks one annotation against its image.

    Args:
        key: Key of the image in its source.
        entry: The annotation.
        check: The result of the image, or why it cannot be used.
        class_map: Meaning of the names.
    """
    if isinstance(check, ImageError):
        return CheckedImage(key=key, problems=[Problem.from_error(check, "image")])
    file = shown(entry.image.image)
    problems = list(entry.problems)
    problems += [
        Problem(severity="warning", code="unusual-image", file=file, message=text, image=file) for text in check.unusual
    ]
    problems += _check_size(entry, check)
    kept = _Objects(entry, check.size, class_map, problems).check()
    # an image with an error is left out as a whole: training would treat a missing object as background
    usable = not any(p.severity == "error" for p in problems)
    raw, image = entry.image, None
    if usable:
        image = AnnotatedImage(image=raw.image, objects=class_map.apply(kept), source=raw.source, image_id=raw.image_id)
    return CheckedImage(
        key=key,
        problems=problems,
        raw=raw,
        image=image,
        size=check.size,
        stored_size=check.stored_size,
        annotated_size=entry.annotated_size,
        is_one_based=entry.is_one_based,
        perceptual_hash=check.perceptual_hash,
        content_hash=check.content_hash,
    )


def _check_size(entry: Entry, check: ImageCheck) -> list[Problem]:
    if entry.annotated_size is None or entry.annotated_size == check.size:
        return []
    annotated, actual = (f"{width}x{height}" for height, width in (entry.annotated_size, check.size))
    boxes = tuple(o.box_xyxy for o in entry.image.objects)
    severity: Severity = "error"
    if entry.annotated_size == check.size[::-1] and fits(boxes, check.size) and not fits(boxes, entry.annotated_size):
        # Label Studio and others swap the sides of rotated images; only the boxes tell which size is theirs
        severity, code = "warning", "size-swapped"
        message = (
            f"annotated as {annotated}, but the boxes fit only the {actual} image: the sides are swapped; the boxes are used"
        )
    elif entry.annotated_size == check.stored_size:
        code = "exif-rotated"
        message = (
            f"annotated as {annotated}, without the EXIF rotation; the upright image is {actual}: rotate the image or the boxes"
        )
    else:
        code = "size-differs"
        message = (
            f"annotated as {annotated}, but the image is {actual}: the boxes belong to another version of the image; "
            "annotate it again, or correct the annotated size"
        )
    return [
        Problem(
            severity=severity,
            code=code,
            file=entry.location,
            item=entry.item,
            message=message,
            image=shown(entry.image.image),
            boxes_xyxy=boxes,
        )
    ]


def fits(boxes: Sequence[Box], size: tuple[int, int]) -> bool:
    """Whether all boxes lie in an image of this size (height, width), except for a pixel of rounding."""
    return all(x1 >= -1 and y1 >= -1 and x2 <= size[1] + 1 and y2 <= size[0] + 1 for x1, y1, x2, y2 in boxes)


def is_possible(box: Box, size: tuple[int, int]) -> bool:
    """Whether the corners are in order and inside of an image of (height, width) pixels, but for one pixel."""
    return box[0] < box[2] and box[1] < box[3] and fits([box], size)


def is_same_box(a: Box, b: Box) -> bool:
    """Whether two boxes are one that was rounded in two ways: no corner differs by more than a pixel, or a tenth of the box."""
    if abs(a[0] - b[0]) > 1:  # nearly always
        return False
    most = min(1.0, 0.1 * (a[2] - a[0]), 0.1 * (a[3] - a[1]))
    return all(abs(v - w) <= most for v, w in zip(a, b, strict=True))


class _Objects:
    """The checks of the objects of one image; adds to `problems`."""

    def __init__(self, entry: Entry, size: tuple[int, int], class_map: ClassMap, problems: list[Problem]) -> None:
        self.entry, self.class_map, self.problems = entry, class_map, problems
        self.height, self.width = size
        self.image = f"the {self.width}x{self.height} image"

    def check(self) -> list[AnnotatedObject]:
        """The usable objects, clipped to the image."""
        objects = self.entry.image.objects
        if not objects:
            self._report("warning", "no-object", "", "no object: used as a background image")
        kept: list[AnnotatedObject] = []
        seen: dict[Box, list[str]] = {}  # box -> its names
        for number, item in enumerate(objects, start=1):
            name = f"object {number} ({item.class_name})"
            if not self.class_map.knows(item.class_name):
                self._report("error", "unknown-name", name, self.class_map.explain_unknown(item.class_name), item)
            if not self._check_position(item, name):
                continue
            box = next((box for box in seen if is_same_box(box, item.box_xyxy)), item.box_xyxy)
            names = seen.setdefault(box, [])
            if item.class_name in names:
                message = f"{box_text(item.box_xyxy)} is annotated twice: counted once"
                self._report("warning", "duplicate-box", name, message, item)
                continue
            others = {self.class_map.mapping.get(other) for other in names} - {None}
            if others and self.class_map.mapping.get(item.class_name) not in (None, *others):
                both = " and as ".join((*names, item.class_name))
                message = f"{box_text(item.box_xyxy)} is annotated as {both}: remove the wrong one"
                self._report("warning", "two-classes", name, message, item)
            names.append(item.class_name)
            kept.append(self._clip(item, name))
        return kept

    def _report(
        self,
        severity: Severity,
        code: str,
        item: str,
        message: str,
        subject: AnnotatedObject | None = None,
    ) -> None:
        self.problems.append(
            Problem(
                severity=severity,
                code=code,
                file=self.entry.location,
                item=": ".join(part for part in (self.entry.item, item) if part),
                message=message,
                image=shown(self.entry.image.image),
                boxes_xyxy=() if subject is None else (subject.box_xyxy,),
            )
        )

    def _check_position(self, item: AnnotatedObject, name: str) -> bool:
        """Whether any of the box is in the image."""
        x1, y1, x2, y2 = item.box_xyxy
        # an object that the class map ignores does no harm
        severity: Severity = "warning" if item.class_name in self.class_map.ignored else "error"
        if x2 == x1 or y2 == y1:
            message = f"expected x1 < x2 and y1 < y2, got {box_text(item.box_xyxy)}: fix or remove the box"
            self._report(severity, "empty-box", name, message, item)
            return False
        if x2 < x1 or y2 < y1:
            got = f"{box_text(item.box_xyxy)}: swapped corners; `ppe-yolo audit --fix` corrects them"
            message = f"expected x1 < x2 and y1 < y2, got {got}"
            self._report(severity, "swapped-corners", name, message, item)
            return False
        if x1 >= self.width or y1 >= self.height or x2 <= 0 or y2 <= 0:
            message = f"{box_text(item.box_xyxy)} lies outside {self.image}: fix or remove the box"
            self._report(severity, "box-outside", name, message, item)
            return False
        if x1 < 0 or y1 < 0 or x2 > self.width or y2 > self.height:
            self._report("warning", "box-beyond", name, f"{box_text(item.box_xyxy)} extends beyond {self.image}: clipped", item)
        elif self.entry.is_one_based and (x1 == 0 or y1 == 0):
            message = "xmin or ymin is 0, but Pascal VOC counts pixels from 1: the annotation tool probably counts from 0"
            self._report("warning", "zero-based", name, message, item)
        if min(x2 - x1, y2 - y1) < TINY_SIDE:
            message = f"{box_text(item.box_xyxy)} is less than {TINY_SIDE:g} pixels wide or high"
            self._report("warning", "tiny-box", name, message, item)
        return True

    def _clip(self, item: AnnotatedObject, name: str) -> AnnotatedObject:
        x1, y1, x2, y2 = item.box_xyxy
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(self.width)), min(y2, float(self.height)))
        if (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) > WHOLE_IMAGE * self.width * self.height:
            self._report("warning", "whole-image", name, f"{box_text(item.box_xyxy)} covers all of {self.image}", item)
        return item if clipped == item.box_xyxy else replace(item, box_xyxy=clipped)


def box_text(box: Box) -> str:
    """A box as messages show it: (x1, y1, x2, y2)."""
    return "({:g}, {:g}, {:g}, {:g})".format(*box)
