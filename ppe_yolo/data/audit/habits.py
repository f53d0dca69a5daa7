"""Faults that a tool makes in a whole data set. They are reported once, with their cause."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ppe_yolo.data.audit.annotation_check import CheckedImage
from ppe_yolo.data.audit.meanings import check_meanings
from ppe_yolo.data.audit.positions import BOX_CODES, check_positions, drop_box_problems
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.base import Box, BoxForm, Problem

LEAST_OBJECTS = 3  # fewer may agree by chance
LEAST_IMAGES = 3
EXAMPLES = 3
INVERTED = 0.2  # fraction of the boxes; fewer may be slips
FITTING = 0.9  # fraction of the images with inverted boxes; the others may be slips
LEAST_DISTINCT = 10  # boxes with swapped corners fit as corner and size by chance only if they lie in the upper left
# faults of every box of a data set
ALL_BOXES = (
    *("empty-boxes", "ymax-is-xmin", "fractions", "corner-and-size"),
    *("percent", "y-reversed", "corners-as-size", "columns", "x-and-y"),  # see meanings.py
)
# problems of the same cause wherever they occur. {count} images; a message that is the same everywhere is kept
_ONCE = {
    "duplicate-box": "{count} images have boxes that are annotated twice, as after a merge: each is counted once",
    "two-classes": "{count} images have one box in two classes, as after a merge: remove the wrong ones",
    "size-swapped": "{count} images are annotated with swapped sides, as Label Studio does for rotated images, but the boxes "
    "fit the upright images: the boxes are used",
    "swapped-corners": "{count} images have boxes with xmax below xmin, or ymax below ymin: swapped corners; `ppe-yolo audit "
    "--fix` corrects them",
    "unknown-name": None,
    "exif-rotated": "{count} images are annotated without their EXIF rotation: rotate the images or the boxes; "
    "`ppe-yolo audit --fix` rotates the boxes if the boxes prove it",
    "filename-differs": "<filename> is not the name of the image in {count} files, as after renaming: the image with the name "
    "of the XML file is used, so no action is needed",
    "size-missing": "<size> is missing or zero in {count} files: the sizes of the images are used, so no action is needed",
    "depth": "<depth> is not 3 in {count} files: the images are used as they are, so no action is needed",
    "unusual-image": None,
    "no-image": "the images of {count} annotations are missing: add them, or remove the annotations; if the images lie "
    "elsewhere, give the folder that holds both",
    "pixel-values": "{count} label files hold pixels, but coordinates go from 0 to 1: divide x and width by the width "
    "of the image, y and height by its height; `ppe-yolo audit --fix` does so where they have one meaning only",
}

_Pair = tuple[Box, tuple[int, int]]  # a box, and the (height, width) of its image

_SOME_SHAPES = {  # faults of all boxes of some images
    "fractions": "all boxes between 0 and 1: they are fractions of the image, but pixels are expected; multiply x by the width "
    "and y by the height of the image",
    "ymax-is-xmin": "ymax equal to xmin in all objects, as a fault of VoTT writes them, so the height of the boxes is lost: "
    "export the annotations again, from VoTT as JSON or CSV",
    "corner-and-size": "xmax below xmin or ymax below ymin in some boxes, and all their boxes fit as x, y, width and height: "
    "write xmin + width into xmax, and ymin + height into ymax",
}


def check_habits(
    root: str, checked: Sequence[CheckedImage], class_names: Sequence[str] = (), form: BoxForm = "corners"
) -> list[Problem]:
    """Finds the faults of tools. The problems of single boxes and images give way to one for all.

    VoTT 1 writes xmin into ymax, in every object; such images are left out. Many tools count pixels from 0.

    Args:
        root: The data set.
        checked: Its images; those with such a fault are changed.
        class_names: The names that the source declares, in their order.
        form: What the four numbers of a box are.
    """
    for image in checked:
        if image.has("size-differs", "exif-rotated"):  # its boxes belong to another image
            image.problems = [p for p in image.problems if p.code not in BOX_CODES]
    found = (
        _check_shapes(root, checked)
        or check_meanings(root, checked, form)
        or _check_some_shapes(root, checked)
        or check_positions(root, checked)
        or _check_zero_based(root, checked)
        or _check_one_based(root, checked)
    )
    found += _check_class_numbers(root, checked, class_names) + _check_sizes(root, checked)
    faulty = [c for c in checked if c.problems]
    for code, message in _ONCE.items():
        found += _merge(root, faulty, code, lambda p: p.message if message is None else "", message)  # noqa: B023 (used at once)
    found += _merge(root, faulty, "image", lambda p: p.message)
    # the same mistake in the syntax of many files; what was found instead differs
    return found + _merge(root, faulty, "annotation", lambda p: p.message.partition(", got ")[0])


def _merge(
    root: str,
    checked: Sequence[CheckedImage],
    code: str,
    cause: Callable[[Problem], str],
    message: str | None = None,
    least: int = LEAST_IMAGES,
) -> list[Problem]:
    """Replaces the problems of one kind and cause by one, if enough images have them.

    Args:
        root: The data set.
        checked: Its images.
        code: The kind of problem.
        cause: Problems with the same result have one cause.
        message: The message, with {count} for the number of images; None for that of the problem.
        least: Number of images that is enough.
    """
    images: dict[str, list[CheckedImage]] = defaultdict(list)
    for image in checked:
        for same_cause in dict.fromkeys(cause(p) for p in image.problems if p.code == code):
            images[same_cause].append(image)
    found = []
    for same_cause, affected in images.items():
        if len(affected) < least:
            continue
        firsts: list[Problem] = []  # of each image
        for image in affected:
            firsts += [p for p in image.problems if p.code == code and cause(p) == same_cause][:1]
            image.problems = [p for p in image.problems if p.code != code or cause(p) != same_cause]
        count = f"{len(affected):,}"
        text = f"{count} images: {firsts[0].message}" if message is None else message.format(count=count)
        files = dict.fromkeys(p.file for p in firsts)
        if len(files) < len(firsts):  # one file for many images
            files = dict.fromkeys(p.image or p.file for p in firsts)
            items = [p.item for p in firsts if p.item]
            if len(files) < len(firsts) and items:
                text += f" (such as {', '.join(items[:EXAMPLES])})"
        found.append(replace(firsts[0], file=root, item="", message=text, files=tuple(files)))
    return found


def _check_sizes(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Boxes for images of another size, by the same factor everywhere."""
    factors: dict[tuple[str, str], str] = {}
    for image in checked:
        for problem in image.problems:
            if problem.code == "size-differs" and image.annotated_size is not None:
                height, width = (old / new for old, new in zip(image.annotated_size, image.size, strict=True))
                even = abs(height / width - 1) < 0.02
                factors[problem.file, problem.item] = f"{width:.2g}" if even else f"{width:.2g} x {height:.2g}"
    found = []
    for factor in sorted(set(factors.values())):
        message = (
            f"{{count}} images are annotated for images {factor} times as large: they were resized after the annotation; use "
            "the original images, or scale the boxes; `ppe-yolo audit --fix` scales them where they prove the factor"
        )

        def is_factor(problem: Problem, factor: str = factor) -> str:
            annotation = problem.file, problem.item
            return factor if factors.get(annotation) == factor else f"other {annotation}"

        found += _merge(root, checked, "size-differs", is_factor, message)
    return found


