"""Where annotated photos come from: a Pascal VOC folder, or compiled annotation lists."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage
from ppe_yolo.data.images import is_url
from ppe_yolo.data.sources.annotation_list import read_annotation_line
from ppe_yolo.data.sources.voc import AnnotationError, read_voc_annotation

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
    """One photo as read: names and boxes raw, size (height, width) as the annotation claims it, or None.

    `where` is what to name in a message about its objects: the XML, or the list with the line.
    """

    image: AnnotatedImage
    where: str
    claimed_size: tuple[int, int] | None
    problems: tuple[Problem, ...]


class Source(Protocol):
    """A set of annotated photos with named splits."""

    splits: dict[str, list[str]]  # split -> keys of its photos, in the order of the list
    strays: list[Problem]  # what lies there and is in no split

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
        self.photos = _by_stem(root / "JPEGImages", IMAGE_SUFFIXES)
        self.photo_named = {path.name: path for paths in self.photos.values() for path in paths}
        self.xmls = _by_stem(root / "Annotations", (".xml",))
        if not self.xmls:
            raise UserError(f"{root / 'Annotations'}: expected one XML a photo, got none: give the folder above it")
        main = root / "ImageSets" / "Main"
        # VOC also has a list per class (cat_train.txt); those are no splits
        files = sorted(main.glob("*.txt"))
        lists = {path.stem: _read_image_set(path, set(self.xmls)) for path in files if "_" not in path.stem}
        self.splits = {name: keys for name, keys in lists.items() if keys}
        if files and not self.splits:
            got = ", ".join(path.name for path in files)
            raise UserError(
                f"{main}: expected trainval.txt, test.txt or the like with names of photos, got {got}: mend or remove it"
            )
        self.strays = [
            Problem("warning", "empty-split", str(main / f"{name}.txt"), "", "no photo is listed: there is no such split")
            for name in lists.keys() - self.splits.keys()
        ]
        listed = {key for keys in self.splits.values() for key in keys}
        for stem in sorted(self.xmls.keys() - listed) if lists else ():
            message = "in no list of ImageSets: not used"
            self.strays.append(Problem("warning", "in-no-split", str(self.xmls[stem][0]), "", message))
        for stem in sorted(self.photos.keys() - self.xmls.keys() - listed):
            # a photo may belong to an XML of another name, by <filename>; the audit tells who uses it
            message = "no XML of this name: not used; a photo of background needs an XML without objects"
            self.strays += [Problem("warning", "no-annotation", str(p), "", message) for p in self.photos[stem]]
        self.splits = self.splits or {ALL: sorted(self.xmls)}

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        if key not in self.xmls:
            xml = self.root / "Annotations" / f"{key}.xml"
            raise AnnotationError(
                f"{xml}: listed in ImageSets, but there is no such file: annotate it, or take it off the list"
            )
        xml, *more = self.xmls[key]
        if more:
            raise AnnotationError(f"{xml}: expected one XML of this name, got {more[0].name}, too: remove one")
        annotation = read_voc_annotation(xml)
        problems = []
        by_stem = self.photos.get(key, [])
        if len(by_stem) > 1:
            names = ", ".join(p.name for p in by_stem)
            raise AnnotationError(f"{xml}: expected one photo of this name, got several ({names}): remove the others")
        # <path> is never used: it tells of the annotator's own machine
        name = annotation.filename.replace("\\", "/").rpartition("/")[2]
        if not by_stem and name not in self.photo_named:
            folder = self.root / "JPEGImages"
            raise AnnotationError(
                f"{xml}: no photo {key}.* and no {name or '<filename>'} in {folder}: add it, or remove the XML"
            )
        photo = by_stem[0] if by_stem else self.photo_named[name]
        if annotation.filename and photo.name != annotation.filename:
            message = f"<filename> says {annotation.filename!r}, the photo used is {photo.name!r}"
            problems.append(Problem("warning", "filename-differs", str(xml), "", message))
        size = annotation.size
        if size is None or size[0] <= 0 or size[1] <= 0:
            problems.append(Problem("warning", "size-missing", str(xml), "", f"<size> says {size}; the photo's is used"))
        elif size[2] != 3:
            problems.append(Problem("warning", "depth", str(xml), "", f"<depth> says {size[2]}, expected 3"))
        claimed = (size[0], size[1]) if size is not None and size[0] > 0 and size[1] > 0 else None
        return Entry(AnnotatedImage(str(photo), annotation.objects, xml, key), str(xml), claimed, tuple(problems))


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files of these kinds, whatever the case of their suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes:
            found[path.stem].append(path)
    return dict(found)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a list in UTF-8, which cannot be read ({error}): save it again") from error


def _read_image_set(path: Path, known: set[str]) -> list[str]:
    """Names of one split; the VOC form with a flag (`name 1`, `name -1`) is understood."""
    keys = []
    for line in _read_lines(path):
        key = line.strip()
        if key not in known:
            head, _, flag = key.rpartition(" ")
            if flag in ("1", "0", "-1") and head.strip() in known:
                key = head.strip()
        if key:
            keys.append(key)
    return keys


class AnnotationLists:
    """One or more compiled lists; keys are `split:number of the line`."""

    def __init__(self, lists: dict[str, Path]) -> None:
        self.lines: dict[str, tuple[Path, int, str]] = {}
        self.splits: dict[str, list[str]] = {}
        self.strays: list[Problem] = []
        for split, path in lists.items():
            lines = [(n, line) for n, line in enumerate(_read_lines(path), start=1) if line.strip()]
            if not lines:
                raise UserError(f"{path}: expected `PATH x1,y1,x2,y2,class ...` a line, got an empty file")
            self.splits[split] = [f"{split}:{n}" for n, _ in lines]
            self.lines.update({f"{split}:{n}": (path, n, line) for n, line in lines})

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        path, number, line = self.lines[key]
        image = read_annotation_line(line, path, number)
        if not is_url(image.image) and not Path(image.image).is_file():
            raise AnnotationError(f"{path}:{number}: no such photo {image.image}: add it, or remove the line")
        return Entry(image, f"{path}:{number}", None, ())


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
    lists: dict[str, Path] = {}
    for path in sorted(root.glob("*.txt")):
        split = path.stem.rpartition("_")[2]
        if split in lists:
            raise UserError(f"{root}: expected one list a split, got {lists[split].name} and {path.name}: put them together")
        lists[split] = path
    if lists:
        return AnnotationLists(lists)
    got = "a folder with none of them" if root.is_dir() else "no such folder"
    raise UserError(
        f"{root}: expected a Pascal VOC folder (Annotations, JPEGImages) or annotation lists (*_trainval.txt), got {got}"
    )
