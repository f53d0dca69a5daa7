"""The detections of one image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """What was found in one photo, in falling order of score.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the photo.
        scores: float32 [N].
        labels: int64 [N].
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