def _have(count: int) -> str:
    """The start of a message about a number of images, which is inserted later."""
    return "{count} image has" if count == 1 else "{count} images have"


def _check_class_numbers(root: str, checked: Sequence[CheckedImage], class_names: Sequence[str]) -> list[Problem]:
    """Class numbers without a name, and numbers that count from 1."""
    numbers = [{p.item for p in c.problems if p.code == "class-number"} for c in checked]
    unknown, count = set().union(*numbers), sum(map(bool, numbers))
    have = _have(count)
    used = {o.class_name for c in checked if c.raw is not None for o in c.raw.objects}
    least = LEAST_IMAGES
    if unknown == {f"class {len(class_names)}"} and class_names[0] not in used:
        classes = "class counts" if len(class_names) == 1 else f"{len(class_names)} classes count"
        evidence = ", and no other label has the class 0" if used else ""
        consequence = ""
        if used and used == set(class_names[1:]):
            least = 1  # this concerns all images, however many show it
            for image in checked:
                image.image = None  # every label has the wrong class
            consequence = "; until then no image is used"
        message = (
            f"{have} the class {len(class_names)}, but the {classes} from 0{evidence}: "
            f"the labels probably count from 1; subtract 1 from the class numbers, or add a name in front{consequence}"
        )
    else:
        message = (
            f"{have} a class number without a name (names: {', '.join(class_names)[:90]}): the names are those "
            "of another version of the data set; complete or correct them"
        )
    return _merge(root, checked, "class-number", lambda problem: "", message, least)


