"""Detections as lines of JSON, for batches of images from folders and zip files."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.decoding import decode_image
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import ImageError, read_image
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.predict import above_thresholds, detection_rows, thresholds_of

Image = NDArray[np.uint8]


def score_batch(detector: Detector, files: Sequence[str | Path], root: Path) -> list[str]:
    """One line of JSON per image, in the order of the files.

    Every file has at least one line, since a parallel job of Azure ML fails otherwise: an unreadable image has `error`; a file
    that is not an image and a zip file without images have `skipped`.

    Args:
        detector: The detector. Detections below its alarm thresholds, or 0.3, are dropped.
        files: Images and zip files of images.
        root: The folder that image names are relative to; an image outside it keeps its path.
    """
    thresholds = thresholds_of(detector.contract, None)
    lines = []
    for name, pixels in _images(files, root):
        row: dict[str, Any] = {"image": name}
        if isinstance(pixels, str):
            row["skipped"] = pixels
        elif isinstance(pixels, ImageError):
            row["error"] = str(pixels)
        else:
            detections = above_thresholds(detector.detect([pixels])[0], detector.contract, thresholds)
            height, width = pixels.shape[:2]
            row |= {"height": height, "width": width, "detections": detection_rows(detections, detector.contract)}
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def _images(files: Sequence[str | Path], root: Path) -> Iterator[tuple[str, Image | ImageError | str]]:
    """Yields each image's name, `ARCHIVE/NAME` in a zip file, and its pixels, the error, or why the file is skipped."""
    for path in map(Path, files):
        source = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            try:
                yield source, read_image(str(path))
            except ImageError as error:
                yield source, error
        elif path.suffix.lower() == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    entries = [e for e in archive.infolist() if e.filename.lower().endswith(IMAGE_SUFFIXES)]
                    for entry in entries:
                        name = f"{source}/{entry.filename}"
                        yield name, _decode(archive, entry, name)
                    if not entries:
                        yield source, "no images in the zip file"
            except (OSError, zipfile.BadZipFile) as error:
                yield source, ImageError(f"{source}: expected a zip file, cannot be read ({error})")
        else:
            yield source, "not an image"


def _decode(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Image | ImageError:
    try:
        data = archive.read(entry)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, or encrypted
        return ImageError(f"{name}: cannot be read ({error})")
    pixels = decode_image(data)
    if pixels is None:
        return ImageError(f"{name}: expected an image, got {len(data)} bytes that cannot be decoded")
    return pixels
