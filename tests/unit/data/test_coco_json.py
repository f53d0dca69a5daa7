"""COCO detection JSON, as Roboflow, Label Studio, CVAT and Azure write it."""

import json
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.open_source import open_source

FUZZ = int(os.environ.get("PPE_YOLO_FUZZ", "300"))


def coco(name: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": name, "width": 64, "height": 48}],
        "annotations": [{"id": i, "image_id": 7, "category_id": 1, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "helmet"}, {"id": 5, "name": "none"}],
    }


@pytest.fixture
def write(picture: Callable) -> Callable[..., Path]:
    def write_file(path: Path, image: Path, name: str, *annotations: dict[str, Any]) -> Path:
        for file in (path, image):
            file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), picture(image.name))
        path.write_text(json.dumps(coco(name, *(annotations or ({"bbox": [8, 8, 22.5, 20]},)))))
        return path

    return write_file


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [(f"{s}/_annotations.coco.json", f"{s}/{n}", n) for s, n in (("train", "a.jpg"), ("valid", "b.jpg"))],
            ["train", "val"],
        ),
        (
            [
                ("annotations/instances_train2017.json", "train2017/a.jpg", "a.jpg"),
                ("annotations/instances_Val.json", "images/b.jpg", "b.jpg"),
            ],
            ["train", "val"],
        ),
        ([("result.json", "images/a.jpg", "images/a.jpg")], ["all"]),
        ([("annotations/instances_default.json", "images/default/a.jpg", "a.jpg")], ["all"]),
        ([("test.json", "a.jpg", "C:\\data\\a.jpg")], ["test"]),
        ([("result.json", "site a/b (1).jpg", "/data/local-files/?d=site%20a/b%20%281%29.jpg")], ["all"]),
        ([("result.json", "cam 1/a.jpg", "http://host:8080/data/local-files/?d=cam%201/a.jpg")], ["all"]),
        ([("result.json", "images/a.jpg", "https://host/c/a.jpg?sig=secret/x.y")], ["all"]),
        ([("result.json", "images/a.jpg", "A.JPG")], ["all"]),
    ],
)  # fmt: skip
def test_coco_layouts_are_read_with_splits(
    write: Callable[..., Path], tmp_path: Path, files: list, expected: list[str]
) -> None:
    for path, image, name in files:
        write(tmp_path / path, tmp_path / image, name)
    source = open_source(tmp_path)
    assert (source.format, list(source.splits)) == ("COCO", expected)
    entries = [source.read(key) for keys in source.splits.values() for key in keys]
    assert [e.image.image for e in entries] == [str(tmp_path / image) for _, image, _ in files]
    for entry in entries:
        assert unquote(entry.image.image_id).lower() == Path(entry.image.image).stem
        assert entry.annotated_size == (48, 64)
        assert [(o.class_name, o.box_xyxy, o.difficult) for o in entry.image.objects] == [("helmet", (8, 8, 30.5, 28), False)]


def test_coco_segments_and_crowds_become_boxes(write: Callable[..., Path], tmp_path: Path) -> None:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 5:9] = mask[15:40, 30:31] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.flatten(order="F").tolist()
    edges = [0, *[i for i in range(1, len(flat)) if flat[i] != flat[i - 1]], len(flat)]
    runs = [b - a for a, b in pairwise(edges)]
    path = write(
        tmp_path / "train.json", tmp_path / "a.jpg", "a.jpg",
        {"segmentation": [[1, 2, 30, 4, 5, 40.5], [0, 9, 3, 9, 3, 12]], "category_id": 5},
        {"segmentation": {"size": [48, 64], "counts": compressed["counts"].decode()}, "iscrowd": 1},
        {"segmentation": {"size": [48, 64], "counts": runs}, "bbox": []},
    )  # fmt: skip
    objects = open_source(path).read("train:7").image.objects
    assert [(o.class_name, o.box_xyxy, o.difficult) for o in objects] == [
        ("none", (0, 2, 30, 40.5), False),
        ("helmet", (5, 10, 31, 40), True),
        ("helmet", (5, 10, 31, 40), False),
    ]


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 1 (helmet): expected a bbox [x, y, width, height], got [1, 2, 3]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 1 (helmet): expected a bbox"),
        ({"bbox": [1, 2, 3, 4], "category_id": 2}, "annotation 1: expected a category_id of 1 (helmet), 5 (none), got 2"),
        ({}, "annotation 1 (helmet): expected a bbox or a segmentation, got None"),
        ({"segmentation": {"size": [48, 64], "counts": "~~~"}}, "expected run lengths that fill their size"),
        ({"segmentation": {"size": [48, 64], "counts": [3072]}}, "expected a mask that covers something, got an empty one"),
    ],
)
def test_coco_malformed_annotation_raises(write: Callable[..., Path], tmp_path: Path, annotation: dict, why: str) -> None:
    path = write(tmp_path / "train.json", tmp_path / "a.jpg", "a.jpg", annotation)
    with pytest.raises(AnnotationError) as raised:
        open_source(tmp_path).read("train:7")
    assert str(raised.value).startswith(f"{path}: ")
    assert why in str(raised.value)


def test_coco_image_outside_the_folder_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.json", tmp_path / "secret.jpg", "../secret.jpg")
    with pytest.raises(AnnotationError, match=r"no such image ../secret.jpg: add the image to"):
        open_source(tmp_path / "set").read("train:7")


def test_coco_images_without_names_raise(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", tmp_path / "a.jpg", "")
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"images": [*values["images"], {"id": 8, "file_name": ""}]}))
    with pytest.raises(AnnotationError, match="no such image"):
        open_source(path).read("train:8")


def test_coco_two_files_for_one_split_raise(write: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("train.json", "instances_train.json"):
        write(tmp_path / name, tmp_path / "a.jpg", "a.jpg")
    with pytest.raises(UserError, match=r"expected one COCO file for the split train, got instances_train.json and train.json"):
        open_source(tmp_path)


def test_coco_mutated_files_are_read_or_raise(write: Callable[..., Path], tmp_path: Path) -> None:
    segment = {"segmentation": {"size": [48, 64], "counts": [10, 3062]}}
    path = write(tmp_path / "train.json", tmp_path / "a.jpg", "a.jpg", {"bbox": [1, 2, 3, 4]}, segment)
    good, rng, outcomes = path.read_bytes(), random.Random(4), {"read": 0, "refused": 0}
    pieces = [b"", b"-", b"null", b"[]", b"{}", b'"', b"\xff", b"9" * 400, b"NaN", b"1e999", b"../", b"true", b"[" * 3000]
    for _ in range(FUZZ):
        data = good
        for _ in range(rng.randint(1, 2)):
            a = rng.randrange(len(data) + 1)
            data = data[:a] + rng.choice(pieces) + data[a + rng.randint(0, 3) :]
        path.write_bytes(data)
        try:
            source = open_source(path)
            for key in source.splits["train"]:
                source.read(key)
            outcomes["read"] += 1
        except UserError as error:
            assert str(tmp_path) in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > FUZZ / 50
