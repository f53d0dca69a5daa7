"""What is known about one photo: where it is, and which objects somebody marked in it."""

from dataclasses import dataclass
from pathlib import Path

from ppe_yolo.core.voc_xml import AnnotatedObject as AnnotatedObject

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
