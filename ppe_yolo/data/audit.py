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
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import ImageError, check_image, local_path, shown
from ppe_yolo.data.source import ALL, Entry, Problem, Source, open_source
from ppe_yolo.data.splits import groups_of, hold_out, near_pairs
from ppe_yolo.data.voc import AnnotationError
from ppe_yolo.errors import UserError
from ppe_yolo.files import write_json

TEST_FRACTION = 0.2  # of a source without splits
SPLIT_SEED = 0  # one for all commands: what fit does not see, evaluate does
TINY_SIDE = 3.0  # pixels
IMBALANCE = 10.0
DISJOINT = (("test", "trainval"), ("test", "train"), ("test", "val"), ("train", "val"))


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
        problems: Everything, errors first.
        images: Split -> usable photos, with the model's class names and with boxes clipped to the photo.
        sizes: Photo -> (height, width).
        groups: Photo -> number of its group of near-identical photos.
        statistics: Counts and distributions, in plain types.
    """

    problems: list[Problem]
    images: dict[str, list[AnnotatedImage]]
    sizes: dict[str, tuple[int, int]]
    groups: dict[str, int]
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
            raise UserError(f"split: expected one of {', '.join(self.images)}, got {name!r}")
        if not self.images[name]:
            raise UserError(f"split {name}: none of its photos can be used: run `ppe-yolo audit`")
        return self.images[name]

    def raise_on_errors(self, root: str | Path, class_map: ClassMap) -> None:
        """Stops on errors: on names that the class map does not mention with all names and counts, else with a list."""
        if self.errors:
            found: Counter[str] = sum((Counter(n) for n in self.statistics["names_found"].values()), Counter())
            class_map.check(found, root)
            first = "; ".join(p.message if p.file in p.message else f"{p.file}: {p.message}" for p in self.errors[:5])
            more = f"; and {len(self.errors) - 5} more" if len(self.errors) > 5 else ""
            raise UserError(
                f"{root}: {len(self.errors)} error(s) in the data: {first}{more}. "
                f"`ppe-yolo audit {root}` lists all; mend them, or leave those photos out with --data.on_error skip"
            )

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
    problems += _overlaps(root, wanted)
    usable = [c for c in checked if c.image is not None]
    pairs = near_pairs(np.array([c.perceptual_hash for c in usable], dtype=np.uint64))
    problems += _duplicates(usable, pairs, wanted)
    groups = groups_of(len(usable), pairs)
    group_of = {c.key: int(g) for c, g in zip(usable, groups, strict=True)}
    if ALL in wanted and len(wanted) == 1:
        larger, held = hold_out([c.key for c in usable], groups, TEST_FRACTION, SPLIT_SEED)
        wanted = {"trainval": [usable[i].key for i in larger], "test": [usable[i].key for i in held]}
    if not any(o for c in usable if c.image for o in c.image.objects):
        problems.append(Problem("error", "no-objects", str(root), "", "no object is left after the class map"))
    problems += _imbalance(root, class_map, usable)
    problems.sort(key=lambda p: (p.severity, p.code, p.file))
    images = {s: [c.image for k in keys_of if (c := by_key[k]).image is not None] for s, keys_of in wanted.items()}
    sizes = {c.image.image: c.size for c in usable if c.image}
    return AuditReport(
        problems,
        images,
        sizes,
        {c.image.image: group_of[c.key] for c in usable if c.image},
        _statistics(wanted, by_key, images, sizes, problems, class_map),
    )


def _check(source: Source, key: str, class_map: ClassMap) -> Checked:
    try:
        entry = source.read(key)
        checked = Checked(key, list(entry.problems), entry.image)
        shown_size, stored_size, unusual, small = check_image(entry.image.image)
    except (AnnotationError, ImageError) as error:
        code = "annotation" if isinstance(error, AnnotationError) else "photo"
        message = str(error)
        # messages begin with the file they speak of
        return Checked(key, [Problem("error", code, message.split(": ")[0], "", message)])
    checked.size = shown_size
    checked.perceptual_hash = int(str(imagehash.phash(small)), 16)
    checked.content_hash = hashlib.blake2b(local_path(entry.image.image).read_bytes(), digest_size=16).hexdigest()
    file = shown(entry.image.image)
    checked.problems += [Problem("warning", "unusual-photo", file, "", text + ", converted") for text in unusual]
    checked.problems += _check_size(entry, shown_size, stored_size)
    objects = _check_objects(entry, shown_size, class_map, checked.problems)
    if not any(p.severity == "error" for p in checked.problems):
        # a photo with an error is left out whole: a lost object would be taught as background
        checked.image = class_map.apply(replace(entry.image, objects=tuple(objects)))
    return checked


def _check_size(entry: Entry, shown_size: tuple[int, int], stored_size: tuple[int, int]) -> list[Problem]:
    if entry.claimed_size is None or entry.claimed_size == shown_size:
        return []
    file = str(entry.image.source)
    claimed, real = (f"{s[1]}x{s[0]}" for s in (entry.claimed_size, shown_size))
    if entry.claimed_size == stored_size:
        message = f"annotated as {claimed} without the photo's EXIF turn, shown it is {real}: turn the photo or the boxes"
        return [Problem("error", "exif-turned", file, "", message)]
    message = f"<size> says {claimed}, the photo is {real}: the boxes belong to another version of it"
    return [Problem("error", "size-differs", file, "", message)]


def _check_objects(entry: Entry, size: tuple[int, int], class_map: ClassMap, problems: list[Problem]) -> list[Any]:
    height, width = size
    file = str(entry.image.source)
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
        if x2 <= x1 or y2 <= y1:
            report("error", "empty-box", f"expected x1 < x2 and y1 < y2, got {box}")
            continue
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            report("error", "box-outside", f"{box} lies outside of the photo of {width}x{height}")
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
        kept.append(replace(item, box_xyxy=clipped))
    return kept


def _overlaps(root: str | Path, splits: dict[str, list[str]]) -> list[Problem]:
    problems = []
    for a, b in DISJOINT:
        for key in sorted(set(splits.get(a, ())) & set(splits.get(b, ()))):
            problems.append(Problem("error", "in-two-splits", str(root), key, f"{key} is in {a} and in {b}"))
    for split, keys in splits.items():
        for key, count in Counter(keys).items():
            if count > 1:
                problems.append(Problem("warning", "listed-twice", str(root), key, f"{key} is {count} times in {split}"))
    return problems


def _duplicates(usable: list[Checked], pairs: NDArray[np.int64], splits: dict[str, list[str]]) -> list[Problem]:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split, keys in splits.items():
        for key in keys:
            splits_of[key].add(split)
    problems = []
    for i, j in pairs.tolist():
        a, b = usable[i], usable[j]
        assert a.image and b.image
        names = (shown(a.image.image), shown(b.image.image))
        across = [
            (s, t) for s, t in DISJOINT + tuple((t, s) for s, t in DISJOINT) if s in splits_of[a.key] and t in splits_of[b.key]
        ]
        same = a.content_hash == b.content_hash
        where = f", in {across[0][0]} and {across[0][1]}" if across else ""
        kind = ("same-photo" if same else "near-duplicate") + ("-across-splits" if across else "")
        message = f"{'the same photo as' if same else 'looks like'} {names[1]}{where}"
        problems.append(Problem("error" if same and across else "warning", kind, names[0], "", message))
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
        problems.append(Problem("warning", "imbalance", str(root), "", f"more than {IMBALANCE:g} to 1: {text}"))
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
        table.add_row(severity, code, str(len(found)), "\n".join(lines), style="red" if severity == "error" else None)
    if kinds:
        console.print(table)
    statistics = Table("statistic", "value", title="Statistics", title_justify="left")
    for key, value in report.statistics.items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        statistics.add_row(key.replace("_", " "), text)
    console.print(statistics)
    warnings = len(report.problems) - len(report.errors)
    console.print(f"{len(report.errors)} errors, {warnings} warnings")
