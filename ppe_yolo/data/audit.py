"""The data doctor: reads every annotation, decodes every photo once, and tells what is wrong."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import ImageError, check_image, local_path, shown
from ppe_yolo.data.sources.source import ALL, Entry, Problem, Source, open_source
from ppe_yolo.data.sources.voc import AnnotationError
from ppe_yolo.data.splits import groups_of, hold_out, near_pairs

TEST_FRACTION = 0.2  # of a source without splits
SPLIT_SEED = 0  # one for all commands: what fit does not see, evaluate does
TINY_SIDE = 3.0  # pixels
IMBALANCE = 10.0
WHOLE_PHOTO = 0.95  # part of its area
# splits that must share no photo; one that is in both stays in the first
DISJOINT = (("test", "trainval"), ("test", "train"), ("test", "val"), ("val", "train"))


@dataclass
class Checked:
    """One photo after the check: `image` is ready for training, or None if it must not be used."""

    key: str
    problems: list[Problem]
    raw: AnnotatedImage | None = None
    image: AnnotatedImage | None = None
    size: tuple[int, int] = (0, 0)
    perceptual_hash: int = 0
    content_hash: str = ""


@dataclass
class AuditReport:
    """What the doctor found.

    Attributes:
        root: The data set.
        problems: Everything, errors first.
        images: Split -> usable photos, with the model's class names and with boxes clipped to the photo.
        left_out: How many photos have errors and are not among them.
        sizes: Photo -> (height, width).
        groups: Photo -> number of its group of near-identical photos.
        hashes: Photo -> perceptual hash (see `near_pairs`).
        statistics: Counts and distributions, in plain types.
    """

    root: str
    problems: list[Problem]
    images: dict[str, list[AnnotatedImage]]
    left_out: int
    sizes: dict[str, tuple[int, int]]
    groups: dict[str, int]
    hashes: dict[str, int]
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> list[Problem]:
        """The problems that training must not pass over."""
        return [p for p in self.problems if p.severity == "error"]

    def split(self, name: str) -> list[AnnotatedImage]:
        """The usable photos of a split.

        Raises:
            UserError: There is no such split, or nothing in it can be used.
        """
        if name not in self.images:
            raise UserError(f"{self.root}: expected a split {name}, got {', '.join(self.images)}: add it to the data set")
        if not self.images[name]:
            raise UserError(f"{self.root}: no photo of the split {name} can be used: see `ppe-yolo audit {self.root}`")
        return self.images[name]

    def raise_on_errors(
        self, class_map: ClassMap, *, skip: str | None = "--on-error skip", class_map_flag: str = "--class-map"
    ) -> None:
        """Stops on errors: on names that the class map does not mention with all names and counts, else with a list.

        Args:
            class_map: What the audit was made with.
            skip: What leaves photos with errors out in the user's command, for the message; None where nothing does.
            class_map_flag: What chooses a class map there.

        Raises:
            UserError: There are errors.
        """
        if self.errors:
            self.check_names(class_map, class_map_flag)
            first = "; ".join(_in_words(p) for p in self.errors[:5])
            more = f"; and {len(self.errors) - 5} more" if len(self.errors) > 5 else ""
            way_out = f", or leave those photos out with {skip}" if skip else ""
            raise UserError(
                f"{self.root}: {len(self.errors)} error(s) in the data: {first}{more}. "
                f"`ppe-yolo audit {self.root}` lists all; mend them{way_out}"
            )

    def check_names(self, class_map: ClassMap, flag: str = "--class-map") -> None:
        """Refuses names that the class map does not mention, see `ClassMap.check`."""
        class_map.check(Counter(self.statistics["all_names_found"]), self.root, flag)

    def save(self, path: Path) -> None:
        """Writes problems and statistics as JSON."""
        write_json(path, {"statistics": self.statistics, "problems": [asdict(p) for p in self.problems]})


def audit(root: str | Path, class_map: ClassMap, *, splits: Iterable[str] | None = None, progress: bool = True) -> AuditReport:
    """Checks a data set.

    Args:
        root: See `open_source`.
        class_map: What its names mean.
        splits: Only these; all when None.
        progress: Show a bar on standard error.

    Raises:
        UserError: There is no data set, or no such split.
    """
    source = open_source(root)
    wanted = dict(source.splits)
    if splits is not None and ALL not in wanted:
        missing = [s for s in splits if s not in wanted]
        if missing:
            raise UserError(f"{root}: expected the splits {', '.join(wanted)}, asked for {', '.join(missing)}")
        wanted = {s: wanted[s] for s in splits}
    keys = list(dict.fromkeys(k for split in wanted.values() for k in split))
    with ThreadPoolExecutor(4) as pool:  # decoding releases Python's lock
        results = pool.map(lambda key: _check(source, key, class_map), keys)
        console = Console(stderr=True)
        checked = list(track(results, "checking photos", len(keys), console=console, transient=True, disable=not progress))
    by_key = {c.key: c for c in checked}
    problems = [p for c in checked for p in c.problems]
    if splits is None:
        used = {c.raw.image for c in checked if c.raw}
        problems += [p for p in source.strays if p.file not in used]
    usable = [c for c in checked if c.image is not None]
    pairs = near_pairs(np.array([c.perceptual_hash for c in usable], dtype=np.uint64))
    leaks: set[tuple[str, str]] = set()
    problems += _overlaps(root, wanted, leaks)
    problems += _duplicates(usable, pairs, wanted, leaks)
    groups = groups_of(len(usable), pairs)
    group_of = {c.key: int(g) for c, g in zip(usable, groups, strict=True)}
    if ALL in wanted and len(wanted) == 1:
        larger, held = hold_out([c.key for c in usable], groups, TEST_FRACTION, SPLIT_SEED)
        wanted = {"trainval": [usable[i].key for i in larger], "test": [usable[i].key for i in held]}
    if not any(o for c in usable if c.image for o in c.image.objects):
        message = "no object is left after the class map: every image counts as background"
        problems.append(Problem("warning", "no-objects", str(root), "", message))
    problems += _imbalance(root, class_map, usable)
    problems.sort(key=lambda p: (p.severity, p.code, p.file))
    images = {
        s: [c.image for k in dict.fromkeys(keys_of) if (c := by_key[k]).image is not None and (s, k) not in leaks]
        for s, keys_of in wanted.items()
    }
    sizes = {c.image.image: c.size for c in usable if c.image}
    return AuditReport(
        str(root),
        problems,
        images,
        len(checked) - len(usable) + len({key for _, key in leaks}),
        sizes,
        {c.image.image: group_of[c.key] for c in usable if c.image},
        {c.image.image: c.perceptual_hash for c in usable if c.image},
        _statistics(wanted, by_key, images, sizes, problems, class_map),
    )


def _in_words(problem: Problem) -> str:
    """File, object and message; the messages of the readers begin with the file."""
    if problem.message.startswith(problem.file):
        return problem.message
    return f"{problem.file}: {problem.object + ': ' if problem.object else ''}{problem.message}"


def _check(source: Source, key: str, class_map: ClassMap) -> Checked:
    try:
        entry = source.read(key)
        checked = Checked(key, list(entry.problems), entry.image)
        shown_size, stored_size, unusual, small = check_image(entry.image.image)
    except (AnnotationError, ImageError) as error:
        code = "annotation" if isinstance(error, AnnotationError) else "photo"
        message = str(error)
        # the readers' messages begin with the file they speak of
        return Checked(key, [Problem("error", code, message.split(": ")[0], "", message)])
    checked.size = shown_size
    checked.perceptual_hash = int(str(imagehash.phash(Image.fromarray(small))), 16)
    checked.content_hash = hashlib.blake2b(local_path(entry.image.image).read_bytes(), digest_size=16).hexdigest()
    file = shown(entry.image.image)
    checked.problems += [Problem("warning", "unusual-photo", file, "", text) for text in unusual]
    checked.problems += _check_size(entry, shown_size, stored_size)
    objects = _check_objects(entry, shown_size, class_map, checked.problems)
    if not any(p.severity == "error" for p in checked.problems):
        # a photo with an error is left out whole: a lost object would be taught as background
        checked.image = class_map.apply(replace(entry.image, objects=tuple(objects)))
    return checked


def _check_size(entry: Entry, shown_size: tuple[int, int], stored_size: tuple[int, int]) -> list[Problem]:
    if entry.claimed_size is None or entry.claimed_size == shown_size:
        return []
    file = entry.where
    claimed, real = (f"{s[1]}x{s[0]}" for s in (entry.claimed_size, shown_size))
    if entry.claimed_size == stored_size:
        message = f"annotated as {claimed} without the photo's EXIF turn, shown it is {real}: turn the photo or the boxes"
        return [Problem("error", "exif-turned", file, "", message)]
    message = (
        f"<size> says {claimed}, the photo is {real}: the boxes belong to another version of it: annotate again, or mend <size>"
    )
    return [Problem("error", "size-differs", file, "", message)]


def _check_objects(entry: Entry, size: tuple[int, int], class_map: ClassMap, problems: list[Problem]) -> list[Any]:
    height, width = size
    file = entry.where
    kept, seen = [], set()
    if not entry.image.objects:
        problems.append(Problem("warning", "no-object", file, "", "no object: used as a photo of background"))
    for number, item in enumerate(entry.image.objects, start=1):
        name = f"object {number} ({item.class_name})"
        x1, y1, x2, y2 = item.box_xyxy
        box = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"

        def report(severity: Any, code: str, message: str, name: str = name) -> None:
            problems.append(Problem(severity, code, file, name, message))

        if not class_map.knows(item.class_name):
            report("error", "unknown-name", class_map.explain_unknown(item.class_name))
        # an object that the class map ignores spoils no training
        bad = "warning" if item.class_name in class_map.ignored else "error"
        if x2 <= x1 or y2 <= y1:
            report(bad, "empty-box", f"expected x1 < x2 and y1 < y2, got {box}: mend or remove it")
            continue
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            report(bad, "box-outside", f"{box} lies outside of the photo of {width}x{height}: mend or remove it")
            continue
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            report("warning", "box-beyond", f"{box} reaches beyond the photo of {width}x{height}, clipped")
        elif x1 == 0 or y1 == 0:
            report("warning", "zero-based", "xmin or ymin is 0, Pascal VOC counts from 1: the tool counted from 0")
        if min(x2 - x1, y2 - y1) < TINY_SIDE:
            report("warning", "tiny-box", f"{box} is less than {TINY_SIDE:g} pixels wide or high")
        if (item.class_name, item.box_xyxy) in seen:
            report("warning", "same-box-twice", f"{box} is marked twice: counted once")
            continue
        seen.add((item.class_name, item.box_xyxy))
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) > WHOLE_PHOTO * width * height:
            report("warning", "whole-photo", f"{box} covers the whole photo of {width}x{height}")
        kept.append(replace(item, box_xyxy=clipped))
    return kept


def _overlaps(root: str | Path, splits: dict[str, list[str]], leaks: set[tuple[str, str]]) -> list[Problem]:
    """Names listed twice; those that must be left out of a split are added to `leaks` as (split, key)."""
    problems = []
    for kept, other in DISJOINT:
        for key in sorted(set(splits.get(kept, ())) & set(splits.get(other, ()))):
            message = f"{key} is in {kept} and in {other}: take it off one list"
            problems.append(Problem("error", "in-two-splits", str(root), key, message))
            leaks.add((other, key))
    for split, keys in splits.items():
        for key, count in Counter(keys).items():
            if count > 1:
                message = f"{key} is {count} times in {split}: counted once"
                problems.append(Problem("warning", "listed-twice", str(root), key, message))
    return problems


def _duplicates(
    usable: list[Checked], pairs: NDArray[np.int64], splits: dict[str, list[str]], leaks: set[tuple[str, str]]
) -> list[Problem]:
    """One problem a photo and kind, not one a pair: a film of a thousand frames has half a million pairs.

    Photos of one split that are byte for byte in another are added to `leaks` as (split, key).
    """
    contents = np.unique([c.content_hash for c in usable], return_inverse=True)[1]
    subject, other = pairs[:, 0].copy(), pairs[:, 1].copy()
    across = np.full(len(pairs), -1)
    for number, names in enumerate(DISJOINT):
        members = [set(splits.get(name, ())) for name in names]
        in_kept, in_other = (np.array([c.key in m for c in usable], dtype=bool) for m in members)
        for a, b in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            hit = in_kept[b] & in_other[a] & (across < 0)
            subject[hit], other[hit], across[hit] = a[hit], b[hit], number
    kinds = np.stack((subject, across, contents[subject] == contents[other]), axis=1)
    rows, first, counts = np.unique(kinds, axis=0, return_index=True, return_counts=True)
    problems = []
    for (i, number, same), at, count in zip(rows.tolist(), first.tolist(), counts.tolist(), strict=True):
        photo, twin = usable[i].image, usable[other[at]].image
        assert photo and twin
        kind, message = ("same-photo", "the same photo as") if same else ("near-duplicate", "looks like")
        message += f" {shown(twin.image)}" + (f" and {count - 1} more" if count > 1 else "")
        if number >= 0:
            kept, dropped = DISJOINT[number]
            kind, message = kind + "-across-splits", f"{message}: this one is in {dropped}, that one in {kept}"
            if same:
                leaks.update((b, usable[i].key) for a, b in DISJOINT if a == kept and usable[i].key in splits.get(b, ()))
        severity: Any = "error" if same and number >= 0 else "warning"
        problems.append(Problem(severity, kind, shown(photo.image), "", message))
    return problems


def _imbalance(root: str | Path, class_map: ClassMap, usable: list[Checked]) -> list[Problem]:
    counts = Counter(o.class_name for c in usable if c.image for o in c.image.objects)
    problems = [
        Problem("warning", "class-missing", str(root), name, "no object of this class")
        for name in class_map.class_names
        if not counts[name]
    ]
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        text = ", ".join(f"{n} {c}" for n, c in counts.most_common())
        problems.append(
            Problem("warning", "imbalance", str(root), "", f"more than {IMBALANCE:g} to 1: {text}: add photos of the rare one")
        )
    return problems


def _percentiles(values: list[float]) -> dict[str, float]:
    points = (0, 5, 25, 50, 75, 95, 100)
    return {f"p{p}": round(float(v), 2) for p, v in zip(points, np.percentile(values, points), strict=True)} if values else {}


def _statistics(
    splits: dict[str, list[str]],
    by_key: dict[str, Checked],
    images: dict[str, list[AnnotatedImage]],
    sizes: dict[str, tuple[int, int]],
    problems: list[Problem],
    class_map: ClassMap,
) -> dict[str, Any]:
    objects = [o for part in images.values() for i in part for o in i.objects]
    widths_heights = [(o.box_xyxy[2] - o.box_xyxy[0], o.box_xyxy[3] - o.box_xyxy[1]) for o in objects]
    sides = [float(np.sqrt(w * h)) for w, h in widths_heights]
    return {
        "class_map": class_map.name,
        "class_names": list(class_map.class_names),
        "images": {s: len(keys) for s, keys in splits.items()},
        "usable_images": {s: len(part) for s, part in images.items()},
        "images_without_object": {s: sum(not i.objects for i in part) for s, part in images.items()},
        "names_found": {
            s: dict(Counter(o.class_name for k in keys if (r := by_key[k].raw) for o in r.objects).most_common())
            for s, keys in splits.items()
        },
        "all_names_found": dict(Counter(o.class_name for c in by_key.values() if c.raw for o in c.raw.objects).most_common()),
        "objects": {s: dict(Counter(o.class_name for i in part for o in i.objects)) for s, part in images.items()},
        "box_side_pixels": _percentiles(sides),
        "box_sizes": {
            "small (< 32 px)": sum(s < 32 for s in sides),
            "medium": sum(32 <= s < 96 for s in sides),
            "large (>= 96 px)": sum(s >= 96 for s in sides),
        },
        "box_aspect_width_to_height": _percentiles([w / h for w, h in widths_heights]),
        "photo_sizes": dict(Counter(f"{w}x{h}" for h, w in sizes.values()).most_common(10)),
        "problems": dict(Counter(f"{p.severity} {p.code}" for p in problems)),
    }


def print_report(report: AuditReport, console: Console) -> None:
    """Prints the problems by kind with a few examples each, then the statistics."""
    table = Table("severity", "problem", "count", "for example", title="Problems", title_justify="left")
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in report.problems:
        kinds[problem.severity, problem.code].append(problem)
    for (severity, code), found in kinds.items():
        lines = [f"{Path(p.file).name} {p.object}: {p.message}".replace(" :", ":") for p in found[:3]]
        table.add_row(severity, code, str(len(found)), escape("\n".join(lines)), style="red" if severity == "error" else None)
    if kinds:
        console.print(table)
    statistics = Table("statistic", "value", title="Statistics", title_justify="left")
    for key, value in report.statistics.items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        statistics.add_row(key.replace("_", " "), escape(text))
    console.print(statistics)
    warnings = len(report.problems) - len(report.errors)
    console.print(f"{len(report.errors)} errors, {warnings} warnings")
