"""Boxes whose numbers mean something else than the format says: found where all boxes of a data set fit another meaning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ppe_yolo.data.audit.annotation_check import CheckedImage, is_possible
from ppe_yolo.data.audit.positions import CORNER_BOXES, CORNER_IMAGES, drop_box_problems
from ppe_yolo.data.sources.base import Box, BoxForm, Problem, Severity

LEAST_DISTINCT = 10  # boxes; fewer may fit another meaning by chance
MISFITS = 0.2  # fraction of the boxes that do not fit as they are; fewer may be slips
FAR, NEAR = 0.25, 0.1  # fraction of the side; good boxes of close-ups extend less far beyond the image
FITTING = 0.99  # fraction of the boxes that fit the other meaning; the others may be slips
# side of the images, pixels, and percentages that the boxes reach; a door in the corner of all images spans less
PERCENT_SIDE, PERCENT_START, PERCENT_END = 300, 15, 85
SHIFTED, SHIFTED_BOXES, SHIFTED_OF = 0.03, 3, 50  # boxes beyond two edges of their images, none beyond the other two

_Size = tuple[int, int]  # (height, width), pixels
_Pair = tuple[Box, _Size]


@dataclass(frozen=True, kw_only=True)
class Meaning:
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


def find_meaning(checked: Sequence[CheckedImage], form: BoxForm) -> Meaning | None:
    """The other meaning that the boxes of a data set have, if there is one.

    Args:
        checked: The images.
        form: What the four numbers of a box are in the format.
    """
    if any(c.has("pixel-values") for c in checked):
        return None
    images = [c for c in checked if _are_boxes_of(c)]
    pairs = [(box, c.size) for c in images for box in c.boxes_xyxy]
    count = len(pairs)
    if len({box for box, _ in pairs}) < LEAST_DISTINCT:
        return None
    if len(images) >= CORNER_IMAGES and _are_percentages(pairs):
        message = f"all {count:,} boxes lie between 0 and 100: they are probably percentages of width and height"
        return Meaning(code="percent", message=message, correct=_from_percent)
    if form == "corners" and all(x1 < x2 and -1 <= y2 < y1 <= size[0] + 1 for (x1, y1, x2, y2), size in pairs):
        message = (
            f"ymax is below ymin in all {count:,} boxes, while xmin and xmax are in order; look at some boxes: if y is counted "
            "from the lower edge, write height - ymin into ymin, and height - ymax into ymax; if not, exchange ymin and ymax"
        )
        return Meaning(code="y-reversed", message=message)
    return _find_corners(pairs, form) or _find_order(pairs, form) or _find_shift(pairs, form)


def _are_percentages(pairs: Sequence[_Pair]) -> bool:
    if len(pairs) < CORNER_BOXES or any(min(size) < PERCENT_SIDE for _, size in pairs):
        return False
    x1, y1, x2, y2 = zip(*(box for box, _ in pairs), strict=True)
    starts, ends = (min(x1), min(y1)), (max(x2), max(y2))
    # no box may be reversed: the smallest and the largest number are then corners
    return (
        all(box[0] < box[2] and box[1] < box[3] for box, _ in pairs)
        and all(-1 <= start < PERCENT_START for start in starts)
        and all(PERCENT_END < end <= 101 for end in ends)
    )


def _all_fit(pairs: Sequence[_Pair], correct: Callable[[Box], Box]) -> bool:
    return sum(is_possible(correct(box), size) for box, size in pairs) >= FITTING * len(pairs)


def _find_corners(pairs: Sequence[_Pair], form: BoxForm) -> Meaning | None:
    """Corners where a size is expected: many boxes extend far beyond their images."""
    if form == "corners" or not _all_fit(pairs, lambda box: numbers(box, form)):
        return None
    count = len(pairs)
    far, near = (sum(_is_stray(*pair) or _reach(*pair) > limit for pair in pairs) for limit in (FAR, NEAR))
    if far >= MISFITS * count:
        message = (
            f"{far:,} of {count:,} boxes do not fit their images, but they do as x1 y1 x2 y2: the labels hold corners "
            "where a width and a height are expected"
        )
        return Meaning(code="corners-as-size", message=message, correct=lambda box, _: numbers(box, form))
    if near >= MISFITS * count:
        message = (
            f"{near:,} of {count:,} boxes extend far beyond their images, and all fit as x1 y1 x2 y2: the labels may hold "
            "corners where a width and a height are expected; look at some boxes (`ppe-yolo audit --html FILE`)"
        )
        return Meaning(code="corners-as-size", severity="warning", message=message)
    return None


def _find_order(pairs: Sequence[_Pair], form: BoxForm) -> Meaning | None:
    """Numbers in another order: many boxes lie outside of their images."""
    strays = sum(_is_stray(*pair) for pair in pairs)
    if strays < MISFITS * len(pairs):
        return None
    start = f"{strays:,} of {len(pairs):,} boxes do not fit their images, but "
    if form == "corners" and _all_fit(pairs, lambda box: (box[0], box[2], box[1], box[3])):
        message = start + "they do as x1 x2 y1 y2: exchange the second and third number (ymin and xmax)"
        return Meaning(code="columns", message=message)
    if _all_fit(pairs, lambda box: (box[1], box[0], box[3], box[2])):
        message = start + (
            "they do if x and y are exchanged: they were written as y x, or the images were turned by a quarter afterwards; "
            "exchange them, or turn the images back"
        )
        return Meaning(code="x-and-y", message=message)
    return None


def check_meanings(root: str, checked: Sequence[CheckedImage], form: BoxForm) -> list[Problem]:
    """Finds another meaning of all boxes, see `find_meaning`. For an error, the images are left out."""
    meaning = find_meaning(checked, form)
    if meaning is None:
        return []
    if meaning.severity == "error":
        drop_box_problems([c for c in checked if _are_boxes_of(c)])
    message = meaning.message + ("; `ppe-yolo audit --fix` converts them" if meaning.correct is not None else "")
    return [Problem(severity=meaning.severity, code=meaning.code, file=root, message=message)]


def reread(checked: CheckedImage, correct: Callable[[Box, _Size], Box]) -> CheckedImage:
    """The image with corrected boxes."""
    if checked.raw is None or not _are_boxes_of(checked):
        return checked
    objects = tuple(replace(o, box_xyxy=correct(o.box_xyxy, checked.size)) for o in checked.raw.objects)
    return replace(checked, raw=replace(checked.raw, objects=objects))


def numbers(box: Box, form: BoxForm) -> Box:
    """The four numbers that were read as this box, in pixels."""
    x1, y1, x2, y2 = box
    if form == "corners":
        return box
    x, y = ((x1 + x2) / 2, (y1 + y2) / 2) if form == "centre and size" else (x1, y1)
    return x, y, round(x2 - x1, 6), round(y2 - y1, 6)


def _are_boxes_of(checked: CheckedImage) -> bool:
    """Whether the image has boxes, and these were drawn on it as it is."""
    return bool(checked.boxes_xyxy) and not checked.has("size-differs", "exif-rotated", "size-swapped")


def _find_shift(pairs: Sequence[_Pair], form: BoxForm) -> Meaning | None:
    """A corner where the centre is expected, or the other way round: the boxes leave their images on two sides only."""
    if form == "corners" or len(pairs) < SHIFTED_OF:
        return None
    left_upper = [(box[0] < -1, box[1] < -1) for box, _ in pairs]
    right_lower = [(box[2] > size[1] + 1, box[3] > size[0] + 1) for box, size in pairs]
    if form == "centre and size":
        beyond, others, shift = left_upper, right_lower, 0.5
        edges, meant, expected = "left or upper", "the upper left corner", "the centre"
    else:
        beyond, others, shift = right_lower, left_upper, -0.5
        edges, meant, expected = "right or lower", "the centre", "the upper left corner"
    count = sum(map(any, beyond))
    if any(map(any, others)) or count < SHIFTED * len(pairs):
        return None
    if any(sum(edge) < SHIFTED_BOXES for edge in zip(*beyond, strict=True)):  # one edge may just cut the objects
        return None
    if not all(is_possible(_shifted(box, shift), size) for box, size in pairs):
        return None
    message = (
        f"{count:,} of {len(pairs):,} boxes extend beyond the {edges} edge of their images, none beyond the others, and all "
        f"would fit if x and y were {meant} of the box, but the format expects {expected}: look at some boxes (`ppe-yolo audit "
        "--html FILE`)"
    )
    return Meaning(code="corner-or-centre", severity="warning", message=message)


def _shifted(box: Box, shift: float) -> Box:
    """The box, shifted right and down by this fraction of its width and height."""
    x1, y1, x2, y2 = box
    dx, dy = shift * (x2 - x1), shift * (y2 - y1)
    return x1 + dx, y1 + dy, x2 + dx, y2 + dy


def _is_stray(box: Box, size: _Size) -> bool:
    """Whether the corners are not in order, or the centre is outside: not so for an object that the edge cuts."""
    x1, y1, x2, y2 = box
    return not (x1 < x2 and y1 < y2 and 0 <= x1 + x2 <= 2 * size[1] and 0 <= y1 + y2 <= 2 * size[0])


def _reach(box: Box, size: _Size) -> float:
    """How far the box extends beyond the image, as a fraction of the side; negative if it does not."""
    x1, y1, x2, y2 = box
    height, width = size
    return max(-x1 / width, -y1 / height, x2 / width - 1, y2 / height - 1)


def _from_percent(box: Box, size: _Size) -> Box:
    x1, y1, x2, y2 = (round(v * side / 100, 6) for v, side in zip(box, size[::-1] * 2, strict=True))
    return x1, y1, x2, y2
