"""Writes Pascal VOC annotation files, one XML per image. `ppe_yolo.data.sources.voc` reads them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from ppe_yolo.core.files import atomic_path


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One annotated object.

    Attributes:
        class_name: The name as the annotator wrote it or, after a class map, as the model calls it.
        box_xyxy: (x1, y1, x2, y2) in pixels of the image, kept exactly as annotated.
        difficult: Whether the annotator marked the object as hard to see.
    """

    class_name: str
    box_xyxy: tuple[float, float, float, float]
    difficult: bool = False


def write_voc_annotation(
    path: Path,
    *,
    image_name: str,
    image_size: tuple[int, int, int],
    objects: Iterable[AnnotatedObject],
    source: str | None = None,
    mode: int = 0o644,
) -> None:
    """Writes one annotation file atomically.

    Args:
        path: The XML file.
        image_name: File name of the image, in the folder JPEGImages.
        image_size: (height, width, channels).
        objects: The annotated objects.
        source: Origin of the annotation, if it is worth mentioning.
        mode: Permissions of the file.

    Raises:
        UserError: The file cannot be written.
    """
    root = Element("annotation")
    SubElement(root, "folder").text = "JPEGImages"
    SubElement(root, "filename").text = image_name
    if source is not None:
        SubElement(SubElement(root, "source"), "annotation").text = source
    size = SubElement(root, "size")
    for key, value in zip(("height", "width", "depth"), image_size, strict=True):
        SubElement(size, key).text = str(value)
    SubElement(root, "segmented").text = "0"
    for item in objects:
        node = SubElement(root, "object")
        SubElement(node, "name").text = item.class_name
        SubElement(node, "difficult").text = str(int(item.difficult))
        box = SubElement(node, "bndbox")
        for key, number in zip(("xmin", "ymin", "xmax", "ymax"), item.box_xyxy, strict=True):
            SubElement(box, key).text = f"{number:.10g}"
    indent(root)
    with atomic_path(path, mode) as temporary:
        ElementTree(root).write(temporary, encoding="utf-8")
