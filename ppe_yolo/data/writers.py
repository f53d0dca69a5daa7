"""Writes a data set in the formats that `ppe-yolo prepare` offers. The images are already in their folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from ppe_yolo.core.files import write_json, write_text
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.sources.annotation_list import write_annotation_list
from ppe_yolo.data.sources.base import ALL

Format = Literal["voc", "yolo", "coco"]
IMAGE_FOLDER: Mapping[Format, str] = {"voc": "JPEGImages", "yolo": "images", "coco": "images"}


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image with the name and the size (height, width) of its copy."""

    image: AnnotatedImage
    name: str
    size: tuple[int, int]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem


Splits = Mapping[str, Sequence[NamedImage]]


def write_voc(out: Path, splits: Splits, class_names: Sequence[str]) -> None:
    """Writes Annotations, ImageSets/Main and annotation lists."""
    for split, images in splits.items():
        for named in images:
            write_voc_annotation(
                out / "Annotations" / f"{named.stem}.xml",
                image_name=named.name,
                image_size=(*named.size, 3),
                objects=named.image.objects,
            )
        write_text(out / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{named.stem}\n" for named in images))
        lines = [replace(named.image, image=f"JPEGImages/{named.name}") for named in images]
        write_annotation_list(out / f"voc_{split}.txt", lines)


def write_yolo(out: Path, splits: Splits, class_names: Sequence[str]) -> None:
    """Writes labels, a list of images per split, and data.yaml; classes.txt without splits.

    The format cannot say that an object is difficult.
    """
    for split, images in splits.items():
        for named in images:
            height, width = named.size
            lines = []
            for item in named.image.objects:
                x1, y1, x2, y2 = item.box_xyxy
                values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(class_names.index(item.class_name)), *(f"{v:.14g}" for v in values)]) + "\n")
            write_text(out / "labels" / f"{named.stem}.txt", "".join(lines))
        if split != ALL:
            write_text(out / f"{split}.txt", "".join(f"./images/{named.name}\n" for named in images))
    if set(splits) == {ALL}:
        write_text(out / "classes.txt", "".join(f"{name}\n" for name in class_names))
        return
    config = {**{split: f"{split}.txt" for split in splits}, "names": dict(enumerate(class_names))}
    write_text(out / "data.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False))


def write_coco(out: Path, splits: Splits, class_names: Sequence[str]) -> None:
    """Writes annotations/instances_<split>.json. A difficult object is a crowd, as for the COCO evaluation."""
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    for split, images in splits.items():
        rows: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for image_id, named in enumerate(images, start=1):
            rows.append({"id": image_id, "file_name": named.name, "height": named.size[0], "width": named.size[1]})
            for item in named.image.objects:
                x1, y1, x2, y2 = item.box_xyxy
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": class_names.index(item.class_name) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(item.difficult),
                    }
                )
        content = {"images": rows, "annotations": annotations, "categories": categories}
        write_json(out / "annotations" / f"instances_{split}.json", content)


WRITERS: Mapping[Format, Callable[[Path, Splits, Sequence[str]], None]] = {
    "voc": write_voc,
    "yolo": write_yolo,
    "coco": write_coco,
}
