"""A data set of annotated images: opened, checked, and divided into splits."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit.annotation_check import CheckedImage, check_entry
from ppe_yolo.data.audit.check_cache import KEPT_FILE, read_kept
from ppe_yolo.data.audit.engine import check_images, paused_collector
from ppe_yolo.data.audit.habits import check_habits
from ppe_yolo.data.audit.image_check import ImageCheck
from ppe_yolo.data.audit.splits import check_classes, check_duplicates, check_lists
from ppe_yolo.data.audit.statistics import Statistics, measure
from ppe_yolo.data.class_map import ClassMap, load_class_map
from ppe_yolo.data.sources.annotation_list import AnnotationLists
from ppe_yolo.data.sources.base import ALL, AnnotationError, Entry, Problem, Source
from ppe_yolo.data.sources.open_source import open_source
from ppe_yolo.data.splits import group_alike, hold_out

TEST_FRACTION = 0.2  # of a source without splits
SPLIT_SEED = 0  # fixed, so that every command holds out the same images
ERRORS_SHOWN = 5
_READERS = 8  # threads
_AT_ONCE = 256  # annotations between two decisions whether to use threads
_WAITING = 0.5  # processor time by elapsed time, below which reading waits for files
_BUSY = 0.9  # the same, above which threads wait for each other

OnError = Literal["stop", "skip"]


class DatasetError(UserError):
    """Errors in the images or annotations of a data set.

    Args:
        root: The data set.
        errors: The problems of severity `error`, at least one.
        can_skip: Whether the caller has a parameter `on_error` that can be set to `skip`.
    """

    def __init__(self, root: str, errors: Sequence[Problem], *, can_skip: bool) -> None:
        self.errors = tuple(errors)
        first = "; ".join(str(p) for p in errors[:ERRORS_SHOWN])
        more = f"; and {len(errors) - ERRORS_SHOWN} more" if len(errors) > ERRORS_SHOWN else ""
        super().__init__(
            f"{len(errors)} error{'s' if len(errors) > 1 else ''} in the data: {first}{more}",
            setting="on_error" if can_skip else None,
            file=root,
            hint=f"`ppe-yolo audit {root}` lists all problems; fix the errors",
        )

    def describe(self, setting: str | None = None) -> str:
        """The message. The setting is part of the hint, since the error is in the data."""
        option = setting or self.setting
        message = UserError(self.problem, file=self.file, hint=self.hint).describe()
        return f"{message}, or skip the affected images with {option} skip" if option else message


@dataclass(frozen=True, kw_only=True)
class AnnotatedDataset:
    """A checked data set. Only images without errors are in its splits.

    Attributes:
        root: Folder or file of the data set.
        format: The format of the files, see `Source`.
        class_map: Meaning of the names in the data set.
        splits: Split -> usable images, with the classes of the model and with boxes clipped to the image.
        problems: All problems, errors first.
        left_out: Number of images that are left out because of errors.
        sizes: Image -> (height, width), pixels.
        groups: Image -> number of its group of images that look alike.
        hashes: Image -> perceptual hash, see `group_alike`.
        checks: Image -> result of the check of its file.
        statistics: Counts and distributions.
    """

    root: str
    format: str
    class_map: ClassMap
    splits: dict[str, list[AnnotatedImage]]
    problems: list[Problem]
    left_out: int
    sizes: dict[str, tuple[int, int]]
    groups: dict[str, int]
    hashes: dict[str, int]
    checks: dict[str, ImageCheck]
    statistics: Statistics

    @classmethod
    def open(
        cls,
        root: str | Path,
        class_map: ClassMap | str | Path | None = None,
        *,
        splits: Iterable[str] | None = None,
        on_error: OnError | None = None,
        progress: bool = True,
        supplied: Mapping[str, ImageCheck] | None = None,
    ) -> Self:
        """Opens a data set and checks every annotation and image.

        A data set without splits is divided into `trainval` and `test`; images that look alike stay together.

        Args:
            root: See `open_source`.
            class_map: A class map, or its name or file; see `load_class_map`.
            splits: Checks only these splits; None for all of them. A data set without splits is always checked as a whole.
            on_error: `skip` leaves out the images with errors. `stop` raises; the message refers to the parameter `on_error` of
                the caller. None raises as well, for callers without such a parameter.
            progress: Whether to show a progress bar on standard error.
            supplied: More results of image checks, see `check_images`, besides those in the data set.

        Raises:
            UserError: There is no such data set, split or class map.
            DatasetError: There are errors, and `on_error` is not `skip`.
        """
        if not isinstance(class_map, ClassMap):
            class_map = load_class_map(class_map)
        source = open_source(root)
        keys = _choose(source, root, splits)
        distinct = list(dict.fromkeys(key for part in keys.values() for key in part))
        checked, checks = check_entries(str(root), source, distinct, class_map, progress, supplied)
        dataset = cls._assemble(str(root), source, keys, class_map, splits is None, checked, checks)
        if on_error != "skip":
            dataset.raise_on_errors(can_skip=on_error == "stop")
        return dataset

    @classmethod
    @paused_collector()
    def _assemble(
        cls,
        root: str,
        source: Source,
        keys: dict[str, list[str]],
        class_map: ClassMap,
        is_whole: bool,
        checked: list[CheckedImage],
        checks: dict[str, ImageCheck],
    ) -> Self:
        """The data set without the images that have errors, see `check_entries`."""
        habits = check_habits(root, checked, source.class_names, source.box_form)
        problems = [*habits, *(p for c in checked for p in c.problems)]
        if is_whole:
            used = {c.raw.image for c in checked if c.raw}
            problems += [p for p in source.problems if p.file not in used]
        usable = [(c, c.image) for c in checked if c.image is not None]
        groups = group_alike(np.array([c.perceptual_hash for c, _ in usable], dtype=np.uint64))
        listed_twice, leaks = check_lists(root, keys)
        duplicates, more_leaks = check_duplicates([(c.key, image, c.content_hash) for c, image in usable], groups, keys)
        leaks |= more_leaks
        problems += listed_twice + duplicates + check_classes(root, class_map, [image for _, image in usable])
        problems.sort(key=lambda p: (p.severity, p.code, p.file))
        if set(keys) == {ALL}:
            keys = _divide(source, usable, groups)
        image_of = {c.key: image for c, image in usable}
        raw_of = {c.key: c.raw for c in checked}
        splits = {
            split: [image_of[key] for key in dict.fromkeys(part) if key in image_of and (split, key) not in leaks]
            for split, part in keys.items()
        }
        sizes = {image.image: c.size for c, image in usable}
        return cls(
            root=root,
            format=source.format,
            class_map=class_map,
            splits=splits,
            problems=problems,
            left_out=len(checked) - len(usable) + len({key for _, key in leaks}),
            sizes=sizes,
            groups={image.image: int(group) for (_, image), group in zip(usable, groups, strict=True)},
            hashes={image.image: c.perceptual_hash for c, image in usable},
            checks={image.image: checks[image.image] for _, image in usable},
            statistics=measure(
                class_map,
                [raw for raw in raw_of.values() if raw is not None],
                {split: [raw_of[key] for key in part] for split, part in keys.items()},
                splits,
                sizes.values(),
                problems,
            ),
        )

    def describe(self) -> str:
        """One line about the detected format: `read as a YOLO data set: 3 classes, train 1,200, val 300`."""
        kind = self.format if self.format == "annotation lists" else f"a {self.format} data set"
        names = len(self.statistics.all_names_found)
        counts = [f"{split} {count:,}" for split, count in self.statistics.images.items()]
        return f"read as {kind}: " + ", ".join([f"{names} class{'' if names == 1 else 'es'}", *counts])

    @property
    def errors(self) -> list[Problem]:
        """The problems of severity `error`."""
        return [p for p in self.problems if p.severity == "error"]

    def split(self, name: str) -> list[AnnotatedImage]:
        """The usable images of a split.

        Raises:
            UserError: There is no such split, or none of its images can be used.
        """
        if name not in self.splits:
            raise _no_split(self.root, name, self.splits)
        if not self.splits[name]:
            raise UserError(
                f"no image of the split {name} can be used", file=self.root, hint=f"see `ppe-yolo audit {self.root}`"
            )
        return self.splits[name]

    def raise_on_errors(self, *, can_skip: bool = False) -> None:
        """Raises if there are errors.

        Args:
            can_skip: Whether the caller has a parameter `on_error` that can be set to `skip`.

        Raises:
            UserError: The class map does not mention a name of the data set, see `check_names`.
            DatasetError: There are other errors.
        """
        if self.errors:
            self.check_names()
            raise DatasetError(self.root, self.errors, can_skip=can_skip)

    def check_names(self) -> None:
        """Raises if the class map does not mention a name of the data set, see `ClassMap.check`."""
        self.class_map.check(self.statistics.all_names_found, self.root)

    def save_audit(self, path: Path) -> None:
        """Writes statistics and problems as JSON."""
        write_json(path, {"statistics": asdict(self.statistics), "problems": [p.to_dict() for p in self.problems]})


def _divide(
    source: Source, usable: Sequence[tuple[CheckedImage, AnnotatedImage]], groups: NDArray[np.int64]
) -> dict[str, list[str]]:
    """The splits of a source that names none: split -> keys."""
    # the same images are held out in every format, except that a list goes by its lines
    is_list = source.format == AnnotationLists.format
    ids = [c.key if is_list else image.image_id for c, image in usable]
    larger, held_out = hold_out(ids, groups, TEST_FRACTION, SPLIT_SEED)
    return {split: [usable[i][0].key for i in part] for split, part in (("trainval", larger), ("test", held_out))}


def _choose(source: Source, root: str | Path, splits: Iterable[str] | None) -> dict[str, list[str]]:
    if splits is None or ALL in source.splits:
        return dict(source.splits)
    wanted = list(splits)
    missing = [split for split in wanted if split not in source.splits]
    if missing:
        raise _no_split(root, missing[0], source.splits)
    return {split: source.splits[split] for split in wanted}


def _no_split(root: str | Path, name: str, splits: Iterable[str]) -> UserError:
    return UserError(file=root, expected=f"a split {name}", got=", ".join(splits), hint="add it to the data set")


def check_entries(
    root: str,
    source: Source,
    keys: Sequence[str],
    class_map: ClassMap,
    progress: bool,
    supplied: Mapping[str, ImageCheck] | None = None,
) -> tuple[list[CheckedImage], dict[str, ImageCheck]]:
    """The images in the order of the keys, and the checks of the image files that can be decoded."""
    entries = _read_entries(source, keys, progress)
    folder = Path(root) if Path(root).is_dir() else Path(root).parent
    images = [entry.image.image for entry in entries if isinstance(entry, Entry)]
    results = check_images(images, supplied={**read_kept(folder / KEPT_FILE), **(supplied or {})}, progress=progress)
    with paused_collector():
        checked = [
            check_entry(key, entry, results[entry.image.image], class_map)
            if isinstance(entry, Entry)
            else CheckedImage(key=key, problems=[Problem.from_error(entry, entry.code)])
            for key, entry in zip(keys, entries, strict=True)
        ]
    return checked, {image: check for image, check in results.items() if isinstance(check, ImageCheck)}


@paused_collector()
def _read_entries(source: Source, keys: Sequence[str], progress: bool) -> list[Entry | AnnotationError]:
    """Reads in threads while files take long to open, on a network or a cold disk.

    Threads share the interpreter: with files in memory, eight on two cores take four times as long as one.
    """
    entries: list[Entry | AnnotationError] = []
    read = partial(_read, source)
    is_slow = False
    parts = [keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE)]
    with ThreadPoolExecutor(_READERS) as pool:
        for part in track(parts, "reading annotations", console=Console(stderr=True), transient=True, disable=not progress):
            start, cpu = time.perf_counter(), time.process_time()
            entries += (pool.map if is_slow else map)(read, part)
            share = (time.process_time() - cpu) / (time.perf_counter() - start)
            is_slow = share < (_BUSY if is_slow else _WAITING)
    return entries


def _read(source: Source, key: str) -> Entry | AnnotationError:
    try:
        return source.read(key)
    except AnnotationError as error:
        return error
