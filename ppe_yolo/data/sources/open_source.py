"""Finds the format of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.sources.annotation_list import AnnotationLists
from ppe_yolo.data.sources.base import ALL, Source
from ppe_yolo.data.sources.voc_folder import VocFolder


def open_source(root: str | Path) -> Source:
    """Opens a Pascal VOC folder, a folder of annotation lists (`voc_trainval.txt`, `voc_test.txt`, ...), or one list.

    Raises:
        UserError: None of these.
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
            raise UserError(
                file=root,
                expected=f"one list for the split {split}",
                got=f"{lists[split].name} and {path.name}",
                hint="merge them",
            )
        lists[split] = path
    if lists:
        return AnnotationLists(lists)
    raise UserError(
        file=root,
        expected="a Pascal VOC folder (Annotations, JPEGImages) or annotation lists (*_trainval.txt)",
        got="a folder with neither" if root.is_dir() else "no such folder",
    )
