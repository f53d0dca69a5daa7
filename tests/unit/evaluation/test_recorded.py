"""Detections that another detector has recorded as COCO results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.evaluation.recorded import RecordedDetections


def row(**changes: Any) -> dict[str, Any]:
    return {"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} | changes


def recorded(tmp_path: Path, *rows: dict[str, Any]) -> RecordedDetections:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(rows))
    return RecordedDetections(path, load_class_map("default"))


def images(*paths: str) -> list[AnnotatedImage]:
    return [AnnotatedImage(image=path, objects=(), source=Path("x.xml"), image_id=path) for path in paths]


@pytest.mark.parametrize(
    "name",
    [
        {"image_id": "000242"},
        {"image_id": 242},
        {"image_id": 7, "file_name": "val/000242.JPG"},
        {"image_id": "C:\\x\\000242.jpg"},
    ],
)
def test_recorded_detections_image_is_found_by_its_name(tmp_path: Path, name: dict[str, Any]) -> None:
    found = recorded(tmp_path, row(**name)).of(images("/data/other.jpg", "/data/000242.jpg"))
    assert [len(one) for one in found] == [0, 1]
    np.testing.assert_array_equal(found[1].boxes_xyxy, [[1, 2, 4, 6]])


def test_recorded_detections_are_sorted_and_labelled(tmp_path: Path) -> None:
    (found,) = recorded(tmp_path, row(score=0.25), row(score=0.75, category_id=2)).of(images("a.v2.png", "a.jpg")[1:])
    assert found.scores.tolist() == [0.75, 0.25] and found.labels.tolist() == [1, 0]


def test_recorded_detections_of_images_with_same_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x/a\.jpg and y/a\.jpg: two images have the same name"):
        recorded(tmp_path, row()).of(images("x/a.jpg", "y/a.jpg"))


def test_recorded_detections_of_other_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected detections in the evaluated images, such as b\.jpg, got .*, such as a"):
        recorded(tmp_path, row()).of(images("b.jpg"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 0}, r"result 2: expected a category_id from 1 to 2 \(helmet, none\), got 0"),
        ({"category_id": 3}, "got 3"),
        ({"category_id": True}, "got True"),
        ({"image_id": None}, "expected a file_name, or an image_id, got None"),
        ({"score": 1.5}, "a score from 0 to 1"),
        ({"bbox": [0, 0, -1, 2]}, "a score from 0 to 1"),
        ({"bbox": [0, 0, 2]}, "a score from 0 to 1"),
        ({"bbox": [0, 0, float("nan"), 2]}, "a score from 0 to 1"),
    ],
)
def test_recorded_detections_impossible_row_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recorded(tmp_path, row(), row(**changes))


def test_recorded_detections_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="expected a list of COCO results, got dict"):
        RecordedDetections(tmp_path / "x.json", load_class_map("default"))
