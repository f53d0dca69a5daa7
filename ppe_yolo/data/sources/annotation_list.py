"""The compiled annotation list of the original helmet system: one line a photo, `PATH_OR_URL x1,y1,x2,y2,class ...`."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from ppe_yolo.core.files import write_text
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage, AnnotatedObject
from ppe_yolo.data.images import is_url, shown
from ppe_yolo.data.sources.voc import AnnotationError

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOX = re.compile(rf"({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER}),([^\s,]+)")


def write_annotation_list(path: Path, images: Iterable[AnnotatedImage]) -> None:
    """Writes a list.

    Spaces, commas and percent signs of class names are written as %20, %2C and %25, since a line is divided by them;
    those of paths stay. The list knows no `difficult` mark.

    Raises:
        AnnotationError: The path of a photo has a line break or looks like a box, so that it could not be read again.
    """
    lines = []
    for image in images:
        if "\n" in image.image or image.image.strip() != image.image or _is_box(image.image.rpartition(" ")[2]):
            raise AnnotationError(f"{path}: no line can hold the path {shown(image.image)!r}: rename the photo")
        boxes = [",".join(f"{v:.10g}" for v in o.box_xyxy) + "," + _quoted(o.class_name) for o in image.objects]
        lines.append(" ".join([image.image, *boxes]))
    write_text(path, "".join(line + "\n" for line in lines))


def _quoted(class_name: str) -> str:
    return re.sub(r"[\s,%]", lambda match: quote(match[0], safe=""), class_name)


def _is_box(text: str) -> bool:
    """Whether it is a box, or was meant to be one; a path may hold commas, too."""
    return text.count(",") >= 3 and not is_url(text) and not text.lower().endswith(IMAGE_SUFFIXES)


def read_annotation_line(line: str, path: Path, number: int) -> AnnotatedImage:
    """Reads one line; photos with relative paths lie beside the list.

    Raises:
        AnnotationError: Not of that form; names file and line.
    """
    where = f"{path}:{number}"
    rest, objects = line.strip(), []
    # boxes are taken from the right, so that a path may hold spaces
    while True:
        head, space, last = rest.rpartition(" ")
        match = _BOX.fullmatch(last)
        if match is None:
            break
        if not space:
            raise AnnotationError(f"{where}: expected `PATH x1,y1,x2,y2,class ...`, got boxes without a path")
        x1, y1, x2, y2 = (float(v) for v in match.groups()[:4])
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise AnnotationError(f"{where}: expected finite numbers, got {last!r}")
        objects.append(AnnotatedObject(unquote(match[5]), (x1, y1, x2, y2)))
        rest = head.rstrip()
    if _is_box(last):
        raise AnnotationError(f"{where}: expected a box x1,y1,x2,y2,class, got {last!r}: mend or remove it")
    image = rest if is_url(rest) else str(path.parent / rest)
    return AnnotatedImage(image, tuple(reversed(objects)), path, shown(rest))
