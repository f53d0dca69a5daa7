"""Pascal VOC annotation files: one XML file per image. XML is untrusted input."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.read_xml import read_xml

MAX_XML_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VocAnnotation:
    """Content of one XML file.

    Attributes:
        path: The XML file.
        filename: The file name of the image according to the XML, or "".
        size: (height, width, channels) according to the XML; None if it is missing.
        objects: The annotated objects with raw names and coordinates. VOC counts pixels from 1, many tools count from 0, and
            nothing in a file says which. So nothing is shifted; the error is at most one pixel.
    """

    path: Path
    filename: str
    size: tuple[int, int, int] | None
    objects: tuple[AnnotatedObject, ...]


def read_voc_annotation(path: Path) -> VocAnnotation:
    """Reads one XML file.

    Raises:
        AnnotationError: The file is empty, too large, not XML, has a DTD or entities, or is not an annotation; or an object has
            no name or no box of finite numbers.
    """
    root = read_xml(path, "annotation", MAX_XML_BYTES)
    objects = tuple(_read_object(path, i, node) for i, node in enumerate(root.iter("object"), start=1))
    return VocAnnotation(path=path, filename=(root.findtext("filename") or "").strip(), size=_read_size(root), objects=objects)


def _read_object(path: Path, number: int, node: Element) -> AnnotatedObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise AnnotationError(file=path, item=f"object {number} (no name)", expected="a <name>", got="none")
    box = node.find("bndbox")
    values = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = None if box is None else box.findtext(key)
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            item = f"object {number} ({name})"
            raise AnnotationError(file=path, item=item, expected=f"a number in <{key}>", got=repr(text))
        values.append(value)
    x1, y1, x2, y2 = values
    difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return AnnotatedObject(name, (x1, y1, x2, y2), difficult)


def _read_size(root: Element) -> tuple[int, int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    try:
        height, width, depth = (int(float(size.findtext(key) or "")) for key in ("height", "width", "depth"))
    except (ValueError, OverflowError):
        return None  # the audit warns and uses the size of the image
    return height, width, depth
