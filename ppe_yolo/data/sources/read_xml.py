"""XML files of a data set. They are untrusted input."""

import os
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from ppe_yolo.data.sources.base import AnnotationError


def read_xml(path: Path, root_tag: str, max_bytes: int) -> Element:
    """Reads an XML file without a document type definition, hence without entities, which could be large or lead elsewhere.

    defusedxml would parse in Python, which takes several times as long.

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
    # every encoding that expat accepts writes ASCII as is, apart from the zero bytes of UTF-16
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        hint = "remove the <!DOCTYPE ...> declaration, or export the annotations again"
        raise AnnotationError("XML with a DTD or entities is not accepted", file=path, hint=hint)
    try:
        root = fromstring(data)
    # an unknown or wrong encoding raises LookupError or ValueError; the parser raises its own error for the rest
    except (ParseError, ValueError, LookupError) as error:
        is_encoding = not isinstance(error, ParseError) or "invalid token" in str(error)
        got, advice = f"something else ({error})", "save it as UTF-8" if is_encoding else None
        raise AnnotationError(file=path, expected="XML", got=got, hint=advice) from error
    if root.tag != root_tag:
        raise AnnotationError(file=path, expected=f"the root element <{root_tag}>", got=f"<{root.tag}>")
    return root
