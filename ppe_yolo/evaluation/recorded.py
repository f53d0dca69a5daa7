"""Detections of any detector, recorded as a COCO results file, to be measured like those of a model. No torch."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES, AnnotatedImage
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.images import shown
from ppe_yolo.evaluation.files.detections import check_box_and_score, check_category
from ppe_yolo.evaluation.files.folder import read_json

_INPUT_SIZE = (416, 416)  # only the reference for the sizes of heads: the file does not say at which size it was made


class RecordedDetections:
    """A COCO results file: a list of `image_id` or `file_name`, `category_id`, `bbox` [x, y, width, height] and `score`.

    An image is found by its file name, without folders and suffix, in `file_name` or else in `image_id`. An `image_id` that is
    a number also finds `000242.jpg` as 242. Category k + 1 is class k of the class map.

    Args:
        path: The file.
        class_map: The class map of the data, which gives the classes their order.

    Attributes:
        contract: Class names; the rest is what `evaluate` needs and the file does not hold.

    Raises:
        UserError: The file cannot be read, or a row would lead to wrong figures.
    """

    def __init__(self, path: Path, class_map: ClassMap) -> None:
        class_names = class_map.class_names
        self.contract = ModelContract(class_names, _INPUT_SIZE, score_floor=0.0, display_names=class_map.display_names)
        self._path = path
        rows = read_json(path)
        if not isinstance(rows, list):
            raise UserError(file=path, expected="a list of COCO results", got=type(rows).__name__)
        self._rows: dict[str, list[tuple[list[float], float, int]]] = defaultdict(list)
        for number, row in enumerate(rows, start=1):
            item = f"result {number}"
            check_box_and_score(row, item, path)
            check_category(category := row.get("category_id"), item, path, class_names)
            name = row.get("file_name", row.get("image_id"))
            if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
                raise UserError(file=path, item=item, expected="a file_name, or an image_id", got=repr(name))
            self._rows[_key(str(name))].append((row["bbox"], row["score"], category - 1))

    def of(self, images: Sequence[AnnotatedImage]) -> list[Detections]:
        """Returns the detections in each image, those with the highest scores first; an image without rows has none.

        Raises:
            UserError: Two images have the same name, or no detection belongs to any of the images.
        """
        known: dict[str, str] = {}
        for image in images:
            other = known.setdefault(_key(image.image), image.image)
            if other != image.image:
                raise UserError(
                    "two images have the same name",
                    file=self._path,
                    item=f"{shown(other)} and {shown(image.image)}",
                    hint="evaluate the data sets one by one",
                )
        if self._rows and not self._rows.keys() & known.keys():
            raise UserError(
                file=self._path,
                expected=f"detections in the evaluated images, such as {shown(images[0].image)}" if images else "no detections",
                got=f"detections in others, such as {next(iter(self._rows))}",
            )
        return [self._one(self._rows.get(_key(image.image), [])) for image in images]

    def _one(self, rows: list[tuple[list[float], float, int]]) -> Detections:
        rows = sorted(rows, key=lambda row: -row[1])[: self.contract.max_detections]
        boxes = np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
        return Detections(
            boxes_xyxy=np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
            scores=np.array([row[1] for row in rows], dtype=np.float32),
            labels=np.array([row[2] for row in rows], dtype=np.int64),
        )


def _key(name: str) -> str:
    """The part of a name that identifies an image: no folder, no suffix of an image, no leading zeros of a number."""
    path = PurePosixPath(name.split("?")[0].replace("\\", "/"))  # a URL may have a query
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem
