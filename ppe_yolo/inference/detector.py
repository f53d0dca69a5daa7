"""The interface that all detectors share."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections


class Detector(Protocol):
    """Anything that detects objects in images, whatever runs its network.

    Attributes:
        contract: The contract of its model.
    """

    contract: ModelContract

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects objects in RGB images of any size, each uint8 [H, W, 3]; returns one `Detections` per image."""
        ...
