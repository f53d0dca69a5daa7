"""Pascal VOC folders in the layouts that are in use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage
from ppe_yolo.data.sources.base import ALL, AnnotationError, BoxForm, Entry, NoImageError, Problem
from ppe_yolo.data.sources.files import (
    IMAGE_FOLDERS,
    SPLITS,
    UNSUPPORTED,
    by_stem,
    canonical_split,
    files_with,
    has_files_with,
    images_in,
    nfc,
    split_folders,
    subfolder,
    subfolders,
)
from ppe_yolo.data.sources.text import read_lines
from ppe_yolo.data.sources.voc import VocAnnotation, read_voc_annotation

_ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels", "label")


@dataclass(frozen=True, slots=True)
class Part:
    """A folder of XML files and the folder of their images.

    Attributes:
        split: The split that the folder names; None if it names none.
        annotations: The folder of the XML files.
        images: The folder of the images.
        prefix: Put in front of keys that occur in several folders; None for nothing.
    """

    split: str | None
    annotations: Path
    images: Path
    prefix: str | None


def find_parts(root: Path, split: str | None = None) -> list[Part]:
    """Folders with XML files, in this order: Annotations, train/ and the like, next to the images. Empty if there are none."""
    images = subfolder(root, *IMAGE_FOLDERS)
    annotations = subfolder(root, *_ANNOTATION_FOLDERS)
    parts = []
    if annotations is not None:
        named = {inner: name for name, inner in split_folders(annotations)}
        # Subfolders are splits or cameras. Next to XML files only splits count: others may be backups.
        for inner in named if has_files_with(annotations, (".xml",)) else subfolders(annotations):
            own = subfolder(images or root, inner.name.lower())
            prefix = "/".join(part for part in (split, named.get(inner, inner.name)) if part)
            parts.append(Part(named.get(inner, split), inner, own or images or inner, prefix))
        parts.append(Part(split, annotations, images or root, split))
    elif split is None:
        parts = [part for name, folder in split_folders(root) for part in find_parts(folder, name)]
        parts += [Part(name, folder, folder, name) for name, folder in split_folders(images or root)] if images else []
    for folder in (root, images):
        if folder is not None:
            is_own = images is None or has_files_with(folder, IMAGE_SUFFIXES)
            parts.append(Part(split, folder, folder if is_own else images or root, split))
    return [part for part in parts if has_files_with(part.annotations, (".xml",))]


class VocFolder:
    """A Pascal VOC folder. Keys are the stems of the XML files, with the split or folder in front if a stem is in several.

    XML files are in Annotations and images in JPEGImages or images (in any case) or in subfolders of it, or side by side, or
    each split has a folder with one of these. Splits come from ImageSets/Main/*.txt, else from the folders; without either, all
    images are in the split `all`.

    Args:
        root: The folder that holds Annotations.
        parts: See `find_parts`.

    Raises:
        UserError: No XML file, or lists without a usable split.
    """

    format = "Pascal VOC"
    box_form: BoxForm = "corners"

    def __init__(self, root: Path, parts: Sequence[Part]) -> None:
        self.class_names: list[str] = []
        self.root = root
        if not parts:
            raise UserError(
                file=subfolder(root, *_ANNOTATION_FOLDERS) or root,
                expected="one XML file per image",
                got="none",
                hint="give the folder that holds Annotations and JPEGImages",
            )
        self._annotations = parts[0].annotations
        self._images = {part.images: by_stem(_images_of(part)) for part in parts}
        self._xmls: dict[str, list[Path]] = {}
        self._part_of: dict[str, Part] = {}
        xmls = [
            (part, stem, paths) for part in parts for stem, paths in by_stem(files_with(part.annotations, (".xml",))).items()
        ]
        counts = Counter(stem for _, stem, _ in xmls)
        by_folder: dict[str, list[str]] = {}
        for part, stem, paths in xmls:
            key = stem if counts[stem] == 1 or part.prefix is None else f"{part.prefix}/{stem}"
            self._xmls.setdefault(key, []).extend(paths)
            self._part_of[key] = part
            images = self._images[part.images].get(stem, [])
            folders = {canonical_split(path.parent.name) for path in images if path.parent != part.images}
            if split := part.split or next((name for name in folders if name in SPLITS), None):
                by_folder.setdefault(split, []).append(key)
        lists = self._read_lists() or {split: sorted(keys) for split, keys in by_folder.items()}
        self.splits = {name: keys for name, keys in lists.items() if keys} or {ALL: sorted(self._xmls)}
        self.problems = [*self._find_unused(lists), *_find_unused_folders(root, parts)]

    def _read_lists(self) -> dict[str, list[str]]:
        sets = subfolder(self.root, "imagesets")
        self._lists = folder = (sets and subfolder(sets, "main")) or sets or self.root / "ImageSets" / "Main"
        files, known = files_with(folder, (".txt",)), set(self._xmls)
        lists: dict[str, list[str]] = {}
        for path in (path for path in files if "_" not in path.stem):
            split = canonical_split(path.stem)
            if split in lists:
                raise UserError(
                    file=folder, expected=f"one list for the split {split}", got=f"{path.name} as well", hint="merge them"
                )
            lists[split] = _read_image_set(path, known)
        if not lists:
            # a list per class (cat_train.txt) names all images of its split; VoTT writes no others
            for path in files:
                split = canonical_split(path.stem.rpartition("_")[2])
                if split in SPLITS:
                    lists[split] = list(dict.fromkeys([*lists.get(split, ()), *_read_image_set(path, known)]))
        if files and not any(lists.values()):
            expected, got = "image names in trainval.txt, test.txt or the like", ", ".join(path.name for path in files)
            raise UserError(file=folder, expected=expected, got=got, hint="fix or remove the lists")
        return lists

    def _find_unused(self, lists: dict[str, list[str]]) -> list[Problem]:
        def warning(code: str, file: Path, message: str) -> Problem:
            return Problem(severity="warning", code=code, file=str(file), message=message)

        problems = [
            warning("empty-split", self._lists / f"{name}.txt", "the list is empty: the split is ignored")
            for name, keys in lists.items()
            if not keys
        ]
        listed = {key for keys in lists.values() for key in keys}
        for stem in sorted(self._xmls.keys() - listed) if lists else ():
            problems.append(warning("in-no-split", self._xmls[stem][0], "in no list of ImageSets: not used"))
        annotated = {(part.images, _stem(key)) for key, part in self._part_of.items()}
        for folder, images in sorted(self._images.items()):
            for stem in sorted(stem for stem in images.keys() - listed if (folder, stem) not in annotated):
                # an XML file of another name may use the image through its <filename>; the data set drops the problem then
                message = "no XML file of this name: not used; a background image needs an XML file without objects"
                problems += [warning("no-annotation", path, message) for path in images[stem]]
        return problems

    @cached_property
    def _image_by_name(self) -> dict[Path, dict[str, Path]]:
        """Folder -> name in NFC -> image; for XML files whose stem is that of no image."""
        return {
            folder: {nfc(path.name): path for paths in images.values() for path in paths}
            for folder, images in self._images.items()
        }

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        if key not in self._xmls:
            raise AnnotationError(
                "listed in ImageSets, but there is no such file",
                file=self._annotations / f"{key}.xml",
                hint="annotate the image, or remove it from the list",
            )
        xml, *others = self._xmls[key]
        if others:
            raise AnnotationError(
                file=xml,
                expected="one XML file of this name",
                got=f"{others[0] if others[0].name == xml.name else others[0].name} as well",
                hint="remove one of them",
            )
        annotation = read_voc_annotation(xml)
        image = self._find_image(key, annotation)
        problems = []

        def warn(code: str, message: str) -> None:
            problems.append(Problem(severity="warning", code=code, file=str(xml), message=message))

        if annotation.filename and nfc(image.name) != nfc(annotation.filename):
            warn("filename-differs", f"<filename> is {annotation.filename!r}, but the image used is {image.name!r}")
        size = annotation.size
        annotated_size = (size[0], size[1]) if size is not None and size[0] > 0 and size[1] > 0 else None
        if annotated_size is None:
            warn("size-missing", f"<size> is {size}: the size of the image is used")
        elif size is not None and size[2] != 3:
            warn("depth", f"<depth> is {size[2]}, expected 3")
        return Entry(
            image=AnnotatedImage(image=str(image), objects=annotation.objects, source=xml, image_id=key),
            location=str(xml),
            annotated_size=annotated_size,
            is_one_based=True,
            problems=tuple(problems),
        )

    def _find_image(self, key: str, annotation: VocAnnotation) -> Path:
        """The image with the stem of the XML file, else the one that its <filename> names."""
        folder = self._part_of[key].images
        same_stem = self._images[folder].get(_stem(key), [])
        if len(same_stem) > 1:
            names = ", ".join(path.name for path in same_stem)
            raise AnnotationError(
                file=annotation.path, expected="one image of this name", got=f"several ({names})", hint="remove the others"
            )
        if same_stem:
            return same_stem[0]
        # <path> is never used: it refers to the annotator's machine
        name = nfc(annotation.filename.replace("\\", "/").rpartition("/")[2])
        if name not in self._image_by_name[folder]:
            other = by_stem(files_with(folder, UNSUPPORTED)).get(_stem(key))
            if other:
                raise AnnotationError(
                    file=annotation.path,
                    expected="an image as JPEG, PNG, BMP, WebP or TIFF",
                    got=other[0].name,
                    hint="convert it to JPEG",
                )
            raise NoImageError(
                f"no image {annotation.path.stem}.* and no {name or '<filename>'} in {folder}",
                file=annotation.path,
                hint="add the image, or remove the XML file",
            )
        return self._image_by_name[folder][name]


def _images_of(part: Part) -> list[Path]:
    """The images of a part; those in subfolders, such as train and val, if the folder has none itself."""
    return images_in(part.images) or [path for folder in subfolders(part.images) for path in images_in(folder)]


def _stem(key: str) -> str:
    """The stem of the XML files of a key."""
    return key.rpartition("/")[2]


def _find_unused_folders(root: Path, parts: Sequence[Part]) -> list[Problem]:
    """Subfolders with annotations whose names are no splits."""
    used = {folder for part in parts for folder in (part.annotations, *part.annotations.parents)}
    message = "has annotations, but is not used: rename it to train, val or test, or give it as a data set of its own"
    return [
        Problem(severity="warning", code="unused-folder", file=str(folder), message=message)
        for folder in subfolders(root)
        if folder not in used and find_parts(folder)
    ]


def _read_image_set(path: Path, known: set[str]) -> list[str]:
    """Names of one split, with or without suffix or folder. The VOC form with a flag (`name 1`, `name -1`) is accepted too."""
    keys = []
    for line in read_lines(path):
        key = nfc(line.strip())
        if key and key not in known:
            name, _, flag = key.rpartition(" ")
            forms = [key, name.strip()] if flag in ("1", "0", "-1") else [key]
            key = next((found for form in forms for found in _without_suffix(form) if found in known), key)
        if key:
            keys.append(key)
    return keys


def _without_suffix(name: str) -> tuple[str, str]:
    """The name without its suffix, and without its folder as well."""
    stem = name.removesuffix(Path(name).suffix) if name.lower().endswith((*IMAGE_SUFFIXES, ".xml")) else name
    return stem, stem.replace("\\", "/").rpartition("/")[2]
