"""`ppe-yolo audit --fix`: a corrected copy of a data set."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit.annotation_check import CheckedImage
from ppe_yolo.data.audit.habits import ALL_BOXES, check_habits
from ppe_yolo.data.audit.meanings import find_meaning, reread
from ppe_yolo.data.audit.splits import DISJOINT
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import check_entries
from ppe_yolo.data.images import local_path, shown
from ppe_yolo.data.prepare import copy_image, file_names
from ppe_yolo.data.review.corrections import Change, Evidence, correct
from ppe_yolo.data.sources.base import Source
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.data.sources.open_source import open_source
from ppe_yolo.data.writers import IMAGE_FOLDER, WRITERS, Format, NamedImage

CHANGES_FILE = "changes.json"
_FORMATS: Mapping[str, Format] = {"YOLO": "yolo", "COCO": "coco"}  # all others become Pascal VOC, which holds every split
Splits = dict[str, list[str]]  # split -> keys


@dataclass(frozen=True, kw_only=True)
class FixResult:
    """The result of `fix`.

    Attributes:
        changes: All changes, in the order of the data set.
        images: Split -> number of its images in the copy.
        left_out: Number of images that are left out, since only a person can correct them.
    """

    changes: list[Change]
    images: dict[str, int]
    left_out: int


def fix(root: Path, out: Path, class_map: str | Path | None = None, *, progress: bool = True) -> FixResult:
    """Writes a corrected copy of a data set to a new folder. The data set itself is never changed.

    It corrects what is certain: swapped corners, boxes beyond the image, duplicated boxes, images in two splits, and faults of
    tools that the boxes prove. Images with other errors are left out and listed. YOLO stays YOLO and COCO stays COCO; the other
    formats become Pascal VOC. Class names stay as they are; shapes become boxes.

    Raises:
        UserError: The folder exists or lies in the data set, or no image can be used.
    """
    if out.exists() or out.is_symlink():
        raise UserError(setting="out", file=out, expected="a new folder", got="one that exists")
    require_outside(out, root if root.is_dir() else root.parent)
    source = open_source(root)
    names = load_class_map(class_map)
    keys = list(dict.fromkeys(key for part in source.splits.values() for key in part))
    checked, _ = check_entries(str(root), source, keys, names, progress)
    corrected, changes, left_out = {}, [], 0
    meaning = find_meaning(checked, source.box_form)
    if meaning is not None and meaning.correct is not None:
        checked = [reread(item, meaning.correct) for item in checked]
        changes.append(Change(code=meaning.code, file=str(root), message=f"{meaning.message}; they were converted"))
    evidence = Evidence.collect(checked)
    blocked = _blocked_by_habits(str(root), checked, source)
    for item in checked:
        image, found = correct(item, evidence, names)
        if item.key in blocked:
            image, found = None, []
        if image is not None:
            corrected[item.key] = image
        left_out += image is None
        changes += found
    changes += {change.message: change for change in blocked.values()}.values()  # each reason once
    hashes = {c.key: c.content_hash for c in checked}
    splits, moved = _without_duplicates(str(root), source.splits, corrected, hashes)
    used = {key: corrected[key] for part in splits.values() for key in part}
    if not used:
        raise UserError(
            "no image can be corrected",
            file=root,
            hint=f"see `ppe-yolo audit {root}`, for the class names as well (--class-map)",
        )
    changes += moved
    with _new_folder(out) as temporary:
        sizes = {c.key: c.size for c in checked}
        _write(temporary, root, _FORMATS.get(source.format, "voc"), splits, used, sizes, source.class_names)
        rows = [asdict(change) for change in changes]
        write_json(temporary / CHANGES_FILE, {"source": str(root), "changes": rows})
    return FixResult(changes=changes, images={split: len(keys) for split, keys in splits.items()}, left_out=left_out)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `out` when the block ends, and is deleted if it fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", file=out) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _blocked_by_habits(root: str, checked: list[CheckedImage], source: Source) -> dict[str, Change]:
    """Images that a fault of the whole data set makes unusable: key -> why."""
    copies = [replace(c) for c in checked]  # the check changes images
    found = check_habits(root, copies, source.class_names, source.box_form)
    errors = [p for p in found if p.severity == "error" and p.code in (*ALL_BOXES, "other-size", "class-number")]
    if not errors:
        return {}
    listed = {file: p for p in errors for file in p.files}
    blocked = {}
    for image, before in zip(copies, checked, strict=True):
        if image.has_faulty_boxes or (image.image is None and before.image is not None):
            # box faults come first in `errors`; the class-number fault comes last and also affects images that it does not list
            reason = errors[0 if image.has_faulty_boxes else -1]
            if image.raw is not None:
                reason = listed.get(shown(image.raw.image), reason)
            blocked[image.key] = Change(code=reason.code, file=root, message=reason.message, left_out=True)
    return blocked


def _without_duplicates(
    root: str, listed: Splits, corrected: Mapping[str, AnnotatedImage], hashes: Mapping[str, str]
) -> tuple[Splits, list[Change]]:
    """The splits with each image once, and in one of two splits that must not share it."""
    changes = []
    splits: Splits = {}
    for split, keys in listed.items():
        splits[split] = [key for key in dict.fromkeys(keys) if key in corrected]
        for key in sorted(key for key, count in Counter(keys).items() if count > 1):
            changes.append(Change(code="listed-twice", file=root, item=key, message=f"listed once in {split}"))
    for kept, dropped in DISJOINT:
        keys_of = {split: {hashes[key]: key for key in splits.get(split, ())} for split in (kept, dropped)}
        if keys_of[dropped].keys() <= keys_of[kept].keys():  # or nothing would be left of it
            kept, dropped = dropped, kept
        for key in splits.get(dropped, ()):
            if (other := keys_of[kept].get(hashes[key])) is not None:
                message = f"removed from {dropped}: identical to {shown(corrected[other].image)} in {kept}"
                file = shown(corrected[key].image)
                changes.append(Change(code="same-image-across-splits", file=file, item=key, message=message))
        splits[dropped] = [key for key in splits.get(dropped, ()) if hashes[key] not in keys_of[kept]]
    annotated: dict[str, AnnotatedImage] = {}
    for split, keys in splits.items():
        present: set[str] = set()
        for key in list(keys):
            image = corrected[key]
            is_contradicted = annotated.setdefault(image.image, image).objects != image.objects
            if is_contradicted or image.image in present:
                keys.remove(key)
                message = f"removed from {split}: the same image is there already"
                message += ", with other boxes; see which ones are right" if is_contradicted else ""
                changes.append(Change(code="same-image", file=shown(image.image), item=key, message=message))
            present.add(image.image)
    return {split: keys for split, keys in splits.items() if keys}, changes


def _write(
    out: Path,
    root: Path,
    format: Format,
    splits: Splits,
    images: Mapping[str, AnnotatedImage],
    sizes: Mapping[str, tuple[int, int]],
    class_names: Iterable[str],
) -> None:
    files = file_names(images.values(), root)
    for image, name in files.items():
        copy_image(local_path(image), out / IMAGE_FOLDER[format] / name)
    found = {o.class_name for image in images.values() for o in image.objects}
    named = {
        split.replace("_", "-"): [NamedImage(images[key], files[images[key].image], sizes[key]) for key in keys]
        for split, keys in splits.items()
    }
    declared = list(class_names)
    WRITERS[format](out, named, [*declared, *sorted(found - set(declared))])
