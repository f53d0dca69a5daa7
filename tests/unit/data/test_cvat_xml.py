"""CVAT for images 1.1."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.open_source import open_source

FUZZ = int(os.environ.get("PPE_YOLO_FUZZ", "300"))
GOOD = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>gate</name></task></meta>
  <image id="0" name="a.jpg" subset="Train" width="64" height="48">
    <box label="helmet" source="manual" occluded="0" xtl="8.00" ytl="8.5" xbr="30" ybr="30" z_order="0"/>
    <polygon label="none" points="1,2;30,4;5,40.5"/><ellipse label="none" cx="20" cy="20" rx="5" ry="4"/>
  </image>
  <image id="1" name="b.jpg" subset="Validation" width="64" height="48"/>
</annotations>"""


@pytest.fixture
def root(picture: Callable, tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / "images" / name), picture(name))
    (tmp_path / "annotations.xml").write_text(GOOD)
    return tmp_path


def test_cvat_polygons_and_ellipses_become_boxes(root: Path) -> None:
    source = open_source(root)
    assert (source.format, source.splits) == ("CVAT", {"train": ["train:1"], "val": ["val:2"]})
    entry = source.read("train:1")
    assert (entry.image.image, entry.annotated_size) == (str(root / "images" / "a.jpg"), (48, 64))
    assert [(o.class_name, o.box_xyxy) for o in entry.image.objects] == [
        ("helmet", (8, 8.5, 30, 30)),
        ("none", (1, 2, 30, 40.5)),
        ("none", (15, 16, 25, 24)),
    ]
    assert source.read("val:2").image.objects == ()
    assert open_source(root / "annotations.xml").splits == source.splits


def test_cvat_masks_and_rotated_shapes_become_boxes_and_tags_are_no_objects(root: Path) -> None:
    shapes = (
        '<tag label="night"/><mask label="none" rle="0, 20" left="7" top="9" width="5" height="4"/>'
        '<box label="none" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>'
        '<ellipse label="none" cx="20" cy="20" rx="3" ry="4" rotation="45"/>'
    )
    (root / "annotations.xml").write_text(GOOD.replace('<polygon label="none" points="1,2;30,4;5,40.5"/>', shapes))
    boxes = [o.box_xyxy for o in open_source(root).read("train:1").image.objects]
    half = 12.5**0.5  # of the ellipse: the root of (9 + 16) / 2
    expected = [(8, 8.5, 30, 30), (7, 9, 12, 13), (15, 5, 25, 25), (20 - half, 20 - half, 20 + half, 20 + half)]
    assert boxes[:4] == [pytest.approx(box) for box in expected]


def test_cvat_project_has_a_folder_for_each_subset(root: Path) -> None:
    for subset, name in (("Train", "a.jpg"), ("default", "b.jpg")):
        (root / "images" / subset).mkdir()
        (root / "images" / name).rename(root / "images" / subset / "a.jpg")
    (root / "annotations.xml").write_text(GOOD.replace("b.jpg", "a.jpg").replace("Validation", "default"))
    source = open_source(root)
    entries = [source.read(key).image for key in (*source.splits["train"], *source.splits["all"])]
    assert [image.image for image in entries] == [f"{root}/images/{subset}/a.jpg" for subset in ("Train", "default")]
    assert [image.image_id for image in entries] == ["Train/a", "default/a"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('xbr="30"', 'xbr="x"', "object 1 (helmet): expected a number in xbr, got 'x'"),
        ('label="helmet"', "", "object 1: expected a label, got none"),
        ("<polygon", "<polyline", "object 2 (none): expected a box, polygon, ellipse or mask, got a polyline"),
        ("1,2;30,4;5,40.5", "1,2;30,4", "expected points x,y;x,y;x,y"),
        ('name="a.jpg"', 'name="../a.jpg"', None),
        ('name="a.jpg"', 'name="../c.jpg"', "no such image ../c.jpg"),
    ],
)
def test_cvat_malformed_shape_raises(root: Path, old: str, new: str, why: str | None) -> None:
    (root / "annotations.xml").write_text(GOOD.replace(old, new))
    if why is None:  # the name alone is looked for, inside the folder
        assert open_source(root).read("train:1").image.image == str(root / "images" / "a.jpg")
        return
    with pytest.raises(AnnotationError) as raised:
        open_source(root).read("train:1")
    assert str(raised.value).startswith(f"{root}/annotations.xml: ")
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<annotations><track/></annotations>", "expected CVAT for images 1.1, got CVAT for video"),
        ("<annotations/>", "expected at least one <image>, got none"),
        (GOOD[:-20], "expected XML, got something else"),
        ("<!DOCTYPE annotations><annotations/>", "DTD or entities is not accepted"),
        (
            GOOD.replace("b.jpg", "a.jpg").replace("Validation", "Train"),
            "image 1: expected a name of its own, got 'a.jpg' twice",
        ),
    ],
)
def test_cvat_invalid_file_raises(root: Path, text: str, why: str) -> None:
    (root / "annotations.xml").write_text(text)
    with pytest.raises(UserError, match=why):
        open_source(root)


def test_cvat_mutated_files_are_read_or_raise(root: Path) -> None:
    path, rng, outcomes = root / "annotations.xml", random.Random(5), {"read": 0, "refused": 0}
    good = GOOD.encode()
    pieces = [b"", b"0", b"7", b"-", b"x", b"<", b">", b"&a;", b'"', b"\xff", b"\x00", b"9" * 400, b"nan", b"../", b"<box/>"]
    for _ in range(FUZZ):
        a = rng.randrange(len(good) + 1)
        path.write_bytes(good[:a] + rng.choice(pieces) + good[a + rng.randint(0, 2) :])
        try:
            source = open_source(path)
            for keys in source.splits.values():
                for key in keys:
                    source.read(key)
            outcomes["read"] += 1
        except UserError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > FUZZ / 20


def test_cvat_names_file_and_image_apart(root: Path) -> None:
    source = open_source(root)
    (root / "images" / "a.jpg").unlink()
    with pytest.raises(AnnotationError) as raised:
        source.read("train:1")
    assert (raised.value.file, raised.value.item) == (str(root / "annotations.xml"), "image a.jpg")
    entry = source.read("val:2")
    assert (entry.location, entry.item) == (str(root / "annotations.xml"), "image b.jpg")
