"""Annotated images and objects, whatever format they come from."""

from dataclasses import dataclass
from pathlib import Path

from ppe_yolo.core.voc_xml import AnnotatedObject as AnnotatedObject

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """One image with its objects.

    Attributes:
        image: Path or URL of the image.
        objects: The annotated objects; empty for a background image.
        source: The file with the annotation (an XML file or an annotation list), for messages.
        image_id: Name of the image within the data set, independent of where the data set is stored. For VOC it is the stem of
            the XML file; for lists it is the path or URL in the list, without secrets.
    """

    image: str
    objects: tuple[AnnotatedObject, ...]
    source: Path
    image_id: str
