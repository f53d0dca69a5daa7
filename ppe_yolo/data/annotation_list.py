"""The compiled annotation list of the original helmet system: one line a photo, `PATH_OR_URL x1,y1,x2,y2,class ...`."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.voc import AnnotationError
from ppe_yolo.files import write_text

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOX = re.compile(rf"({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER}),([^\s,]+)")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(image: str) -> bool:
    """Whether a photo lies behind http(s), a blob store or the like."""
    return _URL.match(image) is not None


def write_annotation_list(path: Path, images: Iterable[AnnotatedImage]) -> None:
    """Writes a list.

    Spaces, commas and percent signs of class names are written as %20, %2C and %25, since a line is divided by them;
    those of paths stay. The list knows no `difficult` mark.
    """
    lines = []
    for image in images:
        boxes = [
            ",".join(f"{v:.10g}" for v in o.box_xyxy) + "," + quote(o.class_name, safe="+-_.~()[]/&!'*:@")
            for o in image.objects
        ]
        lines.append(" ".join([image.image, *boxes]))
    write_text(path, "".join(line + "\n" for line in lines))


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
    if last.count(",") >= 3 and not is_url(last):
        raise AnnotationError(f"{where}: expected a box x1,y1,x2,y2,class, got {last!r}")
    image = rest if is_url(rest) else str(path.parent / rest)
    return AnnotatedImage(image, tuple(reversed(objects)), path, image)
