"""Detections as lines of JSON, for batches of images from folders and zip files."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import ImageError, read_image
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.predict import above_thresholds, detection_rows, thresholds_of

Image = NDArray[np.uint8]


def score_batch(detector: Detector, files: Sequence[str | Path], root: Path) -> list[str]:
    """Returns one line of JSON per image, in the order of the files; one that cannot be read has `error` and no detections.

    Args:
        detector: The detector. Detections below its alarm thresholds, or 0.3, are dropped.
        files: Images and zip files with images; other files are ignored.
        root: Images are named relative to this folder; one outside keeps its path.
    """
    thresholds = thresholds_of(detector.contract, None)
    lines = []
    for name, pixels in _images(files, root):
        row: dict[str, Any] = {"image": name}
        if isinstance(pixels, ImageError):
            row["error"] = str(pixels)
        else:
            detections = above_thresholds(detector.detect([pixels])[0], detector.contract, thresholds)
            height, width = pixels.shape[:2]
            row |= {"height": height, "width": width, "detections": detection_rows(detections, detector.contract)}
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def _images(files: Sequence[str | Path], root: Path) -> Iterator[tuple[str, Image | ImageError]]:
    """Yields the name of each image, `ARCHIVE/NAME` inside a zip file, and its pixels, or the error if it cannot be read."""
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
                    for entry in archive.infolist():
                        if entry.filename.lower().endswith(IMAGE_SUFFIXES):
                            name = f"{source}/{entry.filename}"
                            yield name, _decode(archive, entry, name)
            except (OSError, zipfile.BadZipFile) as error:
                yield source, ImageError(f"{source}: expected a zip file, cannot be read ({error})")


def _decode(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Image | ImageError:
    try:
        data = np.frombuffer(archive.read(entry), dtype=np.uint8)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, or encrypted
        return ImageError(f"{name}: cannot be read ({error})")
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if pixels is None:
        return ImageError(f"{name}: expected an image, got {len(data)} bytes that cannot be decoded")
    return pixels.astype(np.uint8, copy=False)
