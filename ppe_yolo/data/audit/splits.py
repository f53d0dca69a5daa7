"""Checks across the images of a data set: splits that share images, duplicates, missing and rare classes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.base import Problem, Severity

IMBALANCE = 10.0
EXAMPLES = 3  # of a group of images that look alike
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
        shared = sorted(set(splits.get(kept, ())) & set(splits.get(other, ())))
        leaks.update((other, key) for key in shared)
        if len(shared) > EXAMPLES:
            message = (
                f"{len(shared):,} images are listed in both {kept} and {other}, such as {', '.join(shared[:EXAMPLES])}: remove "
                f"them from one list, or remove {kept}"
            )
            problems.append(Problem(severity="error", code="in-two-splits", file=root, message=message, files=tuple(shared)))
            continue
        for key in shared:
            message = f"listed in both {kept} and {other}: remove it from one list"
            problems.append(Problem(severity="error", code="in-two-splits", file=root, item=key, message=message))
    for split, keys in splits.items():
        for key, count in Counter(keys).items():
            if count > 1:
                message = f"listed {count} times in {split}: counted once"
                problems.append(Problem(severity="warning", code="listed-twice", file=root, item=key, message=message))
    return problems, leaks


def check_duplicates(
    images: Sequence[tuple[str, AnnotatedImage, str]], groups: NDArray[np.int64], splits: Mapping[str, Sequence[str]]
) -> tuple[list[Problem], Leaks]:
    """Reports images that are identical or look alike: one problem per group, with some examples.

    An image that is also in a split that must not share it is an error of its own, since one of the two must go.

    Args:
        images: (key, image, hash of the file) of each usable image.
        groups: Group of each image of those that look alike [N], see `group_alike`.
        splits: Split -> keys of its images.

    Returns:
        The problems, and the identical images that must be left out of a split.
    """
    search = _DuplicateSearch(images, splits)
    for members in _members(groups):
        same: dict[str, list[int]] = {}
        for i in members:
            same.setdefault(images[i][2], []).append(i)
        for identical in same.values():
            if len(identical) > 1:
                search.check_identical(identical)
        if len(same) > 1:
            search.check_alike(members, [identical[0] for identical in same.values()])
    return search.problems, search.leaks


def _members(groups: NDArray[np.int64]) -> Iterator[list[int]]:
    """The indices of each group with more than one image."""
    order = np.argsort(groups, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(part) > 1:
            yield part.tolist()


class _DuplicateSearch:
    """Collects problems and leaks, see `check_duplicates`."""

    def __init__(self, images: Sequence[tuple[str, AnnotatedImage, str]], splits: Mapping[str, Sequence[str]]) -> None:
        self.images = images
        self.keys = {name: set(keys) for name, keys in splits.items()}
        self.problems: list[Problem] = []
        self.leaks: Leaks = set()

    def check_identical(self, members: list[int]) -> None:
        """Reports images with the same content."""
        part_of = {split: self._of(members, split) for split in self.keys}
        inside = []
        for i in members:
            key = self.images[i][0]
            for kept, dropped in DISJOINT:
                count = len(part_of.get(kept, ())) - (key in self.keys.get(kept, ()))  # without the image itself
                if count and key in self.keys.get(dropped, ()):
                    other = next(j for j in part_of[kept] if j != i)
                    message = f"identical to {self._name([other], count)}: this one is in {dropped}, the other in {kept}"
                    self._report("error", "same-image-across-splits", i, message)
                    self.leaks.update((b, key) for a, b in DISJOINT if a == kept and key in self.keys.get(b, ()))
                    break
            else:
                inside.append(i)
        if len(inside) > 1:
            others = inside[1:]
            self._report("warning", "same-image", inside[0], f"identical to {self._name(others[:EXAMPLES], len(others))}")

    def check_alike(self, members: list[int], distinct: list[int]) -> None:
        """Reports a group that looks alike; `distinct` has one image of each content."""
        for kept, dropped in DISJOINT:
            ours, theirs = self._of(members, dropped), self._of(members, kept)
            # if the first of each side equals all of the other side, all are equal
            pairs = [*product(ours[:1], theirs), *product(ours, theirs[:1])]
            pair = next(((i, j) for i, j in pairs if self.images[i][2] != self.images[j][2]), None)
            if pair is None:
                continue
            other = self._name([pair[1]], 1)
            if len(ours) == len(theirs) == 1:
                message = f"looks like {other}: this one is in {dropped}, the other in {kept}"
            else:
                message = f"looks like {other}: {len(ours)} of {dropped} and {len(theirs)} of {kept} look alike"
            self._report("warning", "near-duplicate-across-splits", pair[0], message)
            return
        others = distinct[1:]
        self._report("warning", "near-duplicate", distinct[0], f"looks like {self._name(others[:EXAMPLES], len(others))}")

    def _of(self, members: Sequence[int], split: str) -> list[int]:
        keys = self.keys.get(split, ())
        return [i for i in members if self.images[i][0] in keys]

    def _name(self, examples: Sequence[int], count: int) -> str:
        names = ", ".join(shown(self.images[i][1].image) for i in examples)
        return names + (f" and {count - len(examples)} more" if count > len(examples) else "")

    def _report(self, severity: Severity, code: str, at: int, message: str) -> None:
        file = shown(self.images[at][1].image)
        self.problems.append(Problem(severity=severity, code=code, file=file, message=message))


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
