"""Boxes whose numbers mean something else than the format says: found where all boxes of a data set fit another meaning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ppe_yolo.data.audit.annotation_check import CheckedImage
from ppe_yolo.data.audit.positions import drop_box_problems
from ppe_yolo.data.sources.base import Box, BoxForm, Problem, Severity

LEAST_DISTINCT = 10  # boxes; fewer may fit another meaning by chance
MISFITS = 0.2  # fraction of the boxes that do not fit as they are; fewer may be slips
FITTING = 0.99  # fraction of the boxes that fit the other meaning; the others may be slips
PERCENT_SIDE, PERCENT_REACH = 200, 60  # boxes that lie in the first 100 pixels of larger images, and reach beyond this
SHIFTED, SHIFTED_BOXES, SHIFTED_OF = 0.03, 3, 50  # boxes beyond two edges of their images, none beyond the other two

_Size = tuple[int, int]  # (height, width), pixels


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Another meaning of all numbers.

    Attributes:
        code: Kind of problem.
        severity: See `Problem`.
        message: What the numbers probably are.
        correct: Box as read, size of the image -> the box that was meant. None if another cause is possible.
    """

    code: str
    severity: Severity = "error"
    message: str
    correct: Callable[[Box, _Size], Box] | None = None


def find_reading(checked: Sequence[CheckedImage], form: BoxForm) -> Reading | None:
    """The other meaning that the boxes of a data set have, if there is one.

    Args:
        checked: The images.
        form: What the four numbers of a box are in the format.
    """
    pairs = [(o.box_xyxy, c.size) for c in _concerned(checked) if c.raw is not None for o in c.raw.objects]
    count = len(pairs)
    if len({box for box, _ in pairs}) < LEAST_DISTINCT:
        return None
    if all(min(size) >= PERCENT_SIDE and min(box) >= -1 and max(box) <= 101 for box, size in pairs) and (
        max(max(box) for box, _ in pairs) > PERCENT_REACH
    ):
        message = f"all {count:,} boxes lie between 0 and 100: they are probably percentages of width and height"
        return Reading(code="percent", message=message + "; `ppe-yolo audit --fix` converts them", correct=_from_percent)
    if all(x1 < x2 and y2 < y1 for (x1, y1, x2, y2), _ in pairs):
        message = (
            f"ymax is below ymin in all {count:,} boxes, while xmin and xmax are in order: y is counted from the lower edge, "
            "or ymin and ymax are exchanged; look at some boxes, and correct them"
        )
        return Reading(code="y-reversed", message=message)
    if any(p.code == "pixel-values" for c in checked for p in c.problems):
        return None
    misfits = sum(not _fits(*pair) for pair in pairs)
    if misfits < MISFITS * count:
        return _find_shift(pairs, form)
    start = f"{misfits:,} of {count:,} boxes do not fit their images, but "

    def all_fit(correct: Callable[[Box, _Size], Box]) -> bool:
        return sum(_fits(correct(*pair), pair[1]) for pair in pairs) >= FITTING * count

    if form != "corners" and all_fit(to_corners := _corners_of(form)):
        message = start + "they do as x1 y1 x2 y2: the labels hold corners where a width and a height are expected"
        return Reading(code="corners-as-size", message=message + "; `ppe-yolo audit --fix` converts them", correct=to_corners)
    if form == "corners" and all_fit(lambda box, _: (box[0], box[2], box[1], box[3])):
        message = start + "they do as x1 x2 y1 y2: exchange the second and third number (ymin and xmax)"
        return Reading(code="columns", message=message)
    if all_fit(lambda box, _: (box[1], box[0], box[3], box[2])):
        message = start + (
            "they do if x and y are exchanged: they were written as y x, or the images were turned by a quarter afterwards; "
            "exchange them, or turn the images back"
        )
        return Reading(code="x-and-y", message=message)
    return _find_shift(pairs, form)


def check_readings(root: str, checked: Sequence[CheckedImage], form: BoxForm) -> list[Problem]:
    """Finds another meaning of all boxes, see `find_reading`. For an error, the images are left out."""
    reading = find_reading(checked, form)
    if reading is None:
        return []
    images = _concerned(checked)
    if reading.severity == "error":
        drop_box_problems(images)
        for image in images:
            image.problems = [p for p in image.problems if p.code != "pixel-values"]
    return [Problem(severity=reading.severity, code=reading.code, file=root, message=reading.message)]


def reread(checked: CheckedImage, correct: Callable[[Box, _Size], Box]) -> CheckedImage:
    """The image with corrected boxes."""
    if checked not in _concerned([checked]) or checked.raw is None:
        return checked
    objects = tuple(replace(o, box_xyxy=correct(o.box_xyxy, checked.size)) for o in checked.raw.objects)
    problems = [p for p in checked.problems if p.code != "pixel-values"]
    return replace(checked, raw=replace(checked.raw, objects=objects), problems=problems)


def _concerned(checked: Sequence[CheckedImage]) -> list[CheckedImage]:
    others = {"size-differs", "exif-rotated", "size-swapped"}
    return [c for c in checked if c.raw is not None and c.raw.objects and not any(p.code in others for p in c.problems)]


def _find_shift(pairs: Sequence[tuple[Box, _Size]], form: BoxForm) -> Reading | None:
    """A corner where the centre is expected, or the other way round: the boxes leave their images on two sides only."""
    beyond_start = sum(min(box[:2]) < -1 for box, _ in pairs)
    beyond_end = sum(box[2] > size[1] + 1 or box[3] > size[0] + 1 for box, size in pairs)
    beyond, other, step = (beyond_start, beyond_end, 0.5) if form == "centre and size" else (beyond_end, beyond_start, -0.5)
    if form == "corners" or len(pairs) < SHIFTED_OF or other or beyond < max(SHIFTED_BOXES, SHIFTED * len(pairs)):
        return None
    for (x1, y1, x2, y2), size in pairs:
        dx, dy = step * (x2 - x1), step * (y2 - y1)
        if not _fits((x1 + dx, y1 + dy, x2 + dx, y2 + dy), size):
            return None
    edges, meant, expected = "left or upper", "the upper left corner", "the centre"
    if form != "centre and size":
        edges, meant, expected = "right or lower", expected, meant
    message = (
        f"{beyond:,} of {len(pairs):,} boxes extend beyond the {edges} edge of their images, none beyond the others, and all "
        f"would fit if x and y were {meant} of the box, but the format expects {expected}: look at some boxes (`ppe-yolo audit "
        "--html FILE`)"
    )
    return Reading(code="corner-or-centre", severity="warning", message=message)


def _fits(box: Box, size: _Size) -> bool:
    x1, y1, x2, y2 = box
    return -1 <= x1 < x2 <= size[1] + 1 and -1 <= y1 < y2 <= size[0] + 1


def _from_percent(box: Box, size: _Size) -> Box:
    x1, y1, x2, y2 = (round(v * side / 100, 6) for v, side in zip(box, size[::-1] * 2, strict=True))
    return x1, y1, x2, y2


def _corners_of(form: BoxForm) -> Callable[[Box, _Size], Box]:
    """Box as read -> the four numbers that were read, in pixels."""

    def corners(box: Box, size: _Size) -> Box:
        x1, y1, x2, y2 = box
        at_x, at_y = ((x1 + x2) / 2, (y1 + y2) / 2) if form == "centre and size" else (x1, y1)
        return at_x, at_y, round(x2 - x1, 6), round(y2 - y1, 6)

    return corners
