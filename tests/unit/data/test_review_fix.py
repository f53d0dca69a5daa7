"""Corrected copies of data sets."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.review import fix as fix_module
from ppe_yolo.data.review.fix import CHANGES_FILE, FixResult, fix
from ppe_yolo.data.sources.open_source import open_source

SIZE = (48, 64)
Boxes = Sequence[tuple[str, tuple[float, float, float, float]]]


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != CHANGES_FILE}


def run(root: Path, out: Path) -> FixResult:
    return fix(root, out, progress=False)


def objects_of(root: Path) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    source = open_source(root)
    images = [source.read(key).image for keys in source.splits.values() for key in keys]
    return {Path(i.image).stem: [(o.class_name, o.box_xyxy) for o in i.objects] for i in images}


def as_yolo(root: Path, images: dict[str, Boxes]) -> None:
    """Adds labels and classes.txt to `images`."""
    (root / "JPEGImages").rename(root / "images")
    shutil.rmtree(root / "Annotations")
    (root / "labels").mkdir()
    for stem, objects in images.items():
        rows = [((a + c) / 128, (b + d) / 96, (c - a) / 64, (d - b) / 48) for _, (a, b, c, d) in objects]
        lines = [f"{['helmet', 'none'].index(n)} {x} {y} {w} {h}\n" for (n, _), (x, y, w, h) in zip(objects, rows, strict=True)]
        (root / "labels" / f"{stem}.txt").write_text("".join(lines))
    (root / "classes.txt").write_text("helmet\nnone\n")


def as_coco(root: Path, images: dict[str, Boxes]) -> None:
    (root / "JPEGImages").rename(root / "images")
    shutil.rmtree(root / "Annotations")
    rows = [{"id": i, "file_name": f"{stem}.jpg", "height": 48, "width": 64} for i, stem in enumerate(images)]
    boxes = [(i, n, box) for i, objects in enumerate(images.values()) for n, box in objects]
    annotations = [
        {"id": j, "image_id": i, "category_id": ["helmet", "none"].index(n), "bbox": [a, b, c - a, d - b]}
        for j, (i, n, (a, b, c, d)) in enumerate(boxes)
    ]
    categories = [{"id": 0, "name": "helmet"}, {"id": 1, "name": "none"}]
    (root / "train.json").write_text(json.dumps({"images": rows, "annotations": annotations, "categories": categories}))


corner = st.integers(-20, 90).map(float)
objects = st.lists(st.tuples(st.sampled_from(["helmet", "none"]), st.tuples(corner, corner, corner, corner)), max_size=4)


@settings(max_examples=8)
@given(
    images=st.fixed_dictionaries(dict.fromkeys("abcd", objects)),
    format=st.sampled_from(["voc", "yolo", "coco"]),
    same=st.booleans(),
    splits=st.sampled_from([{}, {"trainval": "abc", "test": "d"}, {"trainval": "abcda", "test": "ad"}]),
)
def test_fix_passes_the_audit_and_changes_nothing_the_second_time(
    make_voc: Callable[..., Path], images: dict[str, Boxes], format: str, same: bool, splits: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = make_voc(Path(folder) / "data", images, splits if format == "voc" else {}, SIZE)
        if same:
            shutil.copyfile(root / "JPEGImages" / "a.jpg", root / "JPEGImages" / "d.jpg")
        if format != "voc":
            shutil.rmtree(root / "ImageSets")
            (as_yolo if format == "yolo" else as_coco)(root, images)
        before, first, second = content(root), Path(folder) / "first", Path(folder) / "second"
        try:
            run(root, first)
        except UserError as error:
            assert "no image can be corrected" in str(error)
            assert not first.exists()
        else:
            again = run(first, second)
            assert (again.changes, again.left_out) == ([], 0)
            assert content(first) == content(second)
            assert not AnnotatedDataset.open(first, progress=False).errors
            assert open_source(first).format == open_source(root).format
        assert content(root) == before
        assert not list(Path(folder).glob(".*"))


def test_fix_corrects_single_boxes_and_lists_the_changes(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes: dict[str, Boxes] = {
        "good": [("helmet", (5, 5, 20, 20)), ("none", (5.5, 6.25, 20, 20))],
        "swapped": [("helmet", (40, 5, 20, 30))],
        "beyond": [("none", (-3, 5, 70, 30))],
        "twice": [("helmet", (5, 5, 20, 20)), ("helmet", (5, 5, 20, 20)), ("none", (5, 5, 20, 20))],
        "empty": [("helmet", (5, 5, 5, 20)), ("helmet", (5, 5, 20, 20))],
    }
    result = run(make_voc(tmp_path / "voc", boxes), tmp_path / "out")
    assert objects_of(tmp_path / "out") == {
        "good": boxes["good"],
        "swapped": [("helmet", (20, 5, 40, 30))],
        "beyond": [("none", (0, 5, 64, 30))],
        "twice": [("helmet", (5, 5, 20, 20)), ("none", (5, 5, 20, 20))],
    }
    rows = json.loads((tmp_path / "out" / CHANGES_FILE).read_text())["changes"]
    assert [(Path(r["file"]).stem, r["code"], r["left_out"]) for r in rows] == [
        ("beyond", "box-beyond", False),
        ("empty", "empty-box", True),
        ("swapped", "swapped-corners", False),
        ("twice", "duplicate-box", False),
    ]
    assert (len(result.changes), result.left_out, result.images) == (4, 1, {"all": 4})


@pytest.mark.parametrize(
    ("lines", "box"),
    [
        (("60 24 8 10", "4 24 8 10"), (56, 19, 64, 29)),  # centre and size
        (("40 5 60 40", "2 20 30 45"), (40, 5, 60, 40)),  # corners
        (("50 2 10 40", "0 20 30 25"), (50, 2, 60, 42)),  # corner and size
        (("30 20 31 21",), None),  # centre or corners
    ],
)
def test_fix_normalises_pixels_if_one_reading_fits_all_boxes(
    make_voc: Callable[..., Path], tmp_path: Path, lines: tuple[str, ...], box: tuple[float, ...] | None
) -> None:
    root = make_voc(tmp_path / "yolo", ["a", "b", "c"])
    as_yolo(root, {"c": [("none", (5, 5, 20, 20))]})
    for stem, line in zip("ab", lines, strict=False):
        (root / "labels" / f"{stem}.txt").write_text(f"0 {line}\n")
    result = run(root, tmp_path / "out")
    found = objects_of(tmp_path / "out")
    assert result.left_out == (box is None)
    assert found.get("a") == (None if box is None else [("helmet", box)])
    assert found["c"] == [("none", (5, 5, 20, 20))]


def test_fix_scales_boxes_of_resized_images(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes = {"a": [("helmet", (70, 8, 90, 30))], "b": [("helmet", (10, 10, 20, 30))]}
    root = make_voc(tmp_path / "voc", boxes, size=(96, 128))
    for path in (root / "JPEGImages").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), SIZE[::-1]))
    run(root, tmp_path / "out")
    # b fits both sizes; a proves what happened
    assert objects_of(tmp_path / "out") == {"a": [("helmet", (35, 4, 45, 15))], "b": [("helmet", (5, 5, 10, 15))]}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_fix_rotates_boxes_with_the_image(
    make_voc: Callable[..., Path], tmp_path: Path, picture: Callable, orientation: int
) -> None:
    root = make_voc(tmp_path / "voc", {"a": [("helmet", (50, 4, 60, 24))], "b": []})
    stored = np.zeros((*SIZE, 3), dtype=np.uint8)
    stored[4:24, 50:60] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(root / "JPEGImages" / "a.jpg", exif=exif, quality=100)
    run(root, tmp_path / "out")
    ((_, box),) = objects_of(tmp_path / "out")["a"]
    upright = cv2.imread(str(tmp_path / "out" / "JPEGImages" / "a.jpg"))  # rotated by OpenCV
    rows, columns = np.nonzero(upright.mean(2) > 128)
    assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_fix_leaves_out_what_a_tool_has_lost(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    wrong: dict[str, Boxes] = {"a": [("helmet", (20, 5, 40, 20))], "b": [("helmet", (5, 10, 20, 5)), ("none", (9, 30, 12, 9))]}
    result = run(make_voc(tmp_path / "voc", {**wrong, "c": []}), tmp_path / "out")
    assert objects_of(tmp_path / "out") == {"c": []}
    assert ("ymax-is-xmin", True) in {(c.code, c.left_out) for c in result.changes}


def test_fix_keeps_one_of_two_annotations_of_an_image(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    make_voc(tmp_path, ["a", "b"])
    (tmp_path / "voc_train.txt").write_text("JPEGImages/a.jpg 1,2,30,40,helmet\nJPEGImages/b.jpg 1,2,30,40,none\n")
    (tmp_path / "voc_val.txt").write_text("JPEGImages/a.jpg 1,2,30,40,helmet\n")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("JPEGImages", "voc_train.txt", "voc_val.txt"):
        (tmp_path / name).rename(lists / name)
    result = run(lists, tmp_path / "out")
    assert result.images == {"train": 1, "val": 1}
    assert [c.code for c in result.changes] == ["same-image-across-splits"]


@pytest.mark.parametrize(("out", "why"), [("voc", "one that exists"), ("voc/out", "one inside"), ("file", "one that exists")])
def test_fix_refuses_a_folder_that_exists_or_lies_in_the_data(
    make_voc: Callable[..., Path], tmp_path: Path, out: str, why: str
) -> None:
    root = make_voc(tmp_path / "voc", ["a"])
    (tmp_path / "file").write_text("")
    before = content(tmp_path)
    with pytest.raises(UserError, match=why):
        run(root, tmp_path / out)
    assert content(tmp_path) == before


def test_fix_that_fails_leaves_nothing(make_voc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_voc(tmp_path / "voc", ["a"])

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fix_module, "copy_image", fail)
    with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\)"):
        run(root, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]


def test_fix_command_prints_changes_and_fails_if_images_are_left_out(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    boxes: dict[str, Boxes] = {name: [("helmet", (40, 5, 20, 30)), ("none", (5, 5, 20, 20))] for name in "abcde"}
    root = make_voc(tmp_path / "voc", {**boxes, "f": [("helmet", (5, 5, 5, 9))]})
    assert run_cli("audit", "--fix", root, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr().out
    assert "5 corrections; images: all 5" in printed
    assert "and 2 more" in printed
    assert run_cli("audit", "--fix", tmp_path / "out", "--out", tmp_path / "again") == 0
    assert run_cli("audit", tmp_path / "out") == 0
    assert run_cli("audit", "--fix", root) == 2
    assert "--out: expected --fix and --out together, got --fix alone" in capsys.readouterr().err
