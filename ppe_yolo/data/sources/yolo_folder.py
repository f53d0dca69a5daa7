"""YOLO folders: data.yaml, images, and one text file of normalised boxes per image, in labels instead of images."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import is_system_file
from ppe_yolo.core.words import one_line
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage, AnnotatedObject
from ppe_yolo.data.sources.base import ALL, AnnotationError, BoxForm, ClassNumberError, Entry, Problem
from ppe_yolo.data.sources.files import (
    IMAGE_FOLDERS,
    FileFinder,
    by_stem,
    canonical_split,
    files_with,
    find_folder,
    has_files_with,
    images_in,
    is_inside,
    nfc,
    short_names,
    split_folders,
    subfolder,
    subfolders,
    unsupported_images,
    upright_size,
)
from ppe_yolo.data.sources.text import read_lines, read_text

MAX_BYTES = 4 * 1024 * 1024
PIXEL_VALUES = Problem(
    severity="error",
    code="pixel-values",
    file="",
    message="expected coordinates from 0 to 1, got pixels: divide x and width by the width of the image, y and height by its "
    "height; `ppe-yolo audit --fix` does so",
)
_LABEL = re.compile(r"\s*-?\d+(\s+[-+.\deE]+){4,}\s*$")
_CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")
_DARKNET_FOLDER = re.compile(r"obj_\w+_data", re.IGNORECASE)  # of CVAT's YOLO 1.1
_SPLIT_KEYS = ("train", "val", "valid", "test", "trainval")
_YAML_SUFFIXES = (".yaml", ".yml")


def find_data_yaml(root: Path) -> Path | None:
    """The YAML file in a folder that names classes and splits, as YOLO's data.yaml does. None if there is none.

    Raises:
        UserError: There are several.
    """
    files = [path for path in files_with(root, _YAML_SUFFIXES) if _is_data_yaml(path)]
    if len(files) > 1:
        named = [path for path in files if path.stem.lower() == "data"]
        if len(named) != 1:
            names = ", ".join(path.name for path in files)
            raise UserError(file=root, expected="one YAML file with names and splits", got=names, hint="give one of the files")
        files = named
    return files[0] if files else None


def is_yolo_folder(root: Path) -> bool:
    """Whether a folder holds images and labels without a data.yaml: in images and labels, or side by side, also by split."""
    labels = subfolder(root, "labels")
    if labels is not None and subfolder(root, *IMAGE_FOLDERS) is not None and any(_files_below(labels, (".txt",))):
        return True
    if any(_DARKNET_FOLDER.fullmatch(folder.name) and any(_files_below(folder, (".txt",))) for folder in subfolders(root)):
        return True
    images = _image_folder(root)
    folders = [root, images, *(folder for _, folder in split_folders(images))]
    for _, folder in split_folders(root):
        folders += [folder, subfolder(folder, "labels") or folder]
    return any(_LABEL.match(_first_line(path)) for folder in folders for path in files_with(folder, (".txt",)))


class _MissingPathError(UserError):
    """A path in data.yaml or a list does not exist."""


class YoloFolder:
    """A YOLO folder. Keys are the paths of the images, relative to the folder.

    An image without a label file, or with an empty one, is a background image. Segments become the boxes around them; of the
    labels of poses (`kpt_shape` in data.yaml), the box is read.

    Args:
        root: The folder that holds data.yaml, or images, labels and classes.txt; labels may lie next to their images.
        config: The YAML file; None without one. Splits then come from train.txt and the like, else from the folders.

    Raises:
        UserError: The YAML file is not valid, no split exists, one lies outside the folder, there are no class names, or labels
            belong to no image of a split.
    """

    format = "YOLO"
    box_form: BoxForm = "centre and size"

    def __init__(self, root: Path, config: Path | None = None) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self._finder = FileFinder()
        self._is_pose = False
        self._label_folders: dict[Path, Path] = {}  # of each folder of images
        self._labels: dict[Path, dict[str, list[Path]]] = {}  # folder of labels -> stem in NFC -> label files
        files = self._read_folders() if config is None else self._read_config(config)
        self._images: dict[str, Path] = {}
        self.splits: dict[str, list[str]] = {}
        for split, paths in files.items():
            keys = [nfc(path.relative_to(root).as_posix()) for path in paths]
            self._images.update(zip(keys, paths, strict=True))
            if keys:
                self.splits[split] = keys
            else:
                self._warn("empty-split", root, "no image: the split is ignored", split)
        self._check_labels(config)
        self._names = short_names(self._images)
        for folder in sorted({path.parent for path in self._images.values()}):
            self._find_unused(folder)
        if not self.splits:
            hint = "check the paths in data.yaml" if config else "add the images next to the labels or in a folder images"
            raise UserError(file=root, expected="images of at least one split", got="none", hint=hint)

    def _warn(self, code: str, file: Path, message: str, item: str = "", files: tuple[str, ...] = ()) -> None:
        self.problems.append(Problem(severity="warning", code=code, file=str(file), item=item, message=message, files=files))

    def _read_config(self, config: Path) -> dict[str, list[Path]]:
        """The images of each split of a YAML file; sets the names of the classes."""
        values = _read_yaml(config)
        self.class_names = _class_names(values.get("names"), config)
        self._is_pose = bool(values.get("kpt_shape"))
        count = values.get("nc")
        if count is not None and count != len(self.class_names):
            raise UserError(file=config, item="nc", expected=f"{len(self.class_names)}, the number of names", got=repr(count))
        files = self._files_of_splits(values, config)
        self._compare_with_classes(config)
        return files

    def _read_folders(self) -> dict[str, list[Path]]:
        """The images of each split without a YAML file; sets the names of the classes."""
        self.class_names = _read_classes(self.root)
        images = _image_folder(self.root)
        if files := self._files_of_lists(images):
            return files
        folders = dict(split_folders(images))
        if not folders:
            return {ALL: _images_below(images)}
        message = "has images, but is not used: rename it to train, val or test, or give it as a data set of its own"
        for path in subfolders(images):
            if path not in folders.values() and _has_images(path):
                self._warn("unused-folder", path, message)
        return {split: _images_below(folder) for split, folder in folders.items()}

    def _check_labels(self, config: Path | None) -> None:
        """Raises if no image of a split has a label file, but others have: all would become background images.

        A test split whose labels are kept secret is left out instead.
        """
        unlabelled = [s for s, keys in self.splits.items() if not any(self._has_label(self._images[key]) for key in keys)]
        if not unlabelled:
            return
        example = next(self._find_labels(), None)
        if example is None:
            return
        if unlabelled == ["test"] and len(self.splits) > 1:
            count = f"none of its {len(self.splits.pop('test')):,} images has a label file"
            message = f"{count}: the split test is ignored; add the labels, empty ones for images without objects"
            self._warn("missing-split", config or self.root, message, "test")
            return
        split = next(split for split in unlabelled if split != "test" or len(unlabelled) == 1)
        image = self._images[self.splits[split][0]]
        raise UserError(
            file=config or self.root,
            item=split,
            expected=f"a label file for at least one image, such as {self._label_folder(image.parent) / image.stem}.txt",
            got=f"none for {len(self.splits[split]):,} images, but others, such as {example}",
            hint="name the labels after their images, and put them into labels where the images are in images, or next to "
            "them; for images without objects, add empty label files",
        )

    def _find_labels(self) -> Iterator[Path]:
        """Yields files of labels that lie in a folder of labels or are named after an image. Detections are no labels."""
        places = {path.parent for path in self._images.values()}
        stems = {nfc(path.stem) for path in self._images.values()}
        for text in _files_below(self.root, (".txt",)):
            folders = {part.lower() for part in text.relative_to(self.root).parts[:-1]}
            is_in_place = text.parent in places or nfc(text.stem) in stems or not folders.isdisjoint(("label", "labels"))
            if is_in_place and "runs" not in folders:  # there Ultralytics writes what it detects
                line = _first_line(text)
                if _LABEL.match(line) and len(line.split()) != 6:  # the sixth number is a score
                    yield text

    def _has_label(self, image: Path) -> bool:
        return nfc(image.stem) in self._labels_in(self._label_folder(image.parent))

    def _find_unused(self, folder: Path) -> None:
        """Reports images in a folder that no decoder reads, and labels without an image."""
        self.problems += unsupported_images(folder)
        labels = self._label_folder(folder)
        stems = {nfc(path.stem) for path in images_in(folder)}
        texts = [path for stem, paths in self._labels_in(labels).items() if stem not in stems for path in paths]
        unused = [path for path in texts if _LABEL.match(_first_line(path))]  # classes.txt and the like are no labels
        if unused:
            message = (
                f"{len(unused):,} label files have no image, such as {unused[0].name}: not used; add the images, or remove them"
            )
            self._warn("label-without-image", labels, message, files=tuple(map(str, unused)))

    def _compare_with_classes(self, config: Path) -> None:
        """Labels hold numbers only, so a second list of names in another order is a sign of swapped classes."""
        for folder in (self.root, subfolder(self.root, "labels")):
            path = (folder or self.root) / "classes.txt"
            names = [line.strip() for line in read_lines(path) if line.strip()] if path.is_file() else self.class_names
            if names != self.class_names:
                message = (
                    f"names {', '.join(names)[:90]}, but {config.name}, which counts, has {', '.join(self.class_names)[:90]}: "
                    "check which order the labels have"
                )
                self._warn("class-order", path, message)

    def _files_of_splits(self, values: dict[str, Any], config: Path) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        missing: _MissingPathError | None = None
        for key in _SPLIT_KEYS:
            given = values.get(key)
            if not given:
                continue
            split = canonical_split(key)
            if split in files:
                raise UserError(file=config, item=key, expected="one of val and valid", got="both")
            entries = given if isinstance(given, list) else [given]
            try:
                files[split] = [path for entry in entries for path in self._expand(values.get("path"), entry, config, key)]
            except _MissingPathError as error:
                if error.item != "test" or len(entries) > 1:
                    raise
                missing = error  # Roboflow names a test split, whether there is one or not
        if missing is not None:
            if not files:
                raise missing
            message = f"{missing.got}: the split test is ignored; correct the path, or remove the key"
            self._warn("missing-split", config, message, "test")
        if not files:
            raise UserError(file=config, expected="a split train, val or test", got=", ".join(map(str, values)))
        return files

    def _files_of_lists(self, images: Path) -> dict[str, list[Path]]:
        """The images in train.txt and the like; empty without such a list. A label file may have such a name too."""
        stems = {nfc(path.stem) for path in images_in(self.root)}
        lists: dict[str, Path] = {}
        for path in files_with(self.root, (".txt",)):
            split = canonical_split(path.stem)
            if split not in _SPLIT_KEYS or nfc(path.stem) in stems or _LABEL.match(_first_line(path)):
                continue
            if split in lists:
                raise UserError(file=self.root, expected=f"one of {lists[split].stem} and {path.stem}", got="both")
            lists[split] = path
        files = {split: self._expand(None, path.name, path, split) for split, path in lists.items()}
        listed = {nfc(os.path.normpath(path)) for paths in files.values() for path in paths}
        names = ", ".join(path.name for path in lists.values())
        for path in _images_below(images) if files else ():
            if nfc(os.path.normpath(path)) not in listed:
                self._warn("in-no-split", path, f"not in {names}: not used")
        return files

    def _expand(self, base: object, entry: object, config: Path, item: str) -> list[Path]:
        """The images of one entry: a folder, a list of files, or an image."""
        if not isinstance(entry, str) or not isinstance(base, str | None):
            raise UserError(
                file=config, item=item, expected="a path", got=repr(entry if isinstance(base, str | None) else base)
            )
        path = self._locate(base, entry, config, item)
        if path.is_dir():
            return _images_below(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return [path]
        if path.suffix.lower() != ".txt":
            raise UserError(file=config, item=item, expected="a folder of images, or a .txt list of images", got=entry)
        images = []
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                location = f"line {number}"
                images.append(self._locate(path.parent, line.strip(), path, location, base))
        return images

    def _locate(self, base: str | Path | None, entry: str, file: Path, item: str, other: str | None = None) -> Path:
        """Finds a file or folder, which must lie in the data set.

        Files that were moved to this machine keep their old paths, so the end of a path counts as well, as do paths without the
        leading `../` that Roboflow writes.
        """
        given = Path(entry.replace("\\", "/"))
        bases = [self.root / part for part in (base, other) if part is not None]
        tail = [part for part in given.parts if part not in ("..", ".", given.anchor)]
        candidates = [*(part / given for part in bases), self.root / given]
        candidates += [self.root.joinpath(*tail[start:]) for start in range(len(tail))]
        for candidate in candidates:
            if not is_inside(candidate, self.root):
                continue
            found = find_folder(candidate) or self._finder.find(candidate)
            if found is not None:
                return found
        expected = f"a path inside {self.root}"
        if any(find_folder(path) or self._finder.find(path) for path in candidates):
            hint = "move it into the folder of the data set, or give the folder that holds it"
            raise UserError(file=file, item=item, expected=expected, got=f"{entry} (outside)", hint=hint)
        got, hint = f"{entry} (no such file or folder)", "correct the path, or remove it"
        raise _MissingPathError(file=file, item=item, expected=expected, got=got, hint=hint)

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        path = self._images[key]
        label = self._label_file(path)
        objects, problems = ((), ()) if label is None else self._read_objects(label, path)
        source = label or path
        return Entry(
            image=AnnotatedImage(image=str(path), objects=objects, source=source, image_id=self._names[key]),
            location=str(source),
            is_one_based=False,
            problems=problems,
        )

    def _read_objects(self, label: Path, image: Path) -> tuple[tuple[AnnotatedObject, ...], tuple[Problem, ...]]:
        """The objects of a label file, and a problem if all of their boxes are in pixels."""
        lines = [(number, line) for number, line in enumerate(_read_label_lines(label), start=1) if line.strip()]
        if not lines:
            return (), ()
        height, width = upright_size(image)
        rows = [(number, *self._parse_line(line, label, number)) for number, line in lines]
        in_pixels = [row for row in rows if max(map(abs, row[2])) > 2]
        if not in_pixels:
            return tuple(self._to_object(index, values, width, height) for _, index, values in rows), ()
        if len(in_pixels) < len(rows):
            number, _, values = in_pixels[0]
            raise AnnotationError(
                file=f"{label}:{number}",
                expected="coordinates from 0 to 1",
                got=" ".join(f"{v:g}" for v in values[:4]),
                hint="these look like pixels, but other lines of the file do not; correct the line",
            )
        objects = tuple(self._to_object(index, values, 1, 1) for _, index, values in rows)  # in pixels, for the audit
        boxes = tuple(o.box_xyxy for o in objects)
        return objects, (replace(PIXEL_VALUES, file=str(label), image=str(image), boxes_xyxy=boxes),)

    def _label_file(self, image: Path) -> Path | None:
        found = self._labels_in(self._label_folder(image.parent)).get(nfc(image.stem), [])
        if len(found) > 1:
            hint = "keep the right one, and remove the other"
            got = f"{found[1].name} as well"
            raise AnnotationError(file=found[0], expected="one label file of this name", got=got, hint=hint)
        return found[0] if found else None

    def _labels_in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._labels:
            self._labels[folder] = by_stem(files_with(folder, (".txt",)))
        return self._labels[folder]

    def _label_folder(self, images: Path) -> Path:
        """The folder of the label files: in labels where the images are in images or the like, else next to the images."""
        if images not in self._label_folders:
            parts = images.relative_to(self.root).parts
            found = images
            for i in (i for i, part in enumerate(parts) if part.lower() in IMAGE_FOLDERS):
                labels = subfolder(self.root.joinpath(*parts[:i]), "labels")
                own = images if labels is None else labels.joinpath(*parts[i + 1 :])
                if labels is not None and (self._labels_in(own) or not self._labels_in(images)):
                    found = own
            self._label_folders[images] = found
        return self._label_folders[images]

    def _parse_line(self, line: str, label: Path, number: int) -> tuple[int, list[float]]:
        """Class number and coordinates of one line."""
        location = f"{label}:{number}"
        fields = line.split()
        try:
            values = [float(field) for field in fields]
        except ValueError:
            values = [math.nan]
        if not all(math.isfinite(v) and abs(v) < 1e9 for v in values):
            raise AnnotationError(
                file=location,
                expected="a class number and normalised coordinates",
                got=repr(line.strip()[:80]),
                hint=_hint_for(line, fields),
            )
        index, coordinates = values[0], values[1:5] if self._is_pose else values[1:]
        if len(coordinates) < 4 or len(coordinates) == 5 or len(coordinates) % 2:
            raise AnnotationError(
                file=location,
                expected="class x y width height, or class x1 y1 x2 y2 x3 y3 ...",
                got=f"{len(fields)} numbers",
                hint="scores are no part of a label" if len(coordinates) == 5 else None,
            )
        if index != int(index) or not 0 <= index < len(self.class_names):
            raise ClassNumberError(
                file=location,
                item=f"class {fields[0][:20]}",
                expected=f"a class from 0 to {len(self.class_names) - 1} ({', '.join(self.class_names)})",
                got=fields[0],
                hint="correct the label, or the names",
            )
        return int(index), coordinates

    def _to_object(self, index: int, coordinates: list[float], width: int, height: int) -> AnnotatedObject:
        """The object of one line; a segment becomes the box around it."""
        if len(coordinates) == 4:
            x, y, w, h = coordinates
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            box = (min(coordinates[::2]), min(coordinates[1::2]), max(coordinates[::2]), max(coordinates[1::2]))
        x1, y1, x2, y2 = (round(v * side, 6) for v, side in zip(box, (width, height) * 2, strict=True))
        return AnnotatedObject(self.class_names[index], (x1, y1, x2, y2))


def _hint_for(line: str, fields: list[str]) -> str | None:
    if "," in line:
        return "write 0.5 instead of 0,5" if len(fields) > 4 else "separate the numbers by spaces"
    return "write the number of the class instead of its name" if fields and not fields[0].strip("+-.").isdigit() else None


def _image_folder(root: Path) -> Path:
    """The folder of the images: images or the like if it holds any, else the data set itself."""
    # next to images or splits, a folder such as data holds something else
    is_flat = has_files_with(root, IMAGE_SUFFIXES) or any(_has_images(folder) for _, folder in split_folders(root))
    folders = (subfolder(root, name) for name in (("images",) if is_flat else IMAGE_FOLDERS))
    return next((folder for folder in folders if folder is not None and _has_images(folder)), root)


def _has_images(folder: Path) -> bool:
    # a subfolder may be a link, which `_files_below` does not follow
    return any(any(_files_below(part, IMAGE_SUFFIXES)) for part in (folder, *subfolders(folder)))


def _files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_file(name)]
        yield from (Path(path, name) for name in names if name.lower().endswith(suffixes) and not is_system_file(name))


def _images_below(folder: Path) -> list[Path]:
    found = images_in(folder)
    for child in subfolders(folder):
        if not child.is_symlink():
            found += _images_below(child)
    return found


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(1000).removeprefix(b"\xff\xfe")  # UTF-16, as PowerShell writes
        return line.replace(b"\0", b"").decode("utf-8-sig", "replace")


def _read_label_lines(path: Path) -> list[str]:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise AnnotationError(file=path, expected=f"at most {MAX_BYTES} bytes", got=str(size))
    try:
        return read_lines(path)
    except UserError as error:
        raise AnnotationError(file=path, expected=error.expected, got=error.got, hint=error.hint) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(file=path, expected=f"at most {MAX_BYTES} bytes of YAML", got=str(size))
        text = read_text(path)
        if re.search(r"(?m)[\s:\[,-]\*\w", text):  # nested aliases grow exponentially
            raise UserError(file=path, expected="YAML without aliases", got="an alias")
        values = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read as YAML ({one_line(error)})", file=path) from error
    if not isinstance(values, dict):
        raise UserError(file=path, expected="keys such as names, train and val", got=type(values).__name__)
    return values


def _is_data_yaml(path: Path) -> bool:
    try:
        values = _read_yaml(path)
    except UserError:
        return path.stem.lower() == "data"  # reported when it is read
    return "names" in values and any(values.get(key) for key in _SPLIT_KEYS)


def _class_names(names: object, file: Path) -> list[str]:
    if isinstance(names, dict):
        by_number = {str(number): name for number, name in names.items()}  # some tools put the numbers in quotes
        if by_number.keys() != {str(number) for number in range(len(names))}:
            got, hint = ", ".join(map(str, names))[:80], "name every class, also those that no label has"
            raise UserError(file=file, item="names", expected="the numbers 0, 1, 2, ...", got=got, hint=hint)
        names = [by_number[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(file=file, item="names", expected="the names of the classes", got=repr(names)[:80])
    # YAML reads `no` and `1` as other types than text
    texts = [str(name).strip() if isinstance(name, str | int) and not isinstance(name, bool) else "" for name in names]
    if not all(texts):
        raise UserError(file=file, item="names", expected="names as text", got=repr(names)[:80], hint="put them in quotes")
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice:
        raise UserError(file=file, item="names", expected="each name once", got=f"{twice[0]!r} twice")
    return texts


def _read_classes(root: Path) -> list[str]:
    named = (subfolder(root, "labels") or root, _image_folder(root))
    folders = dict.fromkeys((root, *named, *(folder for _, folder in split_folders(root))))
    finder = FileFinder()
    paths = [path for folder in folders for name in _CLASS_FILES if (path := finder.find(folder / name)) is not None]
    found = [(path, _class_names([line.strip() for line in read_lines(path) if line.strip()], path)) for path in paths]
    for path, names in found:
        if names != found[0][1]:
            raise UserError(
                file=path,
                expected=f"{', '.join(found[0][1])[:90]}, as in {found[0][0]}",
                got=", ".join(names)[:90],
                hint="the class numbers of the labels would mean different things: use one list, and renumber the labels of "
                "the other",
            )
    if found:
        return found[0][1]
    raise UserError(
        file=root,
        expected="the names of the classes in data.yaml or classes.txt",
        got="neither",
        hint="add classes.txt, one name per line",
    )
