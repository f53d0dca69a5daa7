"""Crops of images around one mistake, small enough for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.drawing import GROUND_TRUTH, colour_of, draw_box
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.files.folder import ROBUSTNESS_FILE
from ppe_yolo.evaluation.metrics.matching import Floats, Ints
from ppe_yolo.evaluation.metrics.mistakes import FalseAlarm
from ppe_yolo.evaluation.report.material import Material
from ppe_yolo.html import data_uri

SIZE = (270, 360)  # (height, width), pixels
CONTEXT = 4.0  # side of a crop in sides of the box
MIN_SIDE = 96.0  # pixels of the image
QUALITY = 82
CROPS = 12  # of each kind of mistake


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A crop of the page with its caption; suspects link to its `anchor`."""

    jpeg: bytes
    title: str
    where: str
    anchor: str

    @property
    def uri(self) -> str:
        """The JPEG as a data URI."""
        return data_uri(self.jpeg, "jpeg")


def crop(
    image: NDArray[np.uint8],
    focus_xyxy: Floats,
    annotated_xyxy: Floats,
    detected_xyxy: Floats | None = None,
    colour: tuple[int, int, int] = GROUND_TRUTH,
    text: str | None = None,
) -> bytes:
    """A JPEG of the surroundings of a box.

    Annotated boxes are white with a black edge, the one in question thicker. A detection has the colour of its class.

    Args:
        image: uint8 [H, W, 3].
        focus_xyxy: The box in question [4].
        annotated_xyxy: All annotated boxes of the image [N, 4].
        detected_xyxy: The detection in question [4]; None for a missed object.
        colour: Colour of the detection, RGB.
        text: What is written at the detection.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = focus_xyxy
    wanted = max(MIN_SIDE, CONTEXT * max((x2 - x1) * SIZE[0] / SIZE[1], y2 - y1))
    part_height = min(wanted, height, width * SIZE[0] / SIZE[1])
    part_width = part_height * SIZE[1] / SIZE[0]
    left = round(float(np.clip((x1 + x2) / 2 - part_width / 2, 0, width - part_width)))
    top = round(float(np.clip((y1 + y2) / 2 - part_height / 2, 0, height - part_height)))
    part = image[top : top + max(1, round(part_height)), left : left + max(1, round(part_width))]
    scale = np.array([SIZE[1] / part.shape[1], SIZE[0] / part.shape[0]] * 2)
    shrinks = part.shape[0] > SIZE[0]
    canvas = cv2.resize(part, SIZE[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).astype(np.uint8)
    shift = np.array([left, top] * 2)
    for box in annotated_xyxy:
        corners = np.rint((box - shift) * scale).astype(int).tolist()
        thick = 2 if detected_xyxy is None and np.array_equal(box, focus_xyxy) else 1
        for edge, line in (((0, 0, 0), thick + 2), (GROUND_TRUTH, thick)):
            cv2.rectangle(canvas, corners[:2], corners[2:], edge, line)
    if detected_xyxy is not None:
        box = (detected_xyxy - shift) * scale
        corners = np.rint(box).astype(int).tolist()
        cv2.rectangle(canvas, corners[:2], corners[2:], colour, 3)
        draw_box(canvas, box, colour, text)
    done, data = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise RuntimeError("OpenCV cannot write a JPEG")
    return data.tobytes()


def draw_false_alarms(material: Material, alarms: Sequence[FalseAlarm]) -> list[Crop]:
    """Crops of the false alarms with the highest scores."""
    table, result = material.detections, []
    for alarm in alarms[:CROPS]:
        d = alarm.detection
        label, score, image, box = int(table.labels[d]), float(table.scores[d]), int(table.images[d]), table.boxes_xyxy[d]
        text = f"{material.display_names[label]} {score:.2f}"
        jpeg = crop(
            read_image(material.annotated[image].image),
            box,
            _annotated_boxes(material, image),
            box,
            colour_of(material.class_names[label], label),
            text,
        )
        where = material.annotated[image].image_id
        result.append(Crop(jpeg=jpeg, title=f"{text}: {alarm.kind}", where=where, anchor=f"alarm-{d}"))
    return result


def draw_misses(material: Material, missed: Ints, taker: Ints) -> list[Crop]:
    """Crops of the first missed objects.

    Args:
        material: The split.
        missed: Indices of the missed objects.
        taker: The detection that takes each object, or -1 [N].
    """
    targets, result = material.truth.targets, []
    for t in missed[:CROPS].tolist():
        image, name, detection = int(targets.images[t]), material.display_names[targets.labels[t]], int(taker[t])
        width, height = targets.boxes_xyxy[t, 2:] - targets.boxes_xyxy[t, :2]
        weak = "below the threshold, with a score of"
        seen = f"{weak} {material.detections.scores[detection]:.2f}" if detection >= 0 else "not detected at any score"
        pixels = read_image(material.annotated[image].image)
        result.append(
            Crop(
                jpeg=crop(pixels, targets.boxes_xyxy[t], _annotated_boxes(material, image)),
                title=f"{name}, {width:.0f} x {height:.0f} pixels: {seen}",
                where=material.annotated[image].image_id,
                anchor=f"miss-{t}",
            )
        )
    return result


def read_corruptions(material: Material) -> list[Crop]:
    """One image of each corruption, worst first; empty without robustness.json.

    Raises:
        UserError: An image that robustness.json names cannot be read.
    """
    result = []
    for row in material.robustness["conditions"] if material.robustness else ():
        path = material.folder / row["picture"]
        try:
            jpeg = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"named by {ROBUSTNESS_FILE}, but cannot be read ({error.strerror})", file=path, hint="evaluate again"
            ) from error
        title = f"{row['name']}: {row['severity']}"
        result.append(Crop(jpeg=jpeg, title=title, where=row["picture_of"], anchor=f"corruption-{row['name']}"))
    return result


def _annotated_boxes(material: Material, image: int) -> Floats:
    targets = material.truth.targets
    return targets.boxes_xyxy[targets.images == image]
