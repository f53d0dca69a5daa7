"""Augmentation: a function of a random generator, some photos and a size. The one place that knows albumentations."""

import functools
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.letterbox import letterbox

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for a newer release
import albumentations as A

Photo = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]  # RGB [H, W, 3], boxes_xyxy [N, 4], labels [N]

MIN_VISIBILITY = 0.25  # an object of which less is left is no longer asked for
CROP_TRIES = 8
CROP_VISIBILITY = (0.05, 0.75)  # fractions of an object: a crop shows at most the first, or at least the second
MIN_SIDE = 2.0  # pixels; smaller boxes teach nothing


@dataclass(frozen=True)
class AugmentConfig:
    """How training photos are varied.

    Attributes:
        mosaic: Probability that a sample is put together from four photos (Bochkovskiy et al. 2020, section 3.3).
        mosaic_fade: Parts of the training (0..1) at which that probability begins to fall, and has reached 0; the last
            epochs then see photos as they are (Ge et al. 2021, section 2.1).
        scale: (smallest, largest) zoom, drawn on a logarithmic scale. A zoom above 1 crops the image at a random position, so
            that enlarged heads keep the detail of the original image.
        translate: Most of a shift, as a part of the side.
        rotate: Most degrees of a turn to either side.
        flip: Probability of a mirror image.
        color: Probability of a change of brightness, contrast, saturation and hue.
        brightness: Most of that change, likewise contrast.
        saturation: Most of that change.
        hue: Most of that change, as a part of the colour circle.
        degrade: Probability that the sample is then made worse, as a bad camera or a dark evening would: one of blur, motion
            blur, darkness with noise, and JPEG compression, of any strength up to a strong one.
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
        """Probability of a mosaic in an epoch (from 0) of a training of so many epochs."""
        begin, end = (part * epochs for part in self.mosaic_fade)
        if epoch < begin:
            return self.mosaic
        return self.mosaic * max(0.0, (end - epoch) / (end - begin)) if end > begin else 0.0


def fit(photo: Photo, input_size: tuple[int, int]) -> Photo:
    """Letterboxes a photo and its boxes, the same way for training, validation and the edge."""
    image, boxes_xyxy, labels = photo
    canvas, placement = letterbox(image, input_size)
    return canvas, placement.place(boxes_xyxy), labels


def augment(
    photo: Photo, others: list[Photo], input_size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Photo:
    """One training sample of the given size.

    Args:
        photo: The photo.
        others: Three more for a mosaic, or none.
        input_size: (height, width) of the result.
        config: What may happen.
        rng: The only source of randomness.
    """
    smallest, largest = (float(v) for v in np.log(config.scale))
    zooms = np.exp(rng.uniform(smallest, largest, 1 + len(others)))
    photo, *others = (crop(p, zoom, rng) if zoom > 1 else p for p, zoom in zip((photo, *others), zooms, strict=True))
    reduce = bool(zooms[0] < 1)
    pipeline = _pipeline(config, input_size, mosaic=bool(others), reduce=reduce)
    pipeline.set_random_seed(int(rng.integers(2**31)))
    if not others:
        photo = fit(photo, input_size)
    image, boxes_xyxy, labels = photo
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


def crop(photo: Photo, zoom: float, rng: np.random.Generator) -> Photo:
    """Cuts a window of 1 / zoom of the height and width at a random position that cuts through no object.

    A head without its upper half shows no helmet, whatever its label says. If no such position is found, the photo stays whole.
    """
    image, boxes_xyxy, labels = photo
    height, width = (max(1, round(side / zoom)) for side in image.shape[:2])
    for _ in range(CROP_TRIES):
        top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], (height, width), strict=True))
        moved = boxes_xyxy - np.array([left, top, left, top], dtype=np.float32)
        inside = moved.clip(0, np.array([width, height, width, height], dtype=np.float32))
        area, area_inside = ((b[:, 2:] - b[:, :2]).prod(1) for b in (moved, inside))
        visible = area_inside / np.maximum(area, 1e-6)
        if ((visible <= CROP_VISIBILITY[0]) | (visible >= CROP_VISIBILITY[1])).all():
            keep = visible >= CROP_VISIBILITY[1]
            return image[top : top + height, left : left + width], inside[keep], labels[keep]
    return photo


@functools.lru_cache(maxsize=64)  # one a size and kind, in each worker
def _pipeline(config: AugmentConfig, input_size: tuple[int, int], *, mosaic: bool, reduce: bool) -> A.Compose:
    grey = 114
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
    """One of four ways to spoil a photo of that longer side, pixels; lengths are parts of it, as in `spoil.py`."""
    if not probability:
        return []
    return [
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=(0.001 * side, 0.007 * side), p=1),
                A.MotionBlur(blur_limit=(3, max(3, int(0.035 * side) | 1)), allow_shifted=False, p=1),
                A.Sequential([A.RandomGamma(gamma_limit=(80, 350), p=1), A.GaussNoise(std_range=(0.005, 0.08), p=1)], p=1),
                # takes red for blue (see `spoil.py`), which training need not mind
                A.ImageCompression(quality_range=(15, 70), p=1),
            ],
            p=probability,
        )
    ]
