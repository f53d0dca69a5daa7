"""Counts and distributions of a data set."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.sources.base import Problem

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts and distributions, in the order and with the names of audit.json.

    Attributes:
        class_map: Name of the class map.
        class_names: Classes of the model.
        images: Split -> number of listed images.
        usable_images: Split -> number of images without errors.
        images_without_object: Split -> number of usable images without objects.
        names_found: Split -> name in the data set -> number of objects.
        all_names_found: Name in the data set -> number of objects.
        objects: Split -> class -> number of objects in usable images.
        box_side_pixels: Percentiles of the square root of the box area, pixels.
        box_sizes: COCO size -> number of boxes.
        box_aspect_width_to_height: Percentiles of width / height.
        photo_sizes: The ten most frequent image sizes, as WIDTHxHEIGHT -> number of images.
        problems: Severity and code -> number of problems.
    """

    class_map: str
    class_names: list[str]
    images: dict[str, int]
    usable_images: dict[str, int]
    images_without_object: dict[str, int]
    names_found: dict[str, dict[str, int]]
    all_names_found: dict[str, int]
    objects: dict[str, dict[str, int]]
    box_side_pixels: dict[str, float]
    box_sizes: dict[str, int]
    box_aspect_width_to_height: dict[str, float]
    photo_sizes: dict[str, int]
    problems: dict[str, int]


def measure(
    class_map: ClassMap,
    annotated: Iterable[AnnotatedImage],
    listed: Mapping[str, Sequence[AnnotatedImage | None]],
    usable: Mapping[str, Sequence[AnnotatedImage]],
    sizes: Iterable[tuple[int, int]],
    problems: Sequence[Problem],
) -> Statistics:
    """Computes the statistics.

    Args:
        class_map: The class map of the data set.
        annotated: All images as annotated, each once.
        listed: Split -> its images as annotated, None for those that cannot be read.
        usable: Split -> its usable images, with the classes of the model.
        sizes: (height, width) of all usable images.
        problems: All problems of the data set.
    """
    boxes = [o.box_xyxy for part in usable.values() for image in part for o in image.objects]
    widths_heights = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    sides = [math.sqrt(w * h) for w, h in widths_heights]
    return Statistics(
        class_map=class_map.name,
        class_names=list(class_map.class_names),
        images={split: len(part) for split, part in listed.items()},
        usable_images={split: len(part) for split, part in usable.items()},
        images_without_object={split: sum(not image.objects for image in part) for split, part in usable.items()},
        names_found={split: _count_names(part) for split, part in listed.items()},
        all_names_found=_count_names(annotated),
        objects={split: dict(Counter(o.class_name for image in part for o in image.objects)) for split, part in usable.items()},
        box_side_pixels=_percentiles(sides),
        box_sizes={
            "small (< 32 px)": sum(s < 32 for s in sides),
            "medium": sum(32 <= s < 96 for s in sides),
            "large (>= 96 px)": sum(s >= 96 for s in sides),
        },
        box_aspect_width_to_height=_percentiles([w / h for w, h in widths_heights]),
        photo_sizes=dict(Counter(f"{width}x{height}" for height, width in sizes).most_common(10)),
        problems=dict(Counter(f"{p.severity} {p.code}" for p in problems)),
    )


def _count_names(images: Iterable[AnnotatedImage | None]) -> dict[str, int]:
    return dict(Counter(o.class_name for image in images if image is not None for o in image.objects).most_common())


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{p}": round(float(v), 2) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
