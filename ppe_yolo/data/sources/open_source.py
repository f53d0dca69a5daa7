"""Finds the format of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.sources.annotation_list import AnnotationLists, find_lists
from ppe_yolo.data.sources.base import ALL, Source
from ppe_yolo.data.sources.coco_json import CocoFiles, find_coco_files, split_of
from ppe_yolo.data.sources.cvat_xml import CvatFile, is_cvat_file
from ppe_yolo.data.sources.files import files_with, has_files_with, subfolders
from ppe_yolo.data.sources.voc_folder import VocFolder, find_parts
from ppe_yolo.data.sources.yolo_folder import YoloFolder, find_data_yaml, is_yolo_folder

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def open_source(root: str | Path) -> Source:
    """Opens a data set in the format that its files have.

    - Pascal VOC: a folder with XML files, see `VocFolder`.
    - YOLO: a folder with data.yaml, or with classes.txt, images, and labels in labels or next to them; or the YAML file.
    - COCO: a folder with one JSON file per split, or the file.
    - CVAT for images 1.1: a folder with annotations.xml, or the file.
    - Annotation lists: a folder of lists (`voc_trainval.txt`, `voc_test.txt`, ...), or one list.

    A folder that holds only another folder, as after unpacking an archive, stands for that one.

    Raises:
        UserError: The path holds none of these.
    """
    root = Path(root)
    if root.is_file():
        if root.suffix.lower() in _ARCHIVES:
            raise UserError(file=root, expected="a folder", got="an archive", hint="unpack it, and give the folder")
        if root.suffix.lower() in (".yaml", ".yml"):
            return YoloFolder(root.parent, root)
        if root.suffix.lower() == ".json":
            # COCO's own layout has the images next to this folder
            folder = root.parent.parent if root.parent.name.lower() == "annotations" else root.parent
            return CocoFiles(folder, {split_of(root): root})
        if root.suffix.lower() == ".xml":
            return CvatFile(root)
        return AnnotationLists({ALL: root})
    folder = root
    while (source := _open_folder(folder)) is None:
        inside = [path for path in subfolders(folder) if not path.name.startswith(".")]
        if len(inside) != 1 or inside[0].is_symlink():
            break
        folder = inside[0]
    else:
        return source
    archives = [path.name for path in files_with(folder, _ARCHIVES)]
    hint = f"unpack {archives[0]}" if archives else "export the annotations from your tool as Pascal VOC, YOLO or COCO"
    if not archives and has_files_with(folder, IMAGE_SUFFIXES):
        hint += "; if no image has an object, move them into images, next to data.yaml with names and `train: images`"
        if (above := data_set_around(root)) is not None:
            hint = f"give the whole data set, {above}"
    part = next((path.name for path in subfolders(folder) if _is_data_set(path)), None)
    if part is not None:
        hint = f"give one of its folders, such as {part}, or name them train, val and test"
    raise UserError(
        file=root,
        expected="a Pascal VOC folder (Annotations, JPEGImages), YOLO (data.yaml), COCO, CVAT or lists (*_trainval.txt)",
        got="a folder with none of these" if root.is_dir() else "no such folder",
        hint=hint if root.is_dir() else None,
    )


def data_set_around(folder: Path) -> Path | None:
    """The data set that a folder of images is, or that lies up to two folders above it; None if there is none."""
    return next((path for path in (folder, folder.parent, folder.parent.parent) if _is_data_set(path)), None)


def _is_data_set(folder: Path) -> bool:
    try:
        return _open_folder(folder) is not None
    except UserError:
        return False


def _open_folder(root: Path) -> Source | None:
    xmls = files_with(root, (".xml",))
    cvat = xmls[0] if len(xmls) == 1 else root / "annotations.xml"  # FiftyOne calls it labels.xml
    if is_cvat_file(cvat):
        return CvatFile(cvat)
    parts = find_parts(root)
    if parts or (root / "Annotations").is_dir():
        return VocFolder(root, parts)
    config = find_data_yaml(root)
    if config is not None or is_yolo_folder(root):
        return YoloFolder(root, config)
    files = find_coco_files(root)
    if files:
        return CocoFiles(root, files)
    lists = find_lists(root)
    return AnnotationLists(lists) if lists else None
