"""Cut-outs of photos around one mistake, small enough to stand in a page."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.drawing import GROUND_TRUTH, colour_of, draw_boxes
from ppe_yolo.evaluation.metrics.matching import Floats

SIZE = (270, 360)  # (height, width), pixels
CONTEXT = 4.0  # the cut-out is so much larger than the box
LEAST = 96.0  # pixels of the photo
QUALITY = 82


def cut_out(
    photo: NDArray[np.uint8],
    focus_xyxy: Floats,
    annotated_xyxy: Floats,
    found_xyxy: Floats | None = None,
    label: tuple[int, str, float] | None = None,
) -> bytes:
    """A JPEG of the place around a box.

    Annotated boxes are white with a black edge, the one in question thicker; a detection has its class's colour.

    Args:
        photo: uint8 [H, W, 3].
        focus_xyxy: What the picture is about [4].
        annotated_xyxy: All annotated boxes of the photo [N, 4].
        found_xyxy: The detection in question [4]; None for a missed object.
        label: Its label, class name and score.
    """
    height, width = photo.shape[:2]
    x1, y1, x2, y2 = focus_xyxy
    wanted = max(LEAST, CONTEXT * max((x2 - x1) * SIZE[0] / SIZE[1], y2 - y1))
    part_height = min(wanted, height, width * SIZE[0] / SIZE[1])
    part_width = part_height * SIZE[1] / SIZE[0]
    left = round(float(np.clip((x1 + x2) / 2 - part_width / 2, 0, width - part_width)))
    top = round(float(np.clip((y1 + y2) / 2 - part_height / 2, 0, height - part_height)))
    part = photo[top : top + max(1, round(part_height)), left : left + max(1, round(part_width))]
    scale = np.array([SIZE[1] / part.shape[1], SIZE[0] / part.shape[0]] * 2)
    shrinks = part.shape[0] > SIZE[0]
    canvas = cv2.resize(part, SIZE[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).astype(np.uint8)
    shift = np.array([left, top] * 2)
    for box in annotated_xyxy:
        corners = np.rint((box - shift) * scale).astype(int).tolist()
        thick = 2 if found_xyxy is None and np.array_equal(box, focus_xyxy) else 1
        for colour, line in (((0, 0, 0), thick + 2), (GROUND_TRUTH, thick)):
            cv2.rectangle(canvas, corners[:2], corners[2:], colour, line)
    if found_xyxy is not None and label is not None:
        number, name, score = label
        corners = np.rint((found_xyxy - shift) * scale).astype(int).tolist()
        cv2.rectangle(canvas, corners[:2], corners[2:], colour_of(name, number), 3)
        names = [""] * number + [name]
        canvas = draw_boxes(canvas, ((found_xyxy - shift) * scale)[None], np.array([number]), names, np.array([score]))
    done, data = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise RuntimeError("OpenCV cannot write a JPEG")
    return data.tobytes()
