"""What is known about one photo: where it is, and which objects somebody marked in it."""

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One marked object.

    Attributes:
        class_name: The name, as the annotator wrote it or, after a class map, as the model calls it.
        box_xyxy: (x1, y1, x2, y2) in pixels of the photo, kept exactly as annotated.
        difficult: True for an object that the annotator marked as hard to see.
    """

    class_name: str
    box_xyxy: tuple[float, float, float, float]
    difficult: bool = False


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One photo with its objects.

    Attributes:
        image: Path or URL of the photo.
        objects: The marked objects; empty for a photo of background.
        source: The file that holds the annotation (an XML file, or an annotation list), for messages.
        image_id: Its name within the data set, the same wherever that lies: for VOC the stem of the XML, else the path or
            URL as the list has it, without secrets.
    """

    image: str
    objects: tuple[AnnotatedObject, ...]
    source: Path
    image_id: str
