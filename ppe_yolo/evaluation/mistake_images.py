"""Images with most mistakes, drawn by `evaluate`: annotated objects white, detections in their class's colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppe_yolo.core.contract import DEFAULT_SCORE_THRESHOLD, ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import draw_detections, draw_ground_truth, save_image
from ppe_yolo.core.files import atomic_path
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.images import read_image, shown
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Ints, TargetTable, match


def count_mistakes(detections: DetectionTable, targets: TargetTable, images: int) -> Ints:
    """Missed objects and false alarms of each image [images], for detections from `DEFAULT_SCORE_THRESHOLD` on.

    A difficult object is no miss, and its detection is no false alarm.
    """
    drawn = detections.select(detections.scores >= DEFAULT_SCORE_THRESHOLD)
    outcome = match(drawn, targets)
    missed = targets.images[(outcome.taker < 0) & ~targets.difficult]
    return np.bincount(drawn.images[outcome.false], minlength=images) + np.bincount(missed, minlength=images)


def draw_mistakes(
    folder: Path,
    annotated: Sequence[AnnotatedImage],
    detections: Sequence[Detections],
    mistakes: Ints,
    contract: ModelContract,
    count: int,
) -> None:
    """Draws the images with most mistakes.

    Args:
        folder: Where to write them; images of an earlier evaluation are deleted, other files are kept.
        annotated: The images.
        detections: The detections of each.
        mistakes: See `count_mistakes`.
        contract: For the class names.
        count: Number of images to draw.
    """
    for earlier in folder.glob("[0-9][0-9][0-9]_*-mistakes_*.jpg"):
        earlier.unlink()
    for rank, i in enumerate(np.argsort(-mistakes, kind="stable")[:count].tolist(), start=1):
        image, one = annotated[i], detections[i]
        boxes = np.array([o.box_xyxy for o in image.objects], dtype=np.float32).reshape(-1, 4)
        canvas = draw_ground_truth(read_image(image.image), boxes)
        canvas = draw_detections(canvas, one.select(one.scores >= DEFAULT_SCORE_THRESHOLD), contract)
        with atomic_path(folder / f"{rank:03d}_{mistakes[i]}-mistakes_{Path(shown(image.image)).stem}.jpg") as temporary:
            save_image(temporary, canvas)
