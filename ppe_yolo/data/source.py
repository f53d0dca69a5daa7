"""Where annotated photos come from: a Pascal VOC folder, or compiled annotation lists."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.annotation_list import is_url, read_annotation_line
from ppe_yolo.data.voc import AnnotationError, read_voc_annotation
from ppe_yolo.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ALL = "all"  # the one split of a source that names none


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data.

    Attributes:
        severity: `error`: training on it would be wrong or impossible; `warning`: worth a look.
        code: Kind of problem, one word or a few with dashes.
        file: The file to look at.
        object: Which object in it, or "".
        message: What was expected, what came, what to do.
    """

    severity: Literal["error", "warning"]
    code: str
    file: str
    object: str
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo as read: names and boxes raw, size (height, width) as the annotation claims it, or None."""

    image: AnnotatedImage
    claimed_size: tuple[int, int] | None
    problems: tuple[Problem, ...]


class Source(Protocol):
    """A set of annotated photos with named splits."""

    splits: dict[str, list[str]]  # split -> keys of its photos, in the order of the list

    def read(self, key: str) -> Entry:
        """Reads one annotation.

        Raises:
            AnnotationError: It cannot be used.
        """
        ...


class VocFolder:
    """JPEGImages, Annotations and, if there are any, ImageSets/Main/*.txt; keys are stems of XML files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.photos: dict[str, list[Path]] = defaultdict(list)
        for path in sorted((root / "JPEGImages").iterdir()) if (root / "JPEGImages").is_dir() else ():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self.photos[path.stem].append(path)
        stems = sorted(p.stem for p in (root / "Annotations").glob("*.xml"))
        if not stems:
            raise UserError(f"{root / 'Annotations'}: expected one XML a photo, got none: give the folder above it")
        known = set(stems)
        self.splits = {path.stem: _read_image_set(path, known) for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
        # VOC also has a list per class (cat_train.txt); those are no splits
        self.splits = {name: keys for name, keys in self.splits.items() if "_" not in name and keys} or {ALL: stems}

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        xml = self.root / "Annotations" / f"{key}.xml"
        if not xml.is_file():
            raise AnnotationError(f"{xml}: listed in ImageSets, but there is no such file")
        annotation = read_voc_annotation(xml)
        problems = []
        by_stem = self.photos.get(key, [])
        if len(by_stem) > 1:
            names = ", ".join(p.name for p in by_stem)
            raise AnnotationError(f"{xml}: expected one photo of this name, got several ({names}): remove the others")
        # <path> is never used: it tells of the annotator's own machine
        named = self.root / "JPEGImages" / Path(annotation.filename.replace("\\", "/")).name
        if not by_stem and not (annotation.filename and named.is_file()):
            raise AnnotationError(f"{xml}: no photo {key}.* and no {named.name or '<filename>'} in {named.parent}")
        photo = by_stem[0] if by_stem else named
        if annotation.filename and photo.name != annotation.filename:
            message = f"<filename> says {annotation.filename!r}, the photo used is {photo.name!r}"
            problems.append(Problem("warning", "filename-differs", str(xml), "", message))
        size = annotation.size
        if size is None or size[0] <= 0 or size[1] <= 0:
            problems.append(Problem("warning", "size-missing", str(xml), "", f"<size> says {size}; the photo's is used"))
        elif size[2] != 3:
            problems.append(Problem("warning", "depth", str(xml), "", f"<depth> says {size[2]}, expected 3"))
        claimed = (size[0], size[1]) if size is not None and size[0] > 0 and size[1] > 0 else None
        return Entry(AnnotatedImage(str(photo), annotation.objects, xml, key), claimed, tuple(problems))


def _read_image_set(path: Path, known: set[str]) -> list[str]:
    """Names of one split; the VOC form with a flag (`name 1`, `name -1`) is understood."""
    keys = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        key = line.strip()
        if key not in known:
            head, _, flag = key.rpartition(" ")
            if flag in ("1", "0", "-1") and head.strip() in known:
                key = head.strip()
        if key:
            keys.append(key)
    return keys


class AnnotationLists:
    """One or more compiled lists; keys are `number of the list:number of the line`."""

    def __init__(self, lists: dict[str, Path]) -> None:
        self.lines: dict[str, tuple[Path, int, str]] = {}
        self.splits = {}
        for split, path in lists.items():
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: cannot be read as an annotation list ({error})") from error
            lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
            if not lines:
                raise UserError(f"{path}: expected `PATH x1,y1,x2,y2,class ...` a line, got an empty file")
            self.splits[split] = [f"{split}:{n}" for n, _ in lines]
            self.lines.update({f"{split}:{n}": (path, n, line) for n, line in lines})

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        path, number, line = self.lines[key]
        image = read_annotation_line(line, path, number)
        if not is_url(image.image) and not Path(image.image).is_file():
            raise AnnotationError(f"{path}:{number}: no such photo {image.image}")
        return Entry(image, None, ())


def open_source(root: str | Path) -> Source:
    """Opens a VOC folder, a folder of lists (`voc_trainval.txt`, `voc_test.txt`, ...), or one list.

    Raises:
        UserError: It is none of them.
    """
    root = Path(root)
    if root.is_file():
        return AnnotationLists({ALL: root})
    if (root / "Annotations").is_dir():
        return VocFolder(root)
    lists = {p.stem.rpartition("_")[2]: p for p in sorted(root.glob("*.txt"))}
    if lists:
        return AnnotationLists(lists)
    got = "a folder with none of them" if root.is_dir() else "no such folder"
    raise UserError(
        f"{root}: expected a Pascal VOC folder (Annotations, JPEGImages) or annotation lists (*_trainval.txt), got {got}"
    )
