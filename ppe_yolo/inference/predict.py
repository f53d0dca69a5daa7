"""`ppe-yolo predict`: photos in, annotated photos and one JSON out."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import draw_boxes, save_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_json
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import ImageError, is_url, read_image, shown
from ppe_yolo.inference.detector import Detector

DEFAULT_SCORE_THRESHOLD = 0.3  # until alarm thresholds are chosen; what the original helmet system showed


def find_images(inputs: Iterable[str]) -> list[str]:
    """Files, URLs, the photos of folders (not of folders within), and what glob patterns match; each once.

    Raises:
        UserError: An input that stands for no photo.
    """
    images: list[str] = []
    for item in inputs:
        if is_url(item) or Path(item).is_file():
            found = [item]
        elif Path(item).is_dir():
            found = sorted(str(p) for p in Path(item).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            found = sorted(p for p in glob.glob(item, recursive=True) if Path(p).is_file())
        if not found:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise UserError(f"{item}: expected a photo, a folder with photos ({kinds}), a pattern or a URL, found none")
        images += found
    return list(dict.fromkeys(images))


def predict(
    detector: Detector,
    images: Sequence[str],
    out: Path,
    *,
    score_threshold: float | None = None,
    batch_size: int = 8,
    console: Console | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Finds objects in photos; leaves an annotated photo each and predictions.json.

    Args:
        detector: The detector.
        images: Paths or URLs.
        out: Folder for the files.
        score_threshold: Weaker detections are left out; None for the model's alarm thresholds, where it has none 0.3.
        batch_size: Photos at once.
        console: Shows progress; none when None.

    Returns:
        What predictions.json holds, and a line for each photo that could not be read (the others are not held up by it).

    Raises:
        UserError: `out` is a folder that photos come from, or the threshold is no score of this model.
    """
    thresholds = thresholds_of(detector.contract, score_threshold)
    for image in images:
        if not is_url(image) and Path(image).resolve().parent == out.resolve():
            raise UserError(
                f"--out: {out} holds the photo {image}, which an annotated one would overwrite: give another folder"
            )
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    names: set[str] = set()
    starts = range(0, len(images), batch_size)
    for start in track(starts, "predicting", console=console, disable=console is None, transient=True):
        pixels, readable = [], []
        for image in images[start : start + batch_size]:
            try:
                pixels.append(read_image(image))
                readable.append(image)
            except ImageError as error:
                failures.append(str(error))
        for image, photo, found in zip(readable, pixels, detector.detect(pixels) if pixels else [], strict=True):
            found = stronger(found, detector.contract, thresholds)
            name = _free_name(Path(shown(image)).stem, names)
            picture = draw_boxes(photo, found.boxes_xyxy, found.labels, detector.contract.class_names, found.scores)
            with atomic_path(out / name) as temporary:
                save_image(temporary, picture)
            rows.append(_row(image, name, photo.shape[:2], found, detector.contract))
    write_json(out / "predictions.json", rows)
    return rows, failures


def thresholds_of(contract: ModelContract, score_threshold: float | None) -> dict[str, float]:
    """Class name -> lowest score that is shown."""
    if score_threshold is not None:
        if not contract.score_floor <= score_threshold <= 1:
            raise UserError(
                f"--score-threshold: expected {contract.score_floor} (the model's score floor) to 1, got {score_threshold}"
            )
        return dict.fromkeys(contract.class_names, score_threshold)
    return {n: contract.alarm_thresholds.get(n, DEFAULT_SCORE_THRESHOLD) for n in contract.class_names}


def stronger(found: Detections, contract: ModelContract, thresholds: dict[str, float]) -> Detections:
    """The detections that reach their class's threshold."""
    lowest = [thresholds[name] for name in contract.class_names]
    keep = [score >= lowest[label] for score, label in zip(found.scores, found.labels, strict=True)]
    return Detections(found.boxes_xyxy[keep], found.scores[keep], found.labels[keep])


def _free_name(stem: str, taken: set[str]) -> str:
    name, number = f"{stem}.jpg", 1
    while name in taken:  # photos of one name from several folders
        number += 1
        name = f"{stem}-{number}.jpg"
    taken.add(name)
    return name


def _row(image: str, name: str, size: tuple[int, ...], found: Detections, contract: ModelContract) -> dict[str, Any]:
    return {
        "image": shown(image),
        "annotated": name,
        "height": size[0],
        "width": size[1],
        "detections": detection_rows(found, contract),
    }


def detection_rows(found: Detections, contract: ModelContract) -> list[dict[str, Any]]:
    """Detections in plain types: class_name, score, box_xyxy in pixels of the photo."""
    return [
        {
            "class_name": contract.class_names[label],
            "score": round(float(score), 5),
            "box_xyxy": [round(float(v), 2) for v in box],
        }
        for box, score, label in zip(found.boxes_xyxy, found.scores, found.labels, strict=True)
    ]
