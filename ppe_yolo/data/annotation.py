"""Annotated images and objects, whatever format they come from."""

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One annotated object.

    Attributes:
        class_name: The name in the annotation or, after a class map is applied, the class of the model.
        box_xyxy: (x1, y1, x2, y2) in pixels of the image, exactly as annotated.
        difficult: Whether the annotator marked the object as hard to see.
    """

    class_name: str
    box_xyxy: tuple[float, float, float, float]
    difficult: bool = False


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
