"""Pascal VOC annotation files: one XML a photo. XML is untrusted input."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedObject

MAX_XML_BYTES = 4 * 1024 * 1024


class AnnotationError(UserError):
    """An annotation that cannot be used; names the file and the object."""


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """What one XML says.

    Attributes:
        path: The XML.
        filename: The photo's file name as the XML has it, or "".
        size: (height, width, channels) as the XML has it; None where it has none.
        objects: The marked objects, class names as written; coordinates raw. VOC counts pixels from 1 and many tools
            count from 0; nothing in a file tells which, so nothing is shifted (at most one pixel, as in the original
            helmet system).
    """

    path: Path
    filename: str
    size: tuple[int, int, int] | None
    objects: tuple[AnnotatedObject, ...]


def read_voc_annotation(path: Path) -> VocAnnotation:
    """Reads one XML.

    Raises:
        AnnotationError: Empty, too large, not XML, with a DTD or entities, not an annotation, or an object without a
            name or with a box that is no box of finite numbers.
    """
    try:
        size = path.stat().st_size
        if size > MAX_XML_BYTES:
            raise AnnotationError(f"{path}: expected at most {MAX_XML_BYTES} bytes of XML, got {size}")
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise AnnotationError(f"{path}: expected a Pascal VOC annotation, got an empty file: annotate again, or remove it")
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(f"{path}: XML with a DTD or entities is refused ({type(error).__name__})") from error
    # an unknown or wrong encoding is a LookupError or a ValueError, whatever the parser's own kind is for the rest
    except (ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: expected XML, got something else ({error})") from error
    if root.tag != "annotation":
        raise AnnotationError(f"{path}: expected <annotation> at the top, got <{root.tag}>")
    objects = tuple(_read_object(path, i, node) for i, node in enumerate(root.iter("object"), start=1))
    return VocAnnotation(path, (root.findtext("filename") or "").strip(), _read_size(root), objects)


def _read_object(path: Path, number: int, node: Element) -> AnnotatedObject:
    name = (node.findtext("name") or "").strip()
    where = f"{path}: object {number} ({name or 'no name'})"
    if not name:
        raise AnnotationError(f"{where}: expected a <name>, got none")
    values = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = node.findtext(f"bndbox/{key}")
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AnnotationError(f"{where}: expected a number in <{key}>, got {text!r}")
        values.append(value)
    x1, y1, x2, y2 = values
    difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return AnnotatedObject(name, (x1, y1, x2, y2), difficult)


def _read_size(root: Element) -> tuple[int, int, int] | None:
    try:
        height, width, depth = (int(float(root.findtext(f"size/{k}") or "")) for k in ("height", "width", "depth"))
    except (ValueError, OverflowError):
        return None  # the audit warns; the photo itself tells its size
    return height, width, depth
