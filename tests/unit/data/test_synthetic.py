"""The drawn building site."""

from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image
from ppe_yolo.data.sources.voc import read_voc_annotation
from ppe_yolo.data.synthetic import draw_site_dataset


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_draw_site_dataset_same_seed_gives_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_site_dataset(tmp_path / name, trainval=3, test=1, size=(96, 128), seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 4 + 4 + 2
    a, c = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a if name.endswith(".jpg"))


def test_draw_site_dataset_has_boxes_inside_and_no_errors(tiny_site: Path) -> None:
    names = set()
    for path in (tiny_site / "Annotations").iterdir():
        annotation = read_voc_annotation(path)
        assert annotation.size == (96, 128, 3)
        assert read_image(str(tiny_site / "JPEGImages" / annotation.filename)).shape == (96, 128, 3)
        for item in annotation.objects:
            x1, y1, x2, y2 = item.box_xyxy
            assert 1 <= x1 < x2 <= 128
            assert 1 <= y1 < y2 <= 96
            names.add(item.class_name)
    assert names == {"helmet", "none"}
    dataset = AnnotatedDataset.open(tiny_site, progress=False)
    assert not dataset.errors
    assert {split: len(images) for split, images in dataset.splits.items()} == {"test": 4, "trainval": 16}


def test_draw_site_dataset_leaves_folder_with_content_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for root in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="expected a new or empty folder to draw into, got one with content"):
            draw_site_dataset(root, trainval=1, test=1)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
