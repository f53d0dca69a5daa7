"""Detections as lines of JSON, for many images in folders and zip files.

The images are first divided into items of equal work: a step that scores items needs about the same time for each, whether its
images lie in one zip file of 10,000 images or in 10,000 files.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import is_system_file, write_json
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import ImageError, decode, read_image
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.predict import above_thresholds, detection_rows

Image = NDArray[np.uint8]
_Entry = tuple[str, str | None]  # a file, and for a zip file the name of the image in it; None if it has none


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Result of `write_items`: the numbers of items, of images, and of files that are neither images nor zip files."""

    items: int
    images: int
    skipped: int


def write_items(root: Path, out: Path, images_per_item: int) -> Listing:
    """Divides the images of a folder, and of the zip files in it, into items, and writes each item as a JSON file.

    A zip file that cannot be read, or has no images, counts as one image; it gets one line in the results.

    Args:
        root: The folder; its subfolders are included.
        out: The folder for the items, 00000000.json and so on.
        images_per_item: Maximum number of images of an item.

    Raises:
        UserError: There are no images and no zip files, or an item would hold none.
    """
    if images_per_item < 1:
        raise UserError(setting="images_per_item", expected="at least 1", got=str(images_per_item))
    entries: list[_Entry] = []
    skipped = 0
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name, suffix = str(path.relative_to(root)), path.suffix.lower()
        if _is_of_system(name):
            skipped += 1
        elif suffix == ".zip":
            entries += [(name, entry) for entry in _list_archive(path)] or [(name, None)]
        elif suffix in IMAGE_SUFFIXES:
            entries.append((name, None))
        else:
            skipped += 1
    if not entries:
        raise UserError(file=root, expected="images or zip files", got=f"{skipped} other files" if skipped else "no files")
    starts = range(0, len(entries), images_per_item)
    for number, start in enumerate(starts):
        write_json(out / f"{number:08}.json", {"entries": entries[start : start + images_per_item]})
    return Listing(items=len(starts), images=len(entries), skipped=skipped)


def score_items(detector: Detector, items: Sequence[str | Path], root: Path) -> list[str]:
    """One line of JSON per image, in the order of the items.

    Every item has at least one line, since a parallel job of Azure ML fails otherwise. An unreadable image has `error`; a zip
    file without images has `skipped`.

    Args:
        detector: The detector. Detections below `ModelContract.score_thresholds` are dropped.
        items: Files of `write_items`.
        root: The folder that the items refer to.
    """
    contract, lines = detector.contract, []
    for item in items:
        for name, pixels in _images(json.loads(Path(item).read_text(encoding="utf-8"))["entries"], root):
            row: dict[str, Any] = {"image": name}
            if isinstance(pixels, str):
                row["skipped"] = pixels
            elif isinstance(pixels, ImageError):
                row["error"] = str(pixels)
            else:
                detections = above_thresholds(detector.detect([pixels])[0], contract, contract.score_thresholds())
                height, width = pixels.shape[:2]
                row |= {"height": height, "width": width, "detections": detection_rows(detections, contract)}
            lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def _is_of_system(name: str) -> bool:
    """Whether an operating system wrote a file for itself, such as `__MACOSX/._a.jpg` in a zip file of macOS."""
    return any(map(is_system_file, PurePosixPath(name).parts))


def _list_archive(path: Path) -> list[str]:
    """Names of the images in a zip file; none if it cannot be read, which is reported when it is scored."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if name.lower().endswith(IMAGE_SUFFIXES) and not _is_of_system(name)]
    except (OSError, zipfile.BadZipFile):
        return []


def _images(entries: Sequence[_Entry], root: Path) -> Iterator[tuple[str, Image | ImageError | str]]:
    """Yields each image's name, `ARCHIVE/NAME` in a zip file, and its pixels, the error, or why the file is skipped."""
    for source, group in groupby(entries, key=itemgetter(0)):
        names = [name for _, name in group]
        if Path(source).suffix.lower() != ".zip":
            try:
                yield source, read_image(str(root / source))
            except ImageError as error:
                yield source, error
            continue
        try:
            with zipfile.ZipFile(root / source) as archive:
                for name in names:
                    if name is None:
                        yield source, "no images in the zip file"
                    else:
                        yield f"{source}/{name}", _decode(archive, name, f"{source}/{name}")
        except (OSError, zipfile.BadZipFile) as error:
            yield source, ImageError(f"{source}: expected a zip file, cannot be read ({error})")


def _decode(archive: zipfile.ZipFile, entry: str, name: str) -> Image | ImageError:
    try:
        data = archive.read(entry)
    except Exception as error:  # damaged, or encrypted: each way to compress has errors of its own, such as zlib.error
        return ImageError(f"{name}: cannot be read ({error})")
    try:
        return decode(name, np.frombuffer(data, dtype=np.uint8))
    except ImageError as error:
        return error
