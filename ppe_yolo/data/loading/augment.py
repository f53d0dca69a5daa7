"""Augmentation of training images: a function of a random generator, some images and a size."""

import functools
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.letterbox import letterbox

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would look for a newer release on the network
import albumentations as A

LabeledImage = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]  # RGB [H, W, 3], boxes_xyxy [N, 4], labels [N]

MIN_VISIBILITY = 0.25  # objects with a smaller visible fraction are dropped
MIN_SIDE = 2.0  # pixels; smaller boxes teach nothing
CROP_TRIES = 8
CROP_VISIBILITY = (0.05, 0.75)  # a crop shows at most the first fraction of an object, or at least the second


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training images are varied.

    Attributes:
        mosaic: Probability that a sample is a mosaic of four images (Bochkovskiy et al. 2020, section 3.3).
        mosaic_fade: Fractions of the training (0..1) at which this probability starts to fall and reaches 0, so that the last
            epochs see whole images (Ge et al. 2021, section 2.1).
        scale: (smallest, largest) zoom, drawn on a logarithmic scale. A zoom above 1 crops the image at a random position, so
            enlarged heads keep the detail of the original image.
        translate: Largest shift, as a fraction of the side.
        rotate: Largest rotation in either direction, degrees.
        flip: Probability of a horizontal flip.
        color: Probability of a change of brightness, contrast, saturation and hue.
        brightness: Largest change of brightness and of contrast, as a fraction.
        saturation: Largest change of saturation, as a fraction.
        hue: Largest change of hue, as a fraction of the colour circle.
        degrade: Probability that the sample is then corrupted, for low-quality cameras and low light: by blur, motion blur,
            darkness with noise, or JPEG compression, of random strength.
    """

    mosaic: float = 1.0
    mosaic_fade: tuple[float, float] = (0.7, 0.85)
    scale: tuple[float, float] = (0.6, 1.5)
    translate: float = 0.1
    rotate: float = 3.0
    flip: float = 0.5
    color: float = 0.8
    brightness: float = 0.4
    saturation: float = 0.6
    hue: float = 0.02
    degrade: float = 0.0

    def mosaic_probability(self, epoch: int, epochs: int) -> float:
        """Probability of a mosaic in an epoch.

        Args:
            epoch: The epoch, from 0.
            epochs: Length of the training.
        """
        begin, end = (fraction * epochs for fraction in self.mosaic_fade)
        if epoch < begin:
            return self.mosaic
        return self.mosaic * max(0.0, (end - epoch) / (end - begin)) if end > begin else 0.0


def fit(sample: LabeledImage, input_size: tuple[int, int]) -> LabeledImage:
    """Letterboxes an image and its boxes, in the same way as at inference."""
    image, boxes_xyxy, labels = sample
    canvas, placement = letterbox(image, input_size)
    return canvas, placement.place(boxes_xyxy), labels


def augment(
    sample: LabeledImage,
    others: list[LabeledImage],
    input_size: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> LabeledImage:
    """Makes one training sample.

    Args:
        sample: The image.
        others: Three more for a mosaic, or none.
        input_size: (height, width) of the result.
        config: The augmentation.
        rng: The only source of randomness.
    """
    smallest, largest = (float(v) for v in np.log(config.scale))
    zooms = np.exp(rng.uniform(smallest, largest, 1 + len(others)))
    sample, *others = (crop(s, zoom, rng) if zoom > 1 else s for s, zoom in zip((sample, *others), zooms, strict=True))
    reduce = bool(zooms[0] < 1)
    pipeline = _pipeline(config, input_size, mosaic=bool(others), reduce=reduce)
    pipeline.set_random_seed(int(rng.integers(2**31)))
    if not others:
        sample = fit(sample, input_size)
    image, boxes_xyxy, labels = sample
    result = pipeline(
        image=image,
        bboxes=boxes_xyxy,
        labels=labels,
        mosaic_metadata=[{"image": i, "bboxes": b, "labels": n} for i, b, n in others],
    )
    return (
        result["image"],
        np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4),
        np.asarray(result["labels"], dtype=np.int64).reshape(-1),
    )


def crop(sample: LabeledImage, zoom: float, rng: np.random.Generator) -> LabeledImage:
    """Crops a window of 1 / zoom of the height and width, at a random position where it cuts through no object.

    Half a head may show no helmet although its label says so. An object of which at most a small part is in the window is
    dropped. After `CROP_TRIES` positions that cut through objects, the whole image is returned.
    """
    image, boxes_xyxy, labels = sample
    height, width = (max(1, round(side / zoom)) for side in image.shape[:2])
    window = np.array([width, height, width, height], dtype=np.float32)
    for _ in range(CROP_TRIES):
        top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], (height, width), strict=True))
        moved = boxes_xyxy - np.array([left, top, left, top], dtype=np.float32)
        clipped = moved.clip(0, window)
        area, area_inside = ((b[:, 2:] - b[:, :2]).prod(1) for b in (moved, clipped))
        visible = area_inside / np.maximum(area, 1e-6)
        if ((visible <= CROP_VISIBILITY[0]) | (visible >= CROP_VISIBILITY[1])).all():
            keep = visible >= CROP_VISIBILITY[1]
            return image[top : top + height, left : left + width], clipped[keep], labels[keep]
    return sample


@functools.lru_cache(maxsize=64)  # in each worker: one per size and kind
def _pipeline(config: AugmentConfig, input_size: tuple[int, int], *, mosaic: bool, reduce: bool) -> A.Compose:
    grey = ModelContract.pad_value
    steps: list[A.BasicTransform] = []
    if mosaic:
        steps.append(
            A.Mosaic(grid_yx=(2, 2), target_size=input_size, cell_shape=input_size, fit_mode="contain", fill=grey, p=1.0)
        )
    steps += [
        A.Affine(
            scale=(config.scale[0], min(config.scale[1], 1.0)) if reduce else (1.0, 1.0),
            translate_percent=(-config.translate, config.translate),
            rotate=(-config.rotate, config.rotate),
            keep_ratio=True,
            fill=grey,
            p=1.0,
        ),
        A.HorizontalFlip(p=config.flip),
        A.ColorJitter(
            brightness=(1 - config.brightness, 1 + config.brightness),
            contrast=(1 - config.brightness, 1 + config.brightness),
            saturation=(1 - config.saturation, 1 + config.saturation),
            hue=(-config.hue, config.hue),
            p=config.color,
        ),
        A.ToGray(p=0.01 if config.color else 0.0),
        *_degrade(config.degrade, max(input_size)),
    ]
    return A.Compose(
        steps,
        bbox_params=A.BboxParams(
            format="pascal_voc",
            label_fields=["labels"],
            min_visibility=MIN_VISIBILITY,
            min_width=MIN_SIDE,
            min_height=MIN_SIDE,
            clip=True,
            filter_invalid_bboxes=True,
        ),
    )


def _degrade(probability: float, side: int) -> list[A.BasicTransform | A.BaseCompose]:
    """One of four corruptions, for images with a longer side of `side` pixels; lengths are fractions of it."""
    if not probability:
        return []
    return [
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=(0.001 * side, 0.007 * side), p=1),
                A.MotionBlur(blur_limit=(3, max(3, int(0.035 * side) | 1)), allow_shifted=False, p=1),
                A.Sequential([A.RandomGamma(gamma_limit=(80, 350), p=1), A.GaussNoise(std_range=(0.005, 0.08), p=1)], p=1),
                # swaps R and B (see `corruptions`), which does not matter for training
                A.ImageCompression(quality_range=(15, 70), p=1),
            ],
            p=probability,
        )
    ]
