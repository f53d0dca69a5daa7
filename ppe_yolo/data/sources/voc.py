"""Pascal VOC annotation files: one XML file per image. XML is untrusted input."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.sources.base import AnnotationError

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
    try:
        size = path.stat().st_size
        if size > MAX_XML_BYTES:
            raise AnnotationError(file=path, expected=f"at most {MAX_XML_BYTES} bytes of XML", got=str(size))
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"cannot be read ({error.strerror})", file=path) from error
    if not data.strip():
        raise AnnotationError(
            file=path,
            expected="a Pascal VOC annotation",
            got="an empty file",
            hint="annotate the image again, or remove the file",
        )
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(f"XML with a DTD or entities is not accepted ({type(error).__name__})", file=path) from error
    # an unknown or wrong encoding raises LookupError or ValueError; the parser raises ParseError for the rest
    except (ParseError, ValueError, LookupError) as error:
        raise AnnotationError(file=path, expected="XML", got=f"something else ({error})") from error
    if root.tag != "annotation":
        raise AnnotationError(file=path, expected="the root element <annotation>", got=f"<{root.tag}>")
    objects = tuple(_read_object(path, i, node) for i, node in enumerate(root.iter("object"), start=1))
    return VocAnnotation(path=path, filename=(root.findtext("filename") or "").strip(), size=_read_size(root), objects=objects)


def _read_object(path: Path, number: int, node: Element) -> AnnotatedObject:
    name = (node.findtext("name") or "").strip()
    item = f"object {number} ({name or 'no name'})"
    if not name:
        raise AnnotationError(file=path, item=item, expected="a <name>", got="none")
    values = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = node.findtext(f"bndbox/{key}")
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AnnotationError(file=path, item=item, expected=f"a number in <{key}>", got=repr(text))
        values.append(value)
    x1, y1, x2, y2 = values
    difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return AnnotatedObject(name, (x1, y1, x2, y2), difficult)


def _read_size(root: Element) -> tuple[int, int, int] | None:
    try:
        height, width, depth = (int(float(root.findtext(f"size/{k}") or "")) for k in ("height", "width", "depth"))
    except (ValueError, OverflowError):
        return None  # the audit warns and uses the size of the image
    return height, width, depth
