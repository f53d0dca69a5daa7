"""Checks across the images of a data set: splits that share images, duplicates, missing and rare classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.base import Problem

IMBALANCE = 10.0
# pairs of splits that must share no image; an image in both stays in the first one
DISJOINT = (("test", "trainval"), ("test", "train"), ("test", "val"), ("val", "train"))

Leaks = set[tuple[str, str]]  # (split, key): images that must be left out of a split


def check_lists(root: str, splits: Mapping[str, Sequence[str]]) -> tuple[list[Problem], Leaks]:
    """Finds keys that are listed in two disjoint splits, or twice in one.

    Args:
        root: The data set.
        splits: Split -> keys of its images.
    """
    problems: list[Problem] = []
    leaks: Leaks = set()
    for kept, other in DISJOINT:
        for key in sorted(set(splits.get(kept, ())) & set(splits.get(other, ()))):
            message = f"listed in both {kept} and {other}: remove it from one list"
            problems.append(Problem(severity="error", code="in-two-splits", file=root, item=key, message=message))
            leaks.add((other, key))
    for split, keys in splits.items():
        for key, count in Counter(keys).items():
            if count > 1:
                message = f"listed {count} times in {split}: counted once"
                problems.append(Problem(severity="warning", code="listed-twice", file=root, item=key, message=message))
    return problems, leaks


def check_duplicates(
    images: Sequence[tuple[str, AnnotatedImage, str]], pairs: NDArray[np.int64], splits: Mapping[str, Sequence[str]]
) -> tuple[list[Problem], Leaks]:
    """Reports images that are identical or look alike: one problem per image and kind, not one per pair.

    Args:
        images: (key, image, hash of the file) of each usable image.
        pairs: Indices of images that look alike [P, 2], see `near_pairs`.
        splits: Split -> keys of its images.

    Returns:
        The problems, and the identical images that must be left out of a split.
    """
    contents = np.unique([content for _, _, content in images], return_inverse=True)[1]
    subject, other = pairs[:, 0].copy(), pairs[:, 1].copy()
    across = np.full(len(pairs), -1)  # index into DISJOINT
    for number, names in enumerate(DISJOINT):
        members = [set(splits.get(name, ())) for name in names]
        in_kept, in_other = (np.array([key in m for key, _, _ in images], dtype=bool) for m in members)
        for a, b in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            hit = in_kept[b] & in_other[a] & (across < 0)
            subject[hit], other[hit], across[hit] = a[hit], b[hit], number
    kinds = np.stack((subject, across, contents[subject] == contents[other]), axis=1)
    rows, first, counts = np.unique(kinds, axis=0, return_index=True, return_counts=True)
    problems: list[Problem] = []
    leaks: Leaks = set()
    for (i, number, same), at, count in zip(rows.tolist(), first.tolist(), counts.tolist(), strict=True):
        key, image, _ = images[i]
        code, message = ("same-image", "identical to") if same else ("near-duplicate", "looks like")
        message += f" {shown(images[other[at]][1].image)}" + (f" and {count - 1} more" if count > 1 else "")
        severity: Literal["error", "warning"] = "warning"
        if number >= 0:
            kept, dropped = DISJOINT[number]
            code, message = f"{code}-across-splits", f"{message}: this one is in {dropped}, the other in {kept}"
            if same:
                severity = "error"
                leaks.update((b, key) for a, b in DISJOINT if a == kept and key in splits.get(b, ()))
        problems.append(Problem(severity=severity, code=code, file=shown(image.image), message=message))
    return problems, leaks


def check_classes(root: str, class_map: ClassMap, images: Sequence[AnnotatedImage]) -> list[Problem]:
    """Reports a data set without objects, classes without objects, and rare classes."""

    def warning(code: str, message: str, item: str = "") -> Problem:
        return Problem(severity="warning", code=code, file=root, item=item, message=message)

    counts = Counter(o.class_name for image in images for o in image.objects)
    problems = []
    if not counts:
        message = "no object is left after the class map is applied: every image is a background image"
        problems.append(warning("no-objects", message))
    problems += [
        warning("class-missing", "no object of this class", name) for name in class_map.class_names if not counts[name]
    ]
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        text = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        problems.append(warning("imbalance", f"more than {IMBALANCE:g} to 1: {text}: add images with the rare classes"))
    return problems
