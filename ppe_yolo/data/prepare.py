"""`ppe-yolo prepare`: a data set that is ready for training, so that every later step reads the same images and names."""

import filecmp
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, is_system_file, write_text
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage
from ppe_yolo.data.audit.check_cache import KEPT_FILE, write_kept
from ppe_yolo.data.audit.shards import read_lines
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.images import is_url, local_path, shown
from ppe_yolo.data.sources.annotation_list import write_annotation_list
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.data.writers import IMAGE_FOLDER, WRITERS, Format, NamedImage

AUDIT_FILE = "audit.json"
CLASS_MAP_FILE = "class_map.yaml"


@dataclass(frozen=True, slots=True)
class WrittenList:
    """An annotation list that was written, with the number of its images and objects."""

    path: Path
    images: int
    objects: int


def prepare(
    root: Path,
    out: Path,
    *,
    class_map: str | None = None,
    on_error: OnError = "stop",
    format: Format = "voc",
    checks: Path | None = None,
) -> AnnotatedDataset:
    """Audits a data set, applies the class map and writes the result to a new folder. The data set itself is not changed.

    The folder holds a data set with the classes of the model and explicit splits, `class_map.yaml` for later steps, and
    `audit.json`. Images are copied, so the folder can be moved and mounted anywhere. `image_checks.json` holds the results of
    the image checks, so that later audits need not decode the images. Pascal VOC comes with annotation lists
    (`voc_<split>.txt`, with paths relative to the folder).

    Args:
        root: See `open_source`.
        out: The folder to write: a new or empty one, or that of an earlier run, which may have been interrupted.
        class_map: Name or file.
        on_error: What to do if the audit finds errors: `stop` and list them, or `skip` the affected images.
        format: The format to write. YOLO cannot say that an object is difficult.
        checks: Lines of `check_files` for the same images: they are read, but not decoded.

    Returns:
        The data set that was read.

    Raises:
        UserError: The data has errors, two images would get the same name, or `out` holds files that prepare did not write.
    """
    _check_free(out, root)
    dataset = AnnotatedDataset.open(root, class_map, on_error="skip", supplied={} if checks is None else read_lines(checks))
    dataset.save_audit(out / AUDIT_FILE)
    if on_error == "stop":
        dataset.raise_on_errors(can_skip=True)
    names = file_names((image for part in dataset.splits.values() for image in part), root)
    for image, name in names.items():
        copy_image(local_path(image), out / IMAGE_FOLDER[format] / name)
    splits = {
        split: [NamedImage(image, names[image.image], dataset.sizes[image.image]) for image in images]
        for split, images in dataset.splits.items()
    }
    WRITERS[format](out, splits, dataset.class_map.class_names)
    write_text(out / CLASS_MAP_FILE, _identity_map(dataset.class_map))
    write_kept(out / KEPT_FILE, [dataset.checks[image] for image in names])
    return dataset


def _check_free(out: Path, root: Path) -> None:
    """Raises UserError if files that prepare did not write could be overwritten."""
    is_source = out.resolve() == root.resolve()
    found = [path.name for path in out.iterdir()] if out.is_dir() else []
    if is_source or (not all(map(is_system_file, found)) and not (out / AUDIT_FILE).is_file()):
        got = "the data set itself" if is_source else "a folder with other files"
        raise UserError(
            setting="out",
            file=out,
            expected="a new or empty folder, or one that prepare wrote",
            got=got,
            hint="give another folder; nothing was changed",
        )
    require_outside(out, root)


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


def file_names(used: Iterable[AnnotatedImage], root: Path) -> dict[str, str]:
    """Image -> file name of its copy. No two names differ only in their suffix.

    Raises:
        UserError: Two images would get the same name.
    """
    images = {image.image: image for image in used}
    counts = Counter(_stem(image) for image in images.values())
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for image in images.values():
        stem = _stem(image)
        if counts[stem] > 1:  # train/a and test/a
            stem = image.image_id.replace("/", "_") if not _is_in_list(image) else stem
        other = taken.setdefault(stem, image.image)
        if other != image.image:
            problem = f"{shown(other)} and {shown(image.image)} would both be named {stem}"
            raise UserError(problem, file=root, hint="rename one of them")
        names[image.image] = stem + local_path(image.image).suffix
    return names


def _is_in_list(image: AnnotatedImage) -> bool:
    """Whether an image is known by the path or URL in an annotation list, which has a suffix."""
    return image.source.suffix.lower() == ".txt" and image.image_id.partition("?")[0].lower().endswith(IMAGE_SUFFIXES)


def _stem(image: AnnotatedImage) -> str:
    """The last part of the image's name in the data set, without suffix."""
    if _is_in_list(image):
        return Path(image.image_id.partition("?")[0]).stem
    return Path(image.image_id).name


def copy_image(image: Path, target: Path) -> None:
    """Copies an image, unless an interrupted run did so before."""
    if target.is_file() and filecmp.cmp(image, target, shallow=False):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(image, temporary)
