"""Image corruptions of difficult sites: blur, darkness, rain, fog, compression, distance; each of a fixed severity."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would look for a newer release on the network
import albumentations as A

from ppe_yolo.core.contract import ModelContract

Image = NDArray[np.uint8]
PAD_VALUE = ModelContract.pad_value


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption of images.

    Attributes:
        name: Name for tables and files.
        severity: The severity in words.
        transform: Longer side of an image in pixels -> transforms. Lengths are fractions of that side, so images of any size
            are corrupted alike.
        border: Fraction of the height and width that is added on each side, to simulate a camera that is farther away.
    """

    name: str
    severity: str
    transform: Callable[[int], list[A.BasicTransform]]
    border: float = 0.0

    def apply(self, image: Image, seed: int) -> tuple[Image, tuple[int, int]]:
        """Corrupts an image.

        Args:
            image: RGB [H, W, 3].
            seed: Seed of random parts.

        Returns:
            The corrupted image, and the shift (right, down) of its objects in pixels.
        """
        pipeline = A.Compose(self.transform(max(image.shape[:2])))
        pipeline.set_random_seed(seed)
        corrupted = pipeline(image=image)["image"]
        down, right = (round(self.border * side) for side in image.shape[:2])
        if self.border:
            corrupted = cv2.copyMakeBorder(corrupted, down, down, right, right, cv2.BORDER_CONSTANT, value=[PAD_VALUE] * 3)
        return corrupted.astype(np.uint8, copy=False), (right, down)


def _exactly(fraction: float, side: int) -> tuple[int, int]:
    """An odd length of at least 3 pixels, as a range with one value."""
    length = max(3, round(fraction * side) | 1)
    return length, length


def _compress(image: Image, **_: object) -> Image:
    # albumentations' JPEG transform swaps R and B, which JPEG's chroma subsampling treats differently
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


CORRUPTIONS = (
    Corruption(
        name="blur",
        severity="out of focus: Gaussian, sigma 0.5 % of the longer side",
        transform=lambda side: [A.GaussianBlur(blur_limit=0, sigma_limit=(0.005 * side, 0.005 * side), p=1)],
    ),
    Corruption(
        name="motion blur",
        severity="2.5 % of the longer side, in any direction",
        transform=lambda side: [A.MotionBlur(blur_limit=_exactly(0.025, side), allow_shifted=False, p=1)],
    ),
    Corruption(
        name="night",
        severity="gamma 2.5, and noise with a standard deviation of 5 % of white",
        transform=lambda side: [A.RandomGamma(gamma_limit=(250, 250), p=1), A.GaussNoise(std_range=(0.05, 0.05), p=1)],
    ),
    Corruption(
        name="rain",
        severity="heavy streaks, 30 % darker",
        transform=lambda side: [
            A.RandomRain(
                rain_type="heavy",
                brightness_coefficient=0.7,
                drop_width=max(1, round(side / 500)),
                blur_value=max(3, round(side / 200)),
                p=1,
            )
        ],
    ),
    Corruption(
        name="fog",
        severity="40 % of the contrast, plus 30 % of white",
        transform=lambda side: [
            A.RandomBrightnessContrast(brightness_limit=(0.3, 0.3), contrast_limit=(-0.6, -0.6), p=1),
        ],
    ),
    Corruption(name="jpeg", severity="JPEG quality 30", transform=lambda side: [A.Lambda(image=_compress, p=1)]),
    Corruption(
        name="far",
        severity="twice as far away: the image fills half of the height and width",
        transform=lambda side: [],
        border=0.5,
    ),
)
