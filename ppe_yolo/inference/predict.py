"""`ppe-yolo predict`: writes annotated images and predictions.json."""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import draw_detections, save_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, require_utf8, write_json
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import ImageError, is_url, read_image, shown
from ppe_yolo.data.sources.files import IMAGE_FOLDERS, has_files_with, images_in, require_outside
from ppe_yolo.data.sources.open_source import data_set_around
from ppe_yolo.inference.detector import Detector

PREDICTIONS_FILE = "predictions.json"


class DetectionRow(TypedDict):
    """One detection in JSON; the box is in pixels of the image."""

    class_name: str
    score: float
    box_xyxy: list[float]


class ImageRow(TypedDict):
    """The detections of one image in predictions.json; `annotated` is the name of the drawn copy."""

    image: str
    annotated: str
    height: int
    width: int
    detections: list[DetectionRow]


def find_images(inputs: Iterable[str]) -> list[str]:
    """Lists files, URLs, the images of folders (without subfolders), and the matches of glob patterns, each once.

    Raises:
        UserError: An input matches no image, or one whose name is not valid UTF-8.
    """
    images: list[str] = []
    for item in inputs:
        if is_url(item) or Path(item).is_file():
            matches = [item]
        elif Path(item).is_dir():
            matches = [str(p) for p in images_in(Path(item))]
        else:
            matches = sorted(p for p in glob.glob(item, recursive=True) if Path(p).is_file())
        if not matches:
            kinds = " ".join(IMAGE_SUFFIXES)
            expected = f"an image, a folder with images ({kinds}), a pattern or a URL"
            hint = f"for the images of its subfolders, give '{item}/**/*.jpg'" if Path(item).is_dir() else None
            raise UserError(file=item, expected=expected, got="no match", hint=hint)
        for match in matches:
            require_utf8(match)
        images += matches
    return list(dict.fromkeys(images))


def predict(
    detector: Detector,
    images: Sequence[str],
    out: Path,
    *,
    score_threshold: float | None = None,
    batch_size: int = 8,
    console: Console | None = None,
) -> tuple[list[ImageRow], list[str]]:
    """Detects objects in images, and writes one annotated copy per image and predictions.json.

    Args:
        detector: The detector.
        images: Paths or URLs.
        out: Folder for the files.
        score_threshold: Detections with a lower score are dropped; None applies `ModelContract.score_thresholds`.
        batch_size: Number of images per batch.
        console: Shows progress; None shows none.

    Returns:
        The content of predictions.json, and one line for each image that cannot be read. These do not stop the others.

    Raises:
        UserError: `out` is a folder that images come from, or lies in the images of a data set; or the threshold is below the
            model's score floor or above 1.
    """
    thresholds = thresholds_of(detector.contract, score_threshold)
    _require_no_data_set(out.resolve())
    for image in images:
        if not is_url(image) and Path(image).resolve().parent == out.resolve():
            raise UserError(
                f"--out: {out} holds the image {image}, which an annotated one would overwrite", hint="choose another folder"
            )
    rows: list[ImageRow] = []
    failures: list[str] = []
    names: set[str] = set()
    starts = range(0, len(images), batch_size)
    for start in track(starts, "predicting", console=console, disable=console is None, transient=True):
        batch, readable = [], []
        for image in images[start : start + batch_size]:
            try:
                batch.append(read_image(image))
                readable.append(image)
            except ImageError as error:
                failures.append(str(error))
        for image, pixels, detections in zip(readable, batch, detector.detect(batch) if batch else [], strict=True):
            confident = above_thresholds(detections, detector.contract, thresholds)
            name = _free_name(Path(shown(image)).stem, names)
            drawn = draw_detections(pixels, confident, detector.contract)
            with atomic_path(out / name) as temporary:
                save_image(temporary, drawn)
            rows.append(
                ImageRow(
                    image=shown(image),
                    annotated=name,
                    height=pixels.shape[0],
                    width=pixels.shape[1],
                    detections=detection_rows(confident, detector.contract),
                )
            )
    write_json(out / PREDICTIONS_FILE, rows)
    return rows, failures


def _require_no_data_set(out: Path) -> None:
    """Drawn images in a data set's folder of images, or below it, would become a part of it, or replace some of its own."""
    for folder in (out, *out.parents):
        if folder.name.lower() not in IMAGE_FOLDERS or not os.access(folder, os.R_OK):
            continue
        if has_files_with(folder, IMAGE_SUFFIXES) and not (folder / PREDICTIONS_FILE).exists():
            root = data_set_around(folder)
            if root is not None:
                require_outside(out, root)


def thresholds_of(contract: ModelContract, score_threshold: float | None) -> dict[str, float]:
    """Returns class name -> lowest score that is shown.

    Args:
        contract: Provides the thresholds.
        score_threshold: One threshold for all classes instead; None for `ModelContract.score_thresholds`.

    Raises:
        UserError: The threshold is below the model's score floor or above 1.
    """
    if score_threshold is not None:
        if not contract.score_floor <= score_threshold <= 1:
            raise UserError(
                setting="--score-threshold",
                expected=f"{contract.score_floor} (the model's score floor) to 1",
                got=str(score_threshold),
            )
        return dict.fromkeys(contract.class_names, score_threshold)
    return contract.score_thresholds()


def above_thresholds(detections: Detections, contract: ModelContract, thresholds: Mapping[str, float]) -> Detections:
    """Returns the detections that reach the threshold of their class; see `mistakes.above_threshold` for those of a file."""
    lowest = np.array([thresholds[name] for name in contract.class_names], dtype=np.float32)  # as the scores are
    return detections.select(detections.scores >= lowest[detections.labels])


def detection_rows(detections: Detections, contract: ModelContract) -> list[DetectionRow]:
    """Returns detections in plain types; boxes are in pixels of the image."""
    return [
        DetectionRow(
            class_name=contract.class_names[label],
            score=round(float(score), 5),
            box_xyxy=[round(float(v), 2) for v in box],
        )
        for box, score, label in zip(detections.boxes_xyxy, detections.scores, detections.labels, strict=True)
    ]


def _free_name(stem: str, taken: set[str]) -> str:
    name, number = f"{stem}.jpg", 1
    while name in taken:  # images of the same name from several folders
        number += 1
        name = f"{stem}-{number}.jpg"
    taken.add(name)
    return name
