"""The page of the audit: one HTML file that shows the problems on the images. It needs no other file and no network."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.files import write_bytes
from ppe_yolo.data.anchors import DEFAULT_ANCHORS_WH, letterboxed_sizes, mean_best_iou
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import shown
from ppe_yolo.data.review.thumbnails import thumbnail
from ppe_yolo.data.sources.base import Box, Problem
from ppe_yolo.html import page_environment

THUMBNAILS_OF_A_KIND, THUMBNAILS = 8, 120  # so that the page stays below 3 MB
LINES_OF_A_KIND = 20
GROUPS, IMAGES_OF_A_GROUP = 10, 4
INPUT_SIDE = 416  # pixels: anchors are given for it
_BINS = np.geomspace(4, INPUT_SIDE, 25)
_CHART = (640, 160)  # (width, height)


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail with its caption."""

    uri: str
    caption: str


@dataclass(kw_only=True)
class Kind:
    """The problems of one kind."""

    severity: str
    code: str
    problems: list[Problem] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The histogram of the box sides next to the anchors, for an SVG of `_CHART`.

    Attributes:
        bars: x, y, width, height and text of each bar.
        ticks: x and text of the axis.
        anchors: Architecture -> x of the sides of its anchors.
        fit: Architecture -> mean IoU of the boxes with their best anchor.
    """

    bars: list[tuple[float, float, float, float, str]]
    ticks: list[tuple[float, str]]
    anchors: dict[str, list[float]]
    fit: dict[str, float]


def write_page(dataset: AnnotatedDataset, path: Path) -> None:
    """Writes the page.

    Raises:
        UserError: The file cannot be written.
    """
    groups = alike_groups(dataset)
    page = (
        page_environment("ppe_yolo.data.review")
        .get_template("audit.html.j2")
        .render(
            dataset=dataset,
            kinds=_kinds(dataset),
            lines=LINES_OF_A_KIND,
            groups=[_show_group(group) for group in groups[:GROUPS]],
            group_sizes=[len(group) for group in groups],
            chart=_chart(dataset),
            chart_size=_CHART,
        )
    )
    # a file name need not be UTF-8
    write_bytes(path, page.encode("utf-8", "replace"))


def alike_groups(dataset: AnnotatedDataset) -> list[list[str]]:
    """Groups of at least two images that look alike, the largest first."""
    groups: dict[int, list[str]] = defaultdict(list)
    for image, number in dataset.groups.items():
        groups[number].append(image)
    return sorted((group for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _kinds(dataset: AnnotatedDataset) -> list[Kind]:
    kinds: dict[tuple[str, str], Kind] = {}
    for problem in dataset.problems:
        key = problem.severity, problem.code
        kinds.setdefault(key, Kind(severity=problem.severity, code=problem.code)).problems.append(problem)
    objects = {image.image: [o.box_xyxy for o in image.objects] for part in dataset.splits.values() for image in part}
    left = THUMBNAILS
    for kind in kinds.values():
        for problem in kind.problems[: min(THUMBNAILS_OF_A_KIND, left)]:
            if (one := _thumbnail(problem, objects)) is not None:
                kind.thumbnails.append(one)
        left -= len(kind.thumbnails)
    return list(kinds.values())


def _thumbnail(problem: Problem, objects: Mapping[str, list[Box]]) -> Thumbnail | None:
    image = problem.image or problem.file
    if not image.lower().partition("?")[0].endswith(IMAGE_SUFFIXES):
        return None
    uri = thumbnail(image, problem.boxes_xyxy, objects.get(image, ()))
    name = Path(image).name
    where = problem.item if name in problem.item else ": ".join(part for part in (name, problem.item) if part)
    return None if uri is None else Thumbnail(uri=uri, caption=where)


def _show_group(group: list[str]) -> tuple[list[Thumbnail], int]:
    """Some images of a group, and the number of all."""
    uris = [(image, thumbnail(image)) for image in group[:IMAGES_OF_A_GROUP]]
    return [Thumbnail(uri=uri, caption=shown(image)) for image, uri in uris if uri is not None], len(group)


def _chart(dataset: AnnotatedDataset) -> Chart | None:
    images = {image.image: image for part in dataset.splits.values() for image in part}
    sizes_wh = letterboxed_sizes(images.values(), dataset.sizes, (INPUT_SIDE, INPUT_SIDE))
    if not len(sizes_wh):
        return None
    height = _CHART[1]
    counts = np.histogram(np.clip(_sides(sizes_wh), _BINS[0], _BINS[-1]), _BINS)[0]
    edges = _x(_BINS)
    bars = [
        (float(x), height * (1 - n / counts.max()), float(following - x) - 1, height * n / counts.max(), f"{n:,} boxes")
        for x, following, n in zip(edges, edges[1:], counts.tolist(), strict=False)
    ]
    ticks = [(float(_x(np.array(side, dtype=float))), str(side)) for side in (4, 8, 16, 32, 64, 128, 256, INPUT_SIDE)]
    anchors = {name: np.array(pairs, dtype=np.float64) for name, pairs in DEFAULT_ANCHORS_WH.items()}
    return Chart(
        bars=bars,
        ticks=ticks,
        anchors={name: _x(_sides(pairs)).tolist() for name, pairs in anchors.items()},
        fit={name: mean_best_iou(sizes_wh, pairs) for name, pairs in anchors.items()},
    )


def _sides(sizes_wh: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(sizes_wh.prod(1)), dtype=np.float64)


def _x(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of a box side on the logarithmic axis."""
    return np.asarray(np.log(sides / _BINS[0]) / np.log(INPUT_SIDE / _BINS[0]) * _CHART[0], dtype=np.float64)
