"""`ppe-yolo prepare`: a data set made ready once, so that every later step reads the same photos and names."""

import shutil
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_text
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit import audit
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.images import local_path, shown
from ppe_yolo.data.sources.annotation_list import write_annotation_list

AUDIT_FILE = "audit.json"
CLASS_MAP_FILE = "class_map.yaml"


def prepare(root: Path, out: Path, *, class_map: str | None, on_error: Literal["stop", "skip"], console: Console) -> None:
    """Audits a data set, applies the class map and writes it anew, with its splits; the data set itself stays as it is.

    Leaves a Pascal VOC folder whose names are the model's classes and whose lists of splits are explicit, annotation lists
    (`voc_<split>.txt`, photos relative to the folder), `class_map.yaml` for later steps, and `audit.json`.

    Args:
        root: A Pascal VOC folder or annotation lists.
        out: Folder for all of it; photos are copied, so that it can be moved and mounted anywhere.
        class_map: Name or file.
        on_error: What happens when the audit finds errors: `stop` with the list, or leave those photos out.
        console: Where to print.

    Raises:
        UserError: The data has errors, or two photos would get the same name.
    """
    mapping = load_class_map(class_map)
    report = audit(root, mapping)
    report.save(out / AUDIT_FILE)
    if on_error == "stop":
        report.raise_on_errors(mapping)
    written: dict[str, AnnotatedImage] = {}
    for split, images in report.images.items():
        names = []
        for image in images:
            stem, suffix = _stem(image), local_path(image.image).suffix
            other = written.setdefault(stem, image)
            if other.image != image.image:
                raise UserError(
                    f"{root}: {shown(other.image)} and {shown(image.image)} would both be called {stem}: rename one"
                )
            photo = out / "JPEGImages" / f"{stem}{suffix}"
            _copy(local_path(image.image), photo)
            write_voc_annotation(
                out / "Annotations" / f"{stem}.xml",
                image_name=photo.name,
                image_size=(*report.sizes[image.image], 3),
                objects=image.objects,
            )
            names.append(photo)
        write_text(out / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{photo.stem}\n" for photo in names))
        lines = (
            AnnotatedImage(f"JPEGImages/{photo.name}", i.objects, i.source, i.image_id)
            for photo, i in zip(names, images, strict=True)
        )
        write_annotation_list(out / f"voc_{split}.txt", lines)
        console.print(f"{split}: {len(images)} photos, {sum(len(i.objects) for i in images)} objects")
    classes = list(mapping.class_names)
    write_text(out / CLASS_MAP_FILE, yaml.safe_dump({"class_names": classes, "map": {name: name for name in classes}}))
    skipped = f", {report.left_out} photos left out" if report.left_out else ""
    console.print(f"{len(report.errors)} errors{skipped}; files: {out}", soft_wrap=True)


def _stem(image: AnnotatedImage) -> str:
    """The name of the XML; of a photo in a list, that of the photo."""
    return image.image_id if image.source.suffix.lower() == ".xml" else Path(image.image_id.partition("?")[0]).stem


def _copy(photo: Path, target: Path) -> None:
    """A copy that an interrupted run has finished is not made again."""
    if target.is_file() and target.stat().st_size == photo.stat().st_size:
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(photo, temporary)
