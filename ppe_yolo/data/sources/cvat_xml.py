"""CVAT for images 1.1: one annotations.xml for all images. XML is untrusted input."""

import math
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.sources.base import ALL, AnnotationError, Box, BoxForm, Entry, NoImageError, Problem
from ppe_yolo.data.sources.files import (
    IMAGE_FOLDERS,
    FileFinder,
    canonical_split,
    image_paths,
    short_names,
    subfolder,
)
from ppe_yolo.data.sources.read_xml import read_xml

MAX_BYTES = 512 * 1024 * 1024
_HEAD = 4096
_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton")  # a tag is about the whole image
_NUMBERS = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}


def is_cvat_file(path: Path) -> bool:
    """Whether an XML file begins as CVAT's do."""
    try:
        with path.open("rb") as file:
            return b"<annotations" in file.read(_HEAD)
    except OSError:
        return False


class CvatFile:
    """A file of CVAT for images 1.1. Keys are `split:number of the image`.

    Polygons, masks, ellipses and rotated boxes become the boxes around them. `occluded` does not make an object difficult.

    Args:
        path: The XML file. The images lie next to it or in images, there perhaps in the folder of their subset.

    Raises:
        UserError: The file is not CVAT for images 1.1.
    """

    format = "CVAT"
    box_form: BoxForm = "corners"

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.parent
        self.class_names: list[str] = []
        self.problems: list[Problem] = []
        self.splits: dict[str, list[str]] = {}
        self._images: dict[str, Element] = {}
        self._finder = FileFinder()
        self._folders = [folder for folder in (self.root, subfolder(self.root, *IMAGE_FOLDERS)) if folder is not None]
        root = read_xml(path, "annotations", MAX_BYTES)
        if root.find("track") is not None:
            raise UserError(file=path, expected="CVAT for images 1.1", got="CVAT for video", hint="export the task for images")
        nodes = root.findall("image")
        if not nodes:
            raise UserError(file=path, expected="at least one <image>", got="none")
        names = Counter(map(_path_of, nodes))
        self._names = short_names(names)
        for number, node in enumerate(nodes, start=1):
            name = node.get("name", "")
            if not name or names[_path_of(node)] > 1:
                got = f"{name!r} twice" if name else "none"
                raise UserError(file=path, item=f"image {number}", expected="a name of its own", got=got)
            split = canonical_split(node.get("subset") or ALL)
            key = f"{split}:{number}"
            self.splits.setdefault(split, []).append(key)
            self._images[key] = node

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        node = self._images[key]
        name = node.get("name", "")
        found = self._find_image(name, node.get("subset", ""))
        shapes = [child for child in node if child.tag in _SHAPES]
        objects = tuple(self._read_shape(shape, f"image {name}: object {i}") for i, shape in enumerate(shapes, start=1))
        size = [int(text) if (text := node.get(side, "")).isdecimal() and len(text) < 9 else 0 for side in ("height", "width")]
        return Entry(
            image=AnnotatedImage(image=str(found), objects=objects, source=self.path, image_id=self._names[_path_of(node)]),
            location=str(self.path),
            item=f"image {name}",
            annotated_size=(size[0], size[1]) if all(size) else None,
            is_one_based=False,
        )

    def _find_image(self, name: str, subset: str) -> Path:
        parts = [path for part in image_paths(name) for path in (Path(subset.lstrip("/")) / part, part)]
        found = self._finder.find_inside(self.root, self._folders, parts)
        if found is not None:
            return found
        hint = f"add the image to {self.root} (export the task with its images), or remove it from the XML"
        raise NoImageError(f"no such image {name}", file=self.path, item=f"image {name}", hint=hint)

    def _read_shape(self, shape: Element, item: str) -> AnnotatedObject:
        label = (shape.get("label") or "").strip()
        if not label:
            raise AnnotationError(file=self.path, item=item, expected="a label", got="none")
        item = f"{item} ({label})"

        def unexpected(expected: str, got: str, hint: str | None = None) -> AnnotationError:
            return AnnotationError(file=self.path, item=item, expected=expected, got=got, hint=hint)

        if shape.tag not in ("polygon", *_NUMBERS):
            raise unexpected("a box, polygon, ellipse or mask", f"a {shape.tag}", "draw a box")
        if shape.tag == "polygon":
            text = shape.get("points") or ""
            points = [self._number(value, item, "points") for pair in text.split(";") for value in pair.split(",")]
            if len(points) < 6 or len(points) % 2:
                raise unexpected("points x,y;x,y;x,y", repr(text[:80]))
            box = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
        else:
            a, b, c, d = self._numbers(shape, item, _NUMBERS[shape.tag])
            if shape.tag == "mask":
                return AnnotatedObject(label, (a, b, a + c, b + d))
            box = (a, b, c, d) if shape.tag == "box" else (a - c, b - d, a + c, b + d)
            if angle := self._number(shape.get("rotation", "0"), item, "rotation") % 360:
                box = _around_rotated(box, math.radians(angle), shape.tag)
        return AnnotatedObject(label, box)

    def _numbers(self, shape: Element, item: str, keys: tuple[str, ...]) -> list[float]:
        return [self._number(shape.get(key), item, key) for key in keys]

    def _number(self, text: str | None, item: str, key: str) -> float:
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AnnotationError(file=self.path, item=item, expected=f"a number in {key}", got=repr(text)[:80])
        return value


def _path_of(node: Element) -> str:
    """The path of an image in the export of a project, where each subset has a folder; its name in that of a task."""
    return "/".join(part for part in (node.get("subset"), node.get("name")) if part)


def _around_rotated(box: Box, angle: float, tag: str) -> Box:
    """The upright box around a box or an ellipse that is rotated about its centre, radians."""
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    around = math.hypot if tag == "ellipse" else lambda a, b: a + b
    w, h = around(w * cos, h * sin), around(w * sin, h * cos)
    return x - w, y - h, x + w, y + h
