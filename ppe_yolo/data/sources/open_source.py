"""Finds the format of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.sources.annotation_list import AnnotationLists, find_lists
from ppe_yolo.data.sources.base import ALL, Source
from ppe_yolo.data.sources.voc_folder import VocFolder, is_voc_folder


def open_source(root: str | Path) -> Source:
    """Opens a Pascal VOC folder, a folder of annotation lists (`voc_trainval.txt`, `voc_test.txt`, ...), or one list.

    Raises:
        UserError: None of these.
    """
    root = Path(root)
    if root.is_file():
        return AnnotationLists({ALL: root})
    if is_voc_folder(root) or (root / "Annotations").is_dir():
        return VocFolder(root)
    lists = find_lists(root)
    if lists:
        return AnnotationLists(lists)
    raise UserError(
        file=root,
        expected="a Pascal VOC folder (Annotations, JPEGImages) or annotation lists (*_trainval.txt)",
        got="a folder with neither" if root.is_dir() else "no such folder",
    )
