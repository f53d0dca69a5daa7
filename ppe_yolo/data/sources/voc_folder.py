"""Pascal VOC folders: JPEGImages, Annotations and ImageSets/Main."""

from collections import defaultdict
from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage
from ppe_yolo.data.sources.base import ALL, AnnotationError, Entry, Problem
from ppe_yolo.data.sources.text import read_lines
from ppe_yolo.data.sources.voc import VocAnnotation, read_voc_annotation


class VocFolder:
    """A Pascal VOC folder. Keys are the stems of the XML files.

    Splits come from ImageSets/Main/*.txt; without lists, all images are in the split `all`.

    Args:
        root: The folder that holds Annotations.

    Raises:
        UserError: No XML file, or lists without a usable split.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images = _files_by_stem(root / "JPEGImages", IMAGE_SUFFIXES)
        self._image_by_name = {path.name: path for paths in self._images.values() for path in paths}
        self._xmls = _files_by_stem(root / "Annotations", (".xml",))
        if not self._xmls:
            raise UserError(
                file=root / "Annotations",
                expected="one XML file per image",
                got="none",
                hint="give the folder that holds Annotations and JPEGImages",
            )
        lists = self._read_lists(root / "ImageSets" / "Main")
        self.splits = {name: keys for name, keys in lists.items() if keys} or {ALL: sorted(self._xmls)}
        self.problems = self._find_unused(lists)

    def _read_lists(self, folder: Path) -> dict[str, list[str]]:
        # VOC also has a list per class (cat_train.txt); those are no splits
        files = sorted(folder.glob("*.txt"))
        lists = {path.stem: _read_image_set(path, set(self._xmls)) for path in files if "_" not in path.stem}
        if files and not any(lists.values()):
            raise UserError(
                file=folder,
                expected="image names in trainval.txt, test.txt or the like",
                got=", ".join(path.name for path in files),
                hint="fix or remove the lists",
            )
        return lists

    def _find_unused(self, lists: dict[str, list[str]]) -> list[Problem]:
        def warning(code: str, file: Path, message: str) -> Problem:
            return Problem(severity="warning", code=code, file=str(file), message=message)

        main = self.root / "ImageSets" / "Main"
        problems = [
            warning("empty-split", main / f"{name}.txt", "the list is empty: the split is ignored")
            for name, keys in lists.items()
            if not keys
        ]
        listed = {key for keys in lists.values() for key in keys}
        for stem in sorted(self._xmls.keys() - listed) if lists else ():
            problems.append(warning("in-no-split", self._xmls[stem][0], "in no list of ImageSets: not used"))
        for stem in sorted(self._images.keys() - self._xmls.keys() - listed):
            # an XML file of another name may use the image through its <filename>; the data set drops the problem then
            message = "no XML file of this name: not used; a background image needs an XML file without objects"
            problems += [warning("no-annotation", path, message) for path in self._images[stem]]
        return problems

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        if key not in self._xmls:
            raise AnnotationError(
                "listed in ImageSets, but there is no such file",
                file=self.root / "Annotations" / f"{key}.xml",
                hint="annotate the image, or remove it from the list",
            )
        xml, *others = self._xmls[key]
        if others:
            raise AnnotationError(
                file=xml, expected="one XML file of this name", got=f"{others[0].name} as well", hint="remove one of them"
            )
        annotation = read_voc_annotation(xml)
        image = self._find_image(key, annotation)
        problems = []

        def warn(code: str, message: str) -> None:
            problems.append(Problem(severity="warning", code=code, file=str(xml), message=message))

        if annotation.filename and image.name != annotation.filename:
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
            problems=tuple(problems),
        )

    def _find_image(self, key: str, annotation: VocAnnotation) -> Path:
        """The image with the stem of the XML file, else the one that its <filename> names."""
        by_stem = self._images.get(key, [])
        if len(by_stem) > 1:
            names = ", ".join(path.name for path in by_stem)
            raise AnnotationError(
                file=annotation.path, expected="one image of this name", got=f"several ({names})", hint="remove the others"
            )
        if by_stem:
            return by_stem[0]
        # <path> is never used: it refers to the annotator's machine
        name = annotation.filename.replace("\\", "/").rpartition("/")[2]
        if name not in self._image_by_name:
            raise AnnotationError(
                f"no image {key}.* and no {name or '<filename>'} in {self.root / 'JPEGImages'}",
                file=annotation.path,
                hint="add the image, or remove the XML file",
            )
        return self._image_by_name[name]


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files with these suffixes in lower or upper case."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes:
            files[path.stem].append(path)
    return dict(files)


def _read_image_set(path: Path, known: set[str]) -> list[str]:
    """Names of one split. The VOC form with a flag (`name 1`, `name -1`) is accepted too."""
    keys = []
    for line in read_lines(path):
        key = line.strip()
        if key not in known:
            name, _, flag = key.rpartition(" ")
            if flag in ("1", "0", "-1") and name.strip() in known:
                key = name.strip()
        if key:
            keys.append(key)
    return keys
