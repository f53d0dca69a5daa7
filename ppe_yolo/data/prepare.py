"""`ppe-yolo prepare`: a data set that is ready for training, so that every later step reads the same images and names."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_text
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.images import is_url, local_path, shown
from ppe_yolo.data.sources.annotation_list import write_annotation_list

AUDIT_FILE = "audit.json"
CLASS_MAP_FILE = "class_map.yaml"


@dataclass(frozen=True, slots=True)
class WrittenList:
    """An annotation list that was written, with the number of its images and objects."""

    path: Path
    images: int
    objects: int


def prepare(root: Path, out: Path, *, class_map: str | None = None, on_error: OnError = "stop") -> AnnotatedDataset:
    """Audits a data set, applies the class map and writes the result to a new folder. The data set itself is not changed.

    The folder holds a Pascal VOC data set with the classes of the model and explicit splits, annotation lists
    (`voc_<split>.txt`, with paths relative to the folder), `class_map.yaml` for later steps, and `audit.json`. Images are
    copied, so the folder can be moved and mounted anywhere.

    Args:
        root: A Pascal VOC folder or annotation lists.
        out: The folder to write.
        class_map: Name or file.
        on_error: What to do if the audit finds errors: `stop` and list them, or `skip` the affected images.

    Returns:
        The data set that was read.

    Raises:
        UserError: The data has errors, or two images would get the same name.
    """
    dataset = AnnotatedDataset.open(root, class_map, on_error="skip")
    dataset.save_audit(out / AUDIT_FILE)
    if on_error == "stop":
        dataset.raise_on_errors(can_skip=True)
    written: dict[str, AnnotatedImage] = {}
    for split, images in dataset.splits.items():
        copies = []
        for image in images:
            stem, suffix = _stem(image), local_path(image.image).suffix
            other = written.setdefault(stem, image)
            if other.image != image.image:
                raise UserError(
                    f"{shown(other.image)} and {shown(image.image)} would both be named {stem}",
                    file=root,
                    hint="rename one of them",
                )
            copy = out / "JPEGImages" / f"{stem}{suffix}"
            _copy(local_path(image.image), copy)
            write_voc_annotation(
                out / "Annotations" / f"{stem}.xml",
                image_name=copy.name,
                image_size=(*dataset.sizes[image.image], 3),
                objects=image.objects,
            )
            copies.append(copy)
        write_text(out / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{copy.stem}\n" for copy in copies))
        write_annotation_list(
            out / f"voc_{split}.txt",
            (replace(i, image=f"JPEGImages/{copy.name}") for copy, i in zip(copies, images, strict=True)),
        )
    write_text(out / CLASS_MAP_FILE, _identity_map(dataset.class_map))
    return dataset


def write_lists(dataset: AnnotatedDataset, out: Path, prefix: str | None = None) -> list[WrittenList]:
    """Writes one annotation list per split, `voc_<split>.txt`.

    Args:
        dataset: The data set.
        out: The folder to write to.
        prefix: Writes `prefix/<file name>` instead of the absolute path or URL of each image.
    """
    written = []
    for split, images in dataset.splits.items():
        if prefix is not None:
            located = [replace(i, image=f"{prefix.rstrip('/')}/{Path(i.image).name}") for i in images]
        else:
            located = [i if is_url(i.image) else replace(i, image=str(Path(i.image).resolve())) for i in images]
        path = out / f"voc_{split}.txt"
        write_annotation_list(path, located)
        written.append(WrittenList(path, len(located), sum(len(i.objects) for i in located)))
    return written


def _identity_map(class_map: ClassMap) -> str:
    """The class map of the prepared data set, whose names are the classes."""
    values = {"class_names": list(class_map.class_names), "map": {name: name for name in class_map.class_names}}
    if class_map.display_names:
        values["display_names"] = dict(class_map.display_names)
    return yaml.safe_dump(values, allow_unicode=True)


def _stem(image: AnnotatedImage) -> str:
    """The stem of the XML file or, for an annotation list, of the image."""
    return image.image_id if image.source.suffix.lower() == ".xml" else Path(image.image_id.partition("?")[0]).stem


def _copy(image: Path, target: Path) -> None:
    """Copies an image, unless an interrupted run did so before."""
    if target.is_file() and target.stat().st_size == image.stat().st_size:
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(image, temporary)
