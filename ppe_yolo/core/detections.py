"""The detections of one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of one image, sorted by descending score.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the image.
        scores: float32 [N].
        labels: int64 [N].
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: NDArray[np.bool_] | NDArray[np.integer[Any]] | slice) -> "Detections":
        """Returns some of the detections, chosen by a mask [N], by positions [K] or by a slice."""
        return Detections(self.boxes_xyxy[index], self.scores[index], self.labels[index])
