"""Photos as hard sites take them: blurred, dark, wet, foggy, squeezed or far away; each spoiled to a stated degree."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for a newer release
import albumentations as A

from ppe_yolo.core.contract import ModelContract

Image = NDArray[np.uint8]
PAD_VALUE = ModelContract.pad_value


@dataclass(frozen=True)
class Condition:
    """One way to spoil photos.

    Attributes:
        name: For tables and file names.
        severity: How far it goes, in words.
        transform: Longer side of a photo in pixels -> what is done to it; lengths are parts of that side, so that photos of
            any size are spoiled alike.
        border: So much of the photo's height and width is added on each side: the camera is further away.
    """

    name: str
    severity: str
    transform: Callable[[int], list[A.BasicTransform]]
    border: float = 0.0

    def spoil(self, photo: Image, seed: int) -> tuple[Image, tuple[int, int]]:
        """RGB photo [H, W, 3] -> the spoiled one, and how far (right, down) its objects have moved, pixels."""
        pipeline = A.Compose(self.transform(max(photo.shape[:2])))
        pipeline.set_random_seed(seed)
        spoiled = pipeline(image=photo)["image"]
        down, right = (round(self.border * side) for side in photo.shape[:2])
        if self.border:
            spoiled = cv2.copyMakeBorder(spoiled, down, down, right, right, cv2.BORDER_CONSTANT, value=[PAD_VALUE] * 3)
        return spoiled.astype(np.uint8, copy=False), (right, down)


def _always(part: float, side: int) -> tuple[int, int]:
    """An odd length from 3 on, as a range of one value."""
    length = max(3, round(part * side) | 1)
    return length, length


def _compress(photo: Image, **_: object) -> Image:
    """As JPEG of quality 30; albumentations' own compression takes red for blue, which JPEG treats otherwise."""
    data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


CONDITIONS = (
    Condition(
        "blur",
        "out of focus: Gaussian, sigma 0.5 % of the longer side",
        lambda side: [A.GaussianBlur(blur_limit=0, sigma_limit=(0.005 * side, 0.005 * side), p=1)],
    ),
    Condition(
        "motion blur",
        "a line of 2.5 % of the longer side, in any direction",
        lambda side: [A.MotionBlur(blur_limit=_always(0.025, side), allow_shifted=False, p=1)],
    ),
    Condition(
        "night",
        "gamma 2.5, and noise of a deviation of 5 % of white",
        lambda side: [A.RandomGamma(gamma_limit=(250, 250), p=1), A.GaussNoise(std_range=(0.05, 0.05), p=1)],
    ),
    Condition(
        "rain",
        "heavy streaks, 30 % darker",
        lambda side: [
            A.RandomRain(
                rain_type="heavy",
                brightness_coefficient=0.7,
                drop_width=max(1, round(side / 500)),
                blur_value=max(3, round(side / 200)),
                p=1,
            )
        ],
    ),
    Condition(
        "fog",
        "40 % of the contrast left, 30 % of white added",
        lambda side: [
            A.RandomBrightnessContrast(brightness_limit=(0.3, 0.3), contrast_limit=(-0.6, -0.6), p=1),
        ],
    ),
    Condition("jpeg", "JPEG quality 30", lambda side: [A.Lambda(image=_compress, p=1)]),
    Condition("far", "twice as far away: the photo fills half of the height and width", lambda side: [], border=0.5),
)
