"""COCO detection JSON: one file per split, with images, annotations and categories."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.words import one_line
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.base import ALL, AnnotationError, Box, BoxForm, Entry, NoImageError, Problem
from ppe_yolo.data.sources.files import (
    IMAGE_FOLDERS,
    SPLITS,
    FileFinder,
    canonical_split,
    files_with,
    image_paths,
    short_names,
    split_folders,
    subfolder,
    subfolders,
    upright_size,
)
from ppe_yolo.data.sources.text import read_text

MAX_BYTES = 1024 * 1024 * 1024
FRACTION = 1.05  # the largest value of a file whose boxes are fractions of the image; some reach a little beyond it
_HEAD = 4096
_LOCAL_FILES = "/data/local-files/?d="  # of Label Studio, with or without its host; the path of the image follows
_START = re.compile(rb'"(images|annotations|categories|licenses)"\s*:\s*\[|"info"\s*:\s*\{')
_KEYS = {"images", "annotations", "categories"}
# all other values are dropped while the file is read, since polygons and addresses take most of the memory
_USED = _KEYS | {"id", "file_name", "height", "width", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "name"}
_USED |= {"size", "counts"}


def find_coco_files(root: Path) -> dict[str, Path]:
    """The COCO files of a data set: split -> JSON file.

    Raises:
        UserError: Two files for one split.
    """
    found = [(split, path) for split, folder in split_folders(root) for path in _json_files(folder)]
    for folder in (root, subfolder(root, "annotations"), subfolder(root, "result")):
        found += [(split_of(path), path) for path in _json_files(folder)] if folder is not None else []
    files: dict[str, Path] = {}
    for split, path in sorted(found):
        if split in files:
            both = f"{files[split].relative_to(root)} and {path.relative_to(root)}"
            raise UserError(file=root, expected=f"one COCO file for the split {split}", got=both, hint="merge or remove one")
        files[split] = path
    return files


def _json_files(folder: Path) -> list[Path]:
    """Files with COCO's keys, without COCO's captions and key points and the audit.json of ppe-yolo."""
    found = []
    for path in files_with(folder, (".json",)):
        if path.stem.lower().startswith(("captions", "person_keypoints")):
            continue
        is_named = path.name.lower().endswith(".coco.json") or path.stem.lower().startswith("instances")
        if is_named or _starts_like_coco(path):
            found.append(path)
    return found


def _starts_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        return _START.search(file.read(_HEAD).replace(b"\0", b"")) is not None  # also in UTF-16


def split_of(path: Path) -> str:
    """instances_val2017.json is val, train.json is train, result.json is all."""
    for word in reversed(path.stem.lower().replace("-", "_").replace(".", "_").split("_")):
        split = canonical_split(word.rstrip("0123456789"))
        if split in SPLITS:
            return split
    return ALL


class CocoFiles:
    """COCO files. Keys are `split:image id`.

    An annotation without `bbox` has the box around its polygons or its run lengths. `iscrowd` means difficult. If no value of
    any bbox exceeds `FRACTION`, the boxes are fractions of the image, as Azure Machine Learning's labelling exports them.
    Identifiers are whole numbers or text. A file may have up to 1 GiB; reading it takes about three times as much memory.

    Args:
        root: The folder that all images lie in.
        files: Split -> JSON file.

    Raises:
        UserError: A file is not COCO detection JSON.
    """

    format = "COCO"
    box_form: BoxForm = "corner and size"

    def __init__(self, root: Path, files: dict[str, Path]) -> None:
        self.root = root
        self.splits: dict[str, list[str]] = {}
        self.class_names: list[str] = []
        self.problems: list[Problem] = []
        self._images: dict[str, tuple[Path, dict[str, Any]]] = {}
        self._annotations: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._names: dict[Path, dict[str, str]] = {}
        self._normalised: set[Path] = set()
        self._finder = FileFinder()
        images = subfolder(root, *IMAGE_FOLDERS)
        self._folders = [root] if images is None else [root, images, *subfolders(images)]
        self._folders += subfolders(root)
        for split, path in files.items():
            self._read_file(split, path)
        self._short_names = short_names(image["file_name"] for _, image in self._images.values())
        if not self.splits:
            raise UserError(file=root, expected="COCO files with at least one image", got="none")

    def _read_file(self, split: str, path: Path) -> None:
        values = _read_json(path)
        self._names[path] = _category_names(values["categories"], path)
        self.class_names += [name for name in self._names[path].values() if name not in self.class_names]
        keys = self._read_images(values["images"], split, path)
        if not keys:
            self._warn("empty-split", path, "no image: the split is ignored")
            return
        self._read_annotations(values["annotations"], split, path)
        boxes = [annotation["bbox"] for annotation in values["annotations"] if annotation.get("bbox")]
        if boxes and all(_are_numbers(box) and max(box) <= FRACTION for box in boxes):
            self._normalised.add(path)
        self.splits[split] = keys

    def _warn(self, code: str, path: Path, message: str) -> None:
        self.problems.append(Problem(severity="warning", code=code, file=str(path), message=message))

    def _read_images(self, images: list[Any], split: str, path: Path) -> list[str]:
        """Stores the images of a file, and returns their keys."""
        keys: list[str] = []
        for number, image in enumerate(images, start=1):
            is_named = isinstance(image, dict) and isinstance(image.get("file_name"), str)
            if not is_named or (image_id := _as_id(image.get("id"))) is None:
                raise UserError(file=path, item=f"image {number}", expected="an id and a file_name", got=str(image)[:80])
            _, local, name = image["file_name"].partition(_LOCAL_FILES)
            image["file_name"] = local + name if local else shown(image["file_name"])  # other queries may be secret
            key = f"{split}:{image_id}"
            if key not in self._images:
                self._images[key] = (path, image)
                keys.append(key)
            elif self._images[key][1]["file_name"] == image["file_name"]:
                self._warn("listed-twice", path, f"image {image_id} is listed twice: counted once")
            else:
                raise UserError(file=path, item=f"image {number}", expected="each id once", got=f"{image_id} twice")
        return keys

    def _read_annotations(self, annotations: list[Any], split: str, path: Path) -> None:
        """Stores the annotations of a file by image, and reports those that belong to none."""
        without_image = []
        for number, annotation in enumerate(annotations, start=1):
            given = annotation.get("image_id") if isinstance(annotation, dict) else annotation
            image_id = _as_id(given) if isinstance(annotation, dict) else None
            if image_id is None:
                got = str(given)[:80]
                raise UserError(file=path, item=f"annotation {number}", expected="the image_id of an image", got=got)
            if f"{split}:{image_id}" in self._images:
                self._annotations.setdefault(f"{split}:{image_id}", []).append((number, annotation))
            else:
                without_image.append(image_id)
        if without_image:
            message = (
                f"{len(without_image):,} annotations belong to no image of the file, such as image {without_image[0]}: not "
                "used; export the file again, or remove them"
            )
            self._warn("annotation-without-image", path, message)

    def read(self, key: str) -> Entry:
        """See `Source.read`."""
        path, image = self._images[key]
        name = image["file_name"]
        found = self._find_image(path, name)
        objects = tuple(self._read_object(a, number, path) for number, a in self._annotations.get(key, ()))
        height, width = _as_side(image.get("height")), _as_side(image.get("width"))
        annotated_size = (height, width) if height and width else None
        if path in self._normalised and objects:
            rows, columns = annotated_size or upright_size(found)
            objects = tuple(replace(o, box_xyxy=_scaled(o.box_xyxy, columns, rows)) for o in objects)
        return Entry(
            image=AnnotatedImage(image=str(found), objects=objects, source=path, image_id=self._short_names[name]),
            location=str(path),
            item=f"image {name}",
            annotated_size=annotated_size,
            is_one_based=False,
        )

    def _find_image(self, path: Path, name: str) -> Path:
        found = self._finder.find_inside(self.root, (path.parent, *self._folders), image_paths(name))
        if found is not None:
            return found
        hint = f"add the image to {self.root}, or remove it from the JSON"
        raise NoImageError(f"no such image {name}", file=path, item=f"image {name}", hint=hint)

    def _read_object(self, annotation: dict[str, Any], number: int, path: Path) -> AnnotatedObject:
        names = self._names[path]
        category = annotation.get("category_id")
        name = names.get(_as_id(category) or "")
        if name is None:
            known = ", ".join(f"{i} ({name})" for i, name in names.items())
            item = f"annotation {number}"
            raise AnnotationError(file=path, item=item, expected=f"a category_id of {known}", got=repr(category)[:80])
        item = f"annotation {number} ({name})"
        box = annotation.get("bbox")
        if box:
            if not _are_numbers(box) or len(box) != 4:
                raise AnnotationError(file=path, item=item, expected="a bbox [x, y, width, height]", got=repr(box)[:80])
            x, y, w, h = map(float, box)
            digits = 12 if path in self._normalised else 6
            xyxy = (x, y, round(x + w, digits), round(y + h, digits))
        else:
            xyxy = _box_around(annotation.get("segmentation"), path, item)
        return AnnotatedObject(name, xyxy, bool(annotation.get("iscrowd")))


def _scaled(box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = (round(v * side, 6) for v, side in zip(box, (width, height) * 2, strict=True))
    return x1, y1, x2, y2


def _box_around(segmentation: object, path: Path, item: str) -> Box:
    if isinstance(segmentation, list) and segmentation:
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if all(_are_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
            xs, ys = [x for p in polygons for x in p[::2]], [y for p in polygons for y in p[1::2]]
            return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    if isinstance(segmentation, dict):
        return _box_of_run_lengths(segmentation, path, item)
    raise AnnotationError(file=path, item=item, expected="a bbox or a segmentation", got=repr(segmentation)[:80])


def _box_of_run_lengths(mask: dict[str, Any], path: Path, item: str) -> Box:
    """The box around a mask: runs of background and object in turn, column by column."""
    size, counts = mask.get("size"), mask.get("counts")
    runs = _decode_counts(counts) if isinstance(counts, str) else counts
    is_size = isinstance(size, list) and len(size) == 2 and all(_is_count(v) and 0 < v <= 100_000 for v in size)
    is_mask = isinstance(runs, list) and all(_is_count(v) and v >= 0 for v in runs)
    if not is_size or not is_mask or sum(runs) != size[0] * size[1]:  # type: ignore[arg-type, index]
        raise AnnotationError(file=path, item=item, expected="run lengths that fill their size", got=repr(mask)[:80])
    height, at = size[0], 0  # type: ignore[index]
    left, top, right, bottom = math.inf, math.inf, -1, -1
    for number, run in enumerate(runs):  # type: ignore[arg-type]
        if number % 2 and run:
            first, last = at // height, (at + run - 1) // height
            left, right = min(left, first), max(right, last)
            is_one_column = first == last
            top = min(top, at % height if is_one_column else 0)
            bottom = max(bottom, (at + run - 1) % height if is_one_column else height - 1)
        at += run
    if right < 0:
        raise AnnotationError(file=path, item=item, expected="a mask that covers something", got="an empty one")
    return float(left), float(top), float(right + 1), float(bottom + 1)


def _decode_counts(text: str) -> list[int] | None:
    """Decodes compressed run lengths: base 48, 5 bits per character, as differences from the fourth run on."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs if shift == 0 else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(file=path, expected=f"at most {MAX_BYTES} bytes of JSON", got=str(size))
        values = json.loads(read_text(path), object_hook=_keep_used)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read as JSON ({one_line(error, 100)})", file=path) from error
    if not isinstance(values, dict) or not values.keys() >= _KEYS:
        got = ", ".join(map(str, values))[:80] if isinstance(values, dict) else type(values).__name__
        expected = "COCO detection JSON (images, annotations, categories)"
        hint = "export the annotations as COCO, or as Pascal VOC"
        raise UserError(file=path, expected=expected, got=got, hint=hint)
    for key in _KEYS:
        if not isinstance(values[key], list):
            raise UserError(file=path, item=key, expected="a list", got=type(values[key]).__name__)
    return values


def _keep_used(values: dict[str, Any]) -> dict[str, Any]:
    """An object without the values that nobody reads; with a box, nobody needs its polygon."""
    dropped = values.keys() - _USED
    if values.get("bbox"):
        dropped |= values.keys() & {"segmentation"}
    return {key: value for key, value in values.items() if key not in dropped} if dropped else values


def _category_names(categories: list[Any], path: Path) -> dict[str, str]:
    for number, category in enumerate(categories, start=1):
        is_named = isinstance(category, dict) and isinstance(category.get("name"), str) and category["name"].strip()
        if not is_named or _as_id(category.get("id")) is None:
            raise UserError(file=path, item=f"category {number}", expected="an id and a name", got=str(category)[:80])
    twice = [i for i, count in Counter(_as_id(category["id"]) for category in categories).items() if count > 1]
    if twice:
        raise UserError(file=path, item="categories", expected="each id once", got=f"{twice[0]} twice")
    return {_as_id(category["id"]) or "": category["name"].strip() for category in categories}


def _as_side(value: object) -> int:
    """A height or width in pixels, which some tools write as 640.0; 0 if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 1e9 and value == int(value):
        return int(value)
    return 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_id(value: object) -> str | None:
    """An identifier as text. Tables with gaps turn whole numbers into 7.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    is_id = isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    return str(value) if is_id else None


def _are_numbers(values: object) -> bool:
    if not isinstance(values, list):
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and -1e9 < v < 1e9 for v in values)
