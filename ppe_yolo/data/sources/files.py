"""Finds the files of a data set, whatever system and tool wrote them."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import is_system_file, require_utf8
from ppe_yolo.core.words import one_line
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.images import EXIF_ORIENTATION, SIDEWAYS
from ppe_yolo.data.sources.base import ALL, AnnotationError, Problem

IMAGE_FOLDERS = ("jpegimages", "jpegimage", "images", "image", "imgs", "img", "data")
UNSUPPORTED = (".heic", ".heif", ".avif", ".jfif", ".jxl", ".gif", ".dng", ".nef", ".cr2")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "trainval": "trainval",
}
SPLITS = frozenset(_SPLITS.values())  # train, val, trainval, test


def nfc(name: str) -> str:
    """A name in Unicode NFC. macOS writes NFD, so the same name can come in two forms."""
    return unicodedata.normalize("NFC", name)


def canonical_split(name: str) -> str:
    """The usual name of a split: `Train` is train, `valid` is val. Other names are kept.

    CVAT's `default`, for images that it assigns to no split, is `ALL`.
    """
    return ALL if name.lower() == "default" else _SPLITS.get(name.lower(), name)


def _names(folder: Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[str]:
    """Names in a folder, in any order, without the files of operating systems. Nothing if there is no such folder."""
    # a Path for each of 100,000 files takes a second, and a stat for each another
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_wanted(entry) and not is_system_file(entry.name):
                    yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"cannot be listed ({error.strerror})", file=folder) from error


def _names_with(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Names of the files with these suffixes, in lower or upper case; see `_names`."""
    return _names(folder, lambda entry: entry.name[1:].lower().endswith(suffixes) and not entry.is_dir())


def subfolders(folder: Path) -> list[Path]:
    """The subfolders of a folder, sorted, without those of operating systems. Empty if there is no such folder."""
    return [folder / name for name in sorted(_names(folder, os.DirEntry.is_dir))]


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first of some subfolders (in lower case) that exists, in any case."""
    found = {path.name.lower(): path for path in subfolders(folder)}
    return next((found[name] for name in names if name in found), None)


def split_folders(folder: Path) -> list[tuple[str, Path]]:
    """Subfolders named after a split: (split, folder)."""
    return [(_SPLITS[path.name.lower()], path) for path in subfolders(folder) if path.name.lower() in _SPLITS]


def files_with(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files in a folder with these suffixes, in lower or upper case.

    Raises:
        UserError: The name of a file is not valid UTF-8, so that no report could name it.
    """
    paths = [folder / name for name in sorted(_names_with(folder, suffixes))]
    for path in paths:
        require_utf8(path)
    return paths


def has_files_with(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a folder has a file with one of these suffixes, in lower or upper case."""
    return next(_names_with(folder, suffixes), None) is not None


def by_stem(files: list[Path]) -> dict[str, list[Path]]:
    """Stem in NFC -> files. Every file must have a suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        found[nfc(path.name.rpartition(".")[0])].append(path)
    return dict(found)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Path of an image -> its stem, or its path without suffix if another image has the same stem.

    So the same data has the same names in every format.
    """
    pure = {path: PurePosixPath(nfc(path.replace("\\", "/"))) for path in paths}
    counts = Counter(path.stem for path in pure.values())
    return {key: path.stem if counts[path.stem] == 1 else (path.parent / path.stem).as_posix() for key, path in pure.items()}


def images_in(folder: Path) -> list[Path]:
    """Images in a folder, without subfolders."""
    return files_with(folder, IMAGE_SUFFIXES)


def unsupported_images(folder: Path) -> list[Problem]:
    """One problem about the images in a folder that no decoder reads. Empty if there are none."""
    paths = files_with(folder, UNSUPPORTED)
    if not paths:
        return []
    message = (
        f"{len(paths):,} images are not used, such as {paths[0].name}: {paths[0].suffix[1:].upper()} is not supported; "
        "convert them to JPEG"
    )
    files = tuple(map(str, paths))
    return [Problem(severity="warning", code="unsupported-image", file=str(folder), message=message, files=files)]


class FileFinder:
    """Finds files by names in whatever case and Unicode form the disk holds them. Each folder is listed once at most."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, str]] = {}  # folder -> folded name -> name

    def find(self, path: Path) -> Path | None:
        """The file at a path, else one whose name differs in case only, as on Windows. None if there is none."""
        try:
            if path.is_file():
                return path
            if path.parent not in self._listings:
                self._listings[path.parent] = {
                    nfc(name).casefold(): name for name in sorted(_names(path.parent, os.DirEntry.is_file))
                }
        except (OSError, ValueError):  # too long a name, or a zero byte in it
            return None
        name = self._listings[path.parent].get(nfc(path.name).casefold())
        return None if name is None else path.parent / name

    def find_inside(self, root: Path, folders: Iterable[Path], paths: Collection[Path]) -> Path | None:
        """The first of some relative paths in some folders at which `find` has a file inside `root`. None if there is none."""
        candidates = (folder / path for folder in folders for path in paths)
        return next((found for path in candidates if is_inside(path, root) and (found := self.find(path))), None)


def image_paths(name: str) -> list[Path]:
    """Relative paths at which the image of an annotation may lie, the likeliest first.

    Tools write the path on another machine, a URL, or Label Studio's `/data/local-files/?d=a%20folder/a.jpg`.
    """
    decoded = unquote(name.partition("?d=")[2] or name.partition("?")[0])
    paths = [Path(form.replace("\\", "/").lstrip("/")) for form in dict.fromkeys((name, decoded))]
    return [part for path in paths for part in (path, Path(path.name))]


def find_folder(path: Path) -> Path | None:
    """The folder at a path that may not be valid. None if there is none."""
    try:
        return path if path.is_dir() else None
    except (OSError, ValueError):
        return None


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path lies in a folder once `..` is resolved. Links are the user's own and are not followed."""
    absolute, folder = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100 (resolve follows links)
    return absolute.is_relative_to(folder)


def require_outside(out: Path, root: str | Path, *, setting: str | None = "out") -> None:
    """Raises UserError if results would be written into the folder of a data set, which could then be read as part of it."""
    if Path(root).is_dir() and out.resolve().is_relative_to(Path(root).resolve()):
        raise UserError(setting=setting, file=out, expected="a folder outside of the data set", got=f"one inside {root}")


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image in pixels, without decoding it.

    Raises:
        AnnotationError: The file is not an image, or is damaged.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            return (width, height) if opened.getexif().get(EXIF_ORIENTATION, 1) in SIDEWAYS else (height, width)
    except Exception as error:  # decoders raise all kinds of errors for broken files
        problem = f"its size cannot be read ({one_line(error, 100)})"
        raise AnnotationError(problem, file=path, hint="replace the image") from error
