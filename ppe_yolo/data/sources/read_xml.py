"""XML files of a data set. They are untrusted input."""

import os
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.parsers.expat import ExpatError, ParserCreate

from ppe_yolo.data.sources.base import AnnotationError


class _DoctypeError(Exception):
    """The file has a document type definition."""


def read_xml(path: Path, root_tag: str, max_bytes: int) -> Element:
    """Reads an XML file without a document type definition, hence without entities, which could be large or lead elsewhere.

    It takes a fifth of the time of defusedxml, which parses in Python: each file is parsed twice in C.

    Raises:
        AnnotationError: The file cannot be read, is larger than `max_bytes`, is not XML, has a document type definition, or
            another root element.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise AnnotationError(file=path, expected=f"at most {max_bytes} bytes of XML", got=str(size))
            data = file.read()
    except OSError as error:
        raise AnnotationError(f"cannot be read ({error.strerror})", file=path) from error
    if not data.strip():
        raise AnnotationError(file=path, expected="XML", got="an empty file", hint="annotate again, or remove the file")
    try:
        scanner = ParserCreate()
        scanner.StartDoctypeDeclHandler = _refuse_doctype
        scanner.Parse(data, True)
        root = fromstring(data)
    except _DoctypeError:
        raise AnnotationError("XML with a DTD or entities is not accepted", file=path) from None
    # an unknown or wrong encoding raises LookupError or ValueError; the parsers raise their own errors for the rest
    except (ExpatError, ParseError, ValueError, LookupError) as error:
        raise AnnotationError(file=path, expected="XML", got=f"something else ({error})") from error
    if root.tag != root_tag:
        raise AnnotationError(file=path, expected=f"the root element <{root_tag}>", got=f"<{root.tag}>")
    return root


def _refuse_doctype(*declaration: object) -> None:
    raise _DoctypeError