def _check_zero_based(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    message = (
        "xmin or ymin is 0 in {count} images, but Pascal VOC counts pixels from 1: the annotation tool probably counts "
        "from 0; boxes are used as they are, so no action is needed"
    )
    return _merge(root, checked, "zero-based", lambda problem: "", message)


def _check_one_based(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Boxes that count from 1 in a format that counts from 0."""
    starts = [
        (min(min(box[:2]) for box in c.boxes_xyxy), c)
        for c in checked
        if c.boxes_xyxy and not c.is_one_based and not c.has("pixel-values")
    ]
    at_one = [c for start, c in starts if abs(start - 1) < 0.01]  # YOLO's values are rounded
    if len(at_one) < LEAST_IMAGES or min(start for start, _ in starts) < 0.99:
        return []
    message = (
        f"{len(at_one):,} images have boxes that start at exactly 1 pixel, and no box starts at 0: they probably come from "
        "Pascal VOC, which counts from 1; boxes are used as they are and are off by one pixel at most, so no action is needed"
    )
    raws = [c.raw for c in at_one if c.raw is not None]
    return [
        Problem(
            severity="warning",
            code="one-based",
            file=root,
            message=message,
            files=tuple(dict.fromkeys(str(raw.source) for raw in raws)),
            image=raws[0].image,
            boxes_xyxy=tuple(at_one[0].boxes_xyxy),
        )
    ]


def _check_shapes(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """Faults of all boxes: no height, no size, a size instead of a corner, fractions instead of pixels."""
    with_objects = [c for c in checked if c.boxes_xyxy]
    pairs = [(box, c.size) for c in with_objects for box in c.boxes_xyxy]
    fault = _find_shape(pairs) if len(pairs) >= LEAST_OBJECTS else None
    if fault is None:
        return []
    drop_box_problems(with_objects)
    code, message = fault
    return [Problem(severity="error", code=code, file=root, message=message)]


def _find_shape(pairs: Sequence[_Pair]) -> tuple[str, str] | None:
    """The code and the message of the fault that all boxes have; None if there is none."""
    boxes = [box for box, _ in pairs]
    if all(x1 == x2 or y1 == y2 for x1, y1, x2, y2 in boxes):
        return "empty-boxes", f"all {len(boxes)} boxes are empty: their size is lost; export the annotations again"
    if all(y2 == x1 for x1, _, _, y2 in boxes):
        return "ymax-is-xmin", (
            f"ymax equals xmin in all {len(boxes)} objects, as a fault of VoTT writes them, so the height of the boxes is "
            "lost: export the annotations again, from VoTT as JSON or CSV"
        )
    if all(0 <= value <= 1 for box in boxes for value in box):
        return "fractions", (
            f"all {len(boxes)} boxes lie between 0 and 1: they are fractions of the image, but pixels are expected; multiply x "
            "by the width and y by the height of the image"
        )
    inverted = sum(map(_is_inverted, boxes))
    if inverted < INVERTED * len(boxes) or len(set(boxes)) < LEAST_DISTINCT:
        return None
    are_large_if_swapped = sum(abs(x1 - x2) + abs(y1 - y2) - x2 - y2 for x1, y1, x2, y2 in boxes) > 0
    # in all of them: the corners are swapped, unless the boxes would then be larger than their distance from the edges
    if inverted == len(boxes) and not are_large_if_swapped:
        return None
    fit_from_corner = _fit_with_size(pairs, 0)
    fit_from_centre = inverted >= FITTING * len(boxes) and are_large_if_swapped and _fit_with_size(pairs, 0.5)
    if fit_from_corner and fit_from_centre:
        advice = ", where x and y are the upper left corner or the centre: look at some of them, and write corners"
    elif fit_from_corner:
        advice = ": write xmin + width into xmax, and ymin + height into ymax"
    elif fit_from_centre:
        advice = ", where x and y are the centre: write x - width / 2 into xmin, x + width / 2 into xmax, and y likewise"
    else:
        return None
    return "corner-and-size", (
        f"xmax is below xmin, or ymax below ymin, in {inverted:,} of {len(boxes):,} boxes, and all of them "
        f"fit the images as x, y, width and height{advice}"
    )


def _is_inverted(box: Box) -> bool:
    x1, y1, x2, y2 = box
    return x2 < x1 or y2 < y1


def _fit_with_size(pairs: Sequence[_Pair], before: float) -> bool:
    """Whether all numbers fit as x, y, width and height, with this fraction of the box before x and y."""
    return all(
        min(w, h) > 0
        and min(x - before * w, y - before * h) >= -1
        and x + (1 - before) * w <= size[1] + 1
        and y + (1 - before) * h <= size[0] + 1
        for (x, y, w, h), size in pairs
    )


def _check_some_shapes(root: str, checked: Sequence[CheckedImage]) -> list[Problem]:
    """The same faults in some of the images only, as after a merge of data sets."""
    with_objects = [c for c in checked if c.boxes_xyxy]
    fractions = [c for c in with_objects if _are_fractions(c.boxes_xyxy)]
    flat = _find_flat(with_objects)
    known = {id(c) for c in (*fractions, *flat)}
    inverted = _find_corner_and_size([c for c in with_objects if id(c) not in known])
    found = []
    for code, images in (("fractions", fractions), ("ymax-is-xmin", flat), ("corner-and-size", inverted)):
        if images:
            drop_box_problems(images)
            files = tuple(shown(c.raw.image) for c in images if c.raw is not None)
            message = f"{_have(len(images)).format(count=f'{len(images):,}')} {_SOME_SHAPES[code]}"
            found.append(Problem(severity="error", code=code, file=root, message=message, files=files))
    return found


def _are_fractions(boxes: Sequence[Box]) -> bool:
    values = [value for box in boxes for value in box]
    # (0, 0, 1, 1) alone is the first pixel
    return all(0 <= value <= 1 for value in values) and any(0 < value < 1 for value in values)


def _find_flat(images: Sequence[CheckedImage]) -> list[CheckedImage]:
    """The images in which ymax equals xmin in all boxes, as a fault of VoTT writes them."""
    flat = [c for c in images if all(y2 == x1 for x1, _, _, y2 in c.boxes_xyxy)]
    boxes = [box for c in flat for box in c.boxes_xyxy]
    # ymax is xmin in some boxes by chance, but these are in order
    by_chance = len(flat) < LEAST_IMAGES or sum(y2 < y1 for _, y1, _, y2 in boxes) < INVERTED * len(boxes)
    return [] if by_chance else flat


def _find_corner_and_size(images: Sequence[CheckedImage]) -> list[CheckedImage]:
    """The images with an inverted box whose boxes all fit as corner and size."""
    inverted = [c for c in images if any(map(_is_inverted, c.boxes_xyxy))]
    fitting = [c for c in inverted if _fit_with_size([(box, c.size) for box in c.boxes_xyxy], 0)]
    # boxes with swapped corners fit as sizes too, if they lie in the upper left
    is_proven = len({box for c in fitting for box in c.boxes_xyxy}) >= LEAST_DISTINCT
    return fitting if is_proven and len(fitting) >= FITTING * len(inverted) else []
