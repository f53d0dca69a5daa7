"""The page of the audit."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ppe_yolo.data.anchors import DEFAULT_ANCHORS_WH
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.review.page import THUMBNAILS_OF_A_KIND, alike_groups, write_page
from ppe_yolo.data.review.thumbnails import SIDE, thumbnail
from ppe_yolo.model.names import Architecture
from ppe_yolo.model.yolov3 import default_anchors_wh

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def page_of(root: Path, out: Path) -> str:
    write_page(AnnotatedDataset.open(root, on_error="skip", progress=False), out)
    return out.read_text(encoding="utf-8")


def test_page_with_hostile_names_has_no_tag_of_theirs_and_requests_nothing(
    make_voc: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_voc(tmp_path / "voc", {HOSTILE.replace("/", ""): [(HOSTILE, (5, 5, 20, 20)), ("helmet", (30, 5, 20, 20))]})
    page = page_of(root, tmp_path / "page.html")
    tags = Tags(page).seen
    assert {attrs["src"][:23] for tag, attrs in tags if tag == "img"} == {"data:image/jpeg;base64,"}
    assert not [tag for tag, attrs in tags if tag in ("script", "link", "iframe") or any(key.startswith("on") for key in attrs)]
    assert not re.search(r"https?://", page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_page_bounds_the_pictures_of_a_kind_and_counts_the_others(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", {f"a{i}": [("helmet", (30, 5, 32, 20))] for i in range(25)})
    page = page_of(root, tmp_path / "page.html")
    assert page.count("<img ") == THUMBNAILS_OF_A_KIND
    assert "5 more are not shown" in page


def test_page_shows_groups_that_look_alike_and_the_anchors(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", ["a", "b", "c"])
    (root / "JPEGImages" / "b.jpg").write_bytes((root / "JPEGImages" / "a.jpg").read_bytes())
    dataset = AnnotatedDataset.open(root, progress=False)
    assert [[Path(image).stem for image in group] for group in alike_groups(dataset)] == [["a", "b"]]
    page = page_of(root, tmp_path / "page.html")
    assert "1 groups with 2 images" in page
    assert page.count("<circle") == 9 + 9 + 6


def test_page_without_images_that_work_is_written(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", ["a"])
    (root / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    page = page_of(root, tmp_path / "page.html")
    assert "There is no box." in page
    assert "<img" not in page


def test_anchors_of_the_page_are_those_of_the_networks() -> None:
    assert set(DEFAULT_ANCHORS_WH) == set(get_args(Architecture))
    for name in get_args(Architecture):
        np.testing.assert_array_equal(default_anchors_wh(name), DEFAULT_ANCHORS_WH[name])


@pytest.mark.parametrize("box", [(100, 10, 120, 20), (-1e12, -5, 1e12, 20), (30, 5, 20, 20)])
def test_thumbnail_of_a_box_outside_is_bounded(tmp_path: Path, picture: Callable, box: tuple[float, ...]) -> None:
    import base64

    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture("a"))
    uri = thumbnail(str(tmp_path / "a.png"), [box])
    data = base64.b64decode(uri.partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert max(pixels.shape) == SIDE
    assert min(pixels.shape[:2]) > SIDE // 4
