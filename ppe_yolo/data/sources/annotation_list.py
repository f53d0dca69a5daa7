"""Annotation lists of the original helmet system: one line per image, `PATH_OR_URL x1,y1,x2,y2,class ...`."""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_text
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage, AnnotatedObject
from ppe_yolo.data.images import is_url, shown
from ppe_yolo.data.sources.base import AnnotationError, BoxForm, Entry, NoImageError, Problem
from ppe_yolo.data.sources.files import SPLITS, FileFinder, canonical_split, files_with
from ppe_yolo.data.sources.text import read_lines

LINE = "`PATH x1,y1,x2,y2,class ...`"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOX = re.compile(rf"({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER}),([^\s,]+)")


class AnnotationLists:
    """One or more annotation lists. Keys are `split:line number`.

    Args:
        lists: Split -> list.

    Raises:
        UserError: A list is empty or cannot be read.
    """

    format = "annotation lists"
    box_form: BoxForm = "corners"

    def __init__(self, lists: dict[str, Path]) -> None:
        self.class_names: list[str] = []
        self.splits: dict[str, list[str]] = {}
        self.problems: list[Problem] = []
        self._lines: dict[str, tuple[Path, int, str]] = {}
        self._finder = FileFinder()
        for split, path in lists.items():
            lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
            if not lines:
                raise UserError(file=path, expected=f"lines of the form {LINE}", got="an empty file")
            if not any(_looks_like_line(line) for _, line in lines):
                raise UserError(file=path, expected=f"lines of the form {LINE}", got=repr(lines[0][1].strip()[:60]))
            self.splits[split] = [f"{split}:{number}" for number, _ in lines]
            self._lines.update({f"{split}:{number}": (path, number, line) for number, line in lines})

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        path, number, line = self._lines[key]
        location = f"{path}:{number}"
        image = read_annotation_line(line, path, number)
        if not is_url(image.image):
            found = self._finder.find(Path(image.image))
            if found is None:
                raise NoImageError(f"no such image {image.image}", file=location, hint="add the image, or remove the line")
            image = replace(image, image=str(found))
        return Entry(image=image, location=location, is_one_based=True)


def find_lists(root: Path) -> dict[str, Path]:
    """The annotation lists in a folder: split -> list. Other text files, such as a README, are no lists.

    Raises:
        UserError: Two lists for one split, or a file `*_<split>.txt` that cannot be read.
    """
    lists: dict[str, Path] = {}
    for path in files_with(root, (".txt",)):
        last = path.stem.rpartition("_")[2]
        split = canonical_split(last)
        if split not in SPLITS and not _is_list(path):
            continue
        if split in lists:
            raise UserError(
                file=root,
                expected=f"one list for the split {split}",
                got=f"{lists[split].name} and {path.name}",
                hint="merge them",
            )
        lists[split] = path
    # train.txt of a YOLO folder whose labels are missing would make every image a background image
    return lists if any(path.name.startswith("voc_") or _has_box(read_lines(path)) for path in lists.values()) else {}


def _is_list(path: Path) -> bool:
    """Whether a text file of any name is an annotation list: most of its lines look like lines of one, and one has a box.

    Without a box, it may be a list of addresses next to the images, which would be downloaded.
    """
    if path.name.lower().startswith("readme"):
        return False
    try:
        lines = [line for line in read_lines(path) if line.strip()]
    except UserError:
        return False
    return 2 * sum(map(_looks_like_line, lines)) > len(lines) and _has_box(lines)


def _has_box(lines: Iterable[str]) -> bool:
    return any(_is_box(line.strip().rpartition(" ")[2]) for line in lines)


def _looks_like_line(line: str) -> bool:
    """Whether a line has a box, or is the path or URL of an image."""
    path, _, last = line.strip().rpartition(" ")
    if path and _is_box(last):
        return True
    return shown(line.strip()).lower().endswith(IMAGE_SUFFIXES)


def write_annotation_list(path: Path, images: Iterable[AnnotatedImage]) -> None:
    """Writes an annotation list.

    Spaces, commas and percent signs in class names are written as %20, %2C and %25, since they separate the fields of a line.
    Paths are written as they are. The format has no `difficult` flag.

    Raises:
        AnnotationError: The path of an image contains a line break or looks like a box, so the list could not be read back.
    """
    lines = []
    for image in images:
        if "\n" in image.image or image.image.strip() != image.image or _is_box(image.image.rpartition(" ")[2]):
            raise AnnotationError(f"the format cannot hold the path {shown(image.image)!r}", file=path, hint="rename the image")
        boxes = [",".join(f"{v:.10g}" for v in o.box_xyxy) + "," + _quoted(o.class_name) for o in image.objects]
        lines.append(" ".join([image.image, *boxes]))
    write_text(path, "".join(line + "\n" for line in lines))


def _quoted(class_name: str) -> str:
    return re.sub(r"[\s,%]", lambda match: quote(match[0], safe=""), class_name)


def _is_box(text: str) -> bool:
    """Whether the text is a box, or was meant to be one. A path may contain commas, too."""
    return text.count(",") >= 3 and not is_url(text) and not text.lower().endswith(IMAGE_SUFFIXES)


def read_annotation_line(line: str, path: Path, number: int) -> AnnotatedImage:
    """Reads one line. Relative paths of images are relative to the folder of the list.

    Raises:
        AnnotationError: The line does not have the expected form; names file and line.
    """
    location = f"{path}:{number}"
    rest, objects = line.strip(), []
    # boxes are taken from the right, since a path may contain spaces
    while True:
        head, space, last = rest.rpartition(" ")
        match = _BOX.fullmatch(last)
        if match is None:
            break
        if not space:
            raise AnnotationError(file=location, expected=LINE, got="boxes without a path")
        x1, y1, x2, y2 = (float(v) for v in match.groups()[:4])
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise AnnotationError(file=location, expected="finite numbers", got=repr(last))
        objects.append(AnnotatedObject(unquote(match[5]), (x1, y1, x2, y2)))
        rest = head.rstrip()
    if _is_box(last):
        raise AnnotationError(file=location, expected="a box x1,y1,x2,y2,class", got=repr(last), hint="fix or remove the box")
    image = rest if is_url(rest) else str(path.parent / rest)
    return AnnotatedImage(image=image, objects=tuple(reversed(objects)), source=path, image_id=shown(rest))
