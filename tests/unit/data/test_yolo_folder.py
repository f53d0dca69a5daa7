"""YOLO folders, as Ultralytics, Roboflow, Label Studio and LabelImg write them."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.open_source import open_source

FUZZ = int(os.environ.get("PPE_YOLO_FUZZ", "300"))
LABEL = "0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.3 0.2 0.3 0.6\n"
BOXES = [("helmet", (24, 12, 40, 36)), ("none", (6.4, 9.6, 19.2, 28.8))]


@pytest.fixture
def make_yolo(picture: Callable) -> Callable[..., Path]:
    def make(root: Path, *images: str, **config: object) -> Path:
        """Draws 48x64 images with one box and one segment each; writes data.yaml if `config` is given."""
        for name in images:
            path = root / name
            label = Path(str(path.with_suffix(".txt")).replace("/images/", "/labels/"))
            for folder in (path.parent, label.parent):
                folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(name))
            label.write_text(LABEL)
        if config:
            (root / "data.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        else:
            (root / "classes.txt").write_text("helmet\nnone\n")
        return root

    return make


def boxes(root: Path) -> dict[str, list[tuple[str, list]]]:
    source = open_source(root)
    assert source.format == "YOLO"
    entries = {split: [source.read(key) for key in keys] for split, keys in source.splits.items()}
    return {
        split: [(Path(e.image.image).name, [(o.class_name, o.box_xyxy) for o in e.image.objects]) for e in part]
        for split, part in entries.items()
    }


@pytest.mark.parametrize(
    ("files", "config"),
    [
        (("images/train/a.jpg", "images/val/b.jpg"), {"path": ".", "train": "images/train", "val": "images/val"}),
        (("images/train/a.jpg", "images/val/b.jpg"), {"path": "../datasets/x", "train": "images/train", "val": "images/val"}),
        (("train/images/a.jpg", "valid/images/b.jpg"), {"train": "../train/images", "val": "../valid/images"}),  # Roboflow
        (
            ("train/images/a.jpg", "valid/images/b.jpg"),
            {"train": "/content/x/train/images", "valid": "/content/x/valid/images"},
        ),
        (("train/a.jpg", "val/b.jpg"), {"train": ["train"], "val": ["val/b.jpg"]}),
    ],
)
def test_yolo_splits_come_from_data_yaml(make_yolo: Callable[..., Path], tmp_path: Path, files: tuple, config: dict) -> None:
    root = make_yolo(tmp_path, *files, names=["helmet", "none"], nc=2, **config)
    assert boxes(root) == {"train": [("a.jpg", BOXES)], "val": [("b.jpg", BOXES)]}


def test_yolo_lists_of_files_and_mapping_of_names_are_read(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", "images/b.jpg", names={0: "helmet", 1: "none"}, train="train.txt", val="v.txt")
    (root / "train.txt").write_text("./images/a.jpg\n\n")
    (root / "v.txt").write_text(f"{root}/images/b.jpg\n")
    assert boxes(root) == {"train": [("a.jpg", BOXES)], "val": [("b.jpg", BOXES)]}
    assert open_source(root / "data.yaml").splits == open_source(root).splits


def test_yolo_without_data_yaml_needs_class_names(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    assert boxes(make_yolo(tmp_path / "flat", "images/a.jpg")) == {"all": [("a.jpg", BOXES)]}
    nested = make_yolo(tmp_path / "nested", "images/Train/a.jpg", "images/valid/b.jpg")
    assert boxes(nested) == {"train": [("a.jpg", BOXES)], "val": [("b.jpg", BOXES)]}
    (nested / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"expected the names of the classes in data.yaml or classes.txt, got neither"):
        open_source(nested)


def test_yolo_image_without_label_is_background(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", "images/b.jpg")
    (root / "labels" / "a.txt").unlink()
    (root / "labels" / "b.txt").write_text("\n")
    assert boxes(root) == {"all": [("a.jpg", []), ("b.jpg", [])]}


@pytest.mark.parametrize(
    "rename",
    [
        {"labels/train/a.txt": "labels/train/1f0-a.txt"},  # Label Studio's names
        {"labels/val": "label"},  # the other split has labels
        {"labels": "label"},
        {"labels/train/a.txt": "a.txt"},
    ],
)
def test_yolo_labels_of_no_image_raise(make_yolo: Callable[..., Path], tmp_path: Path, rename: dict[str, str]) -> None:
    root = make_yolo(
        tmp_path, "images/train/a.jpg", "images/val/b.jpg", names=["helmet", "none"], train="images/train", val="images/val"
    )
    for old, new in rename.items():
        (root / old).rename(root / new)
    with pytest.raises(
        UserError, match=r"data.yaml: \w+: expected a label file for .*, got none for 1 images.*without objects, add empty"
    ):
        open_source(root)


@pytest.mark.parametrize("text", ["runs/detect/labels/a.txt", "detected/labels/a.txt", "notes/2024.txt"])
def test_yolo_images_without_objects_may_lie_next_to_other_texts(
    make_yolo: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", names=["helmet", "none"], train="images")
    (root / "labels" / "a.txt").unlink()
    (root / text).parent.mkdir(parents=True)
    (root / text).write_text("0 .5 .5 .1 .1 .9\n" if "detected" in text else "0 .5 .5 .1 .1\n")
    assert boxes(root) == {"train": [("a.jpg", [])]}


@pytest.mark.parametrize(("folder", "file"), [("data", "notes.md"), ("images", "notes.md"), ("img", "sheet.jpg")])
def test_yolo_folder_of_other_files_hides_no_images(
    make_yolo: Callable[..., Path], tmp_path: Path, folder: str, file: str
) -> None:
    flat = make_yolo(tmp_path / "flat", "a.jpg")
    split = make_yolo(tmp_path / "split", "train/images/a.jpg", "valid/images/b.jpg")
    for root in (flat, split):
        (root / folder).mkdir()
    (flat / folder / "notes.md").write_text("x")
    (split / folder / file).write_text("x")
    assert boxes(flat) == {"all": [("a.jpg", BOXES)]}
    assert boxes(split) == {"train": [("a.jpg", BOXES)], "val": [("b.jpg", BOXES)]}


def test_yolo_labels_next_to_images_count_although_labels_is_empty(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "data/a.jpg")
    (root / "labels").mkdir()
    assert boxes(root) == {"all": [("a.jpg", BOXES)]}


def test_yolo_folder_that_is_no_split_is_reported(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/train/a.jpg", "images/default/b.jpg")
    assert boxes(root) == {"train": [("a.jpg", BOXES)]}
    assert [(p.code, Path(p.file).name) for p in open_source(root).problems] == [("unused-folder", "default")]


def test_yolo_test_split_without_labels_is_ignored_with_a_warning(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "train/images/a.jpg", "test/images/b.jpg")
    (root / "test" / "labels" / "b.txt").unlink()
    source = open_source(root)
    assert list(source.splits) == ["train"]
    assert [(p.severity, p.code, p.item) for p in source.problems] == [("warning", "missing-split", "test")]


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "images"), ("JPEGImages", "labels"), ("obj_train_data/cam", "obj_train_data/cam")]
)
def test_yolo_labels_are_next_to_images_or_in_labels(
    make_yolo: Callable[..., Path], tmp_path: Path, images: str, labels: str
) -> None:
    root = make_yolo(tmp_path, "a/b/a.jpg")
    (root / images).mkdir(parents=True)
    (root / labels).mkdir(parents=True, exist_ok=True)
    (root / "a/b/a.jpg").rename(root / images / "a.JPG")
    (root / "a/b/a.txt").rename(root / labels / "a.TXT")
    (root / "classes.txt").rename(root / "Classes.txt")
    (root / "train.txt").write_text(f"data/{images}/a.jpg\n")
    assert boxes(root) == {"train": [("a.JPG", BOXES)]}


def test_yolo_pose_labels_give_their_boxes(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", names=["helmet", "none"], train="images", kpt_shape=[2, 3])
    (root / "labels" / "a.txt").write_text("0 .5 .5 .25 .5 .1 .1 2 .9 .9 1\n")
    assert boxes(root) == {"train": [("a.jpg", BOXES[:1])]}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("2 .5 .5 .1 .1", "expected a class from 0 to 1 (helmet, none), got 2"),
        ("0.5 .5 .5 .1 .1", "expected a class from 0 to 1"),
        ("0 320 240 50 60", "these look like pixels, but other lines of the file do not"),
        ("0 .5 .5 .1", "expected class x y width height, or class x1 y1 x2 y2 x3 y3 ..., got 4 numbers"),
        ("0 .5 .5 .1 .1 .9", "scores are no part of a label"),
        ("helmet .5 .5 .1 .1", "write the number of the class instead of its name"),
        ("0 0,5 0,5 0,1 0,1", "write 0.5 instead of 0,5"),
        ("0,.5,.5,.1,.1", "separate the numbers by spaces"),
        ("0 nan .5 .1 .1", "expected a class number"),
    ],
)
def test_yolo_malformed_label_raises_with_file_and_line(
    make_yolo: Callable[..., Path], tmp_path: Path, line: str, why: str
) -> None:
    root = make_yolo(tmp_path, "images/a.jpg")
    (root / "labels" / "a.txt").write_text(f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(AnnotationError) as raised:
        open_source(root).read("images/a.jpg")
    assert str(raised.value).startswith(f"{root}/labels/a.txt:2: ")
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"names": ["a"], "train": "../outside"}, r"train: expected a path inside .*, got ../outside \(outside\)"),
        ({"names": ["a"], "train": "gone"}, r"train: expected a path inside .*, got gone \(no such file or folder\)"),
        ({"names": ["a", "a"], "train": "images"}, "names: expected each name once, got 'a' twice"),
        ({"names": {1: "a"}, "train": "images"}, "names: expected the numbers 0, 1, 2"),
        ({"names": [True], "train": "images"}, "names: expected names as text"),
        ({"names": ["a"], "nc": 2, "train": "images"}, "nc: expected 1, the number of names, got 2"),
        ({"names": ["a"], "train": 5}, "train: expected a path, got 5"),
    ],
)
def test_yolo_invalid_data_yaml_raises(make_yolo: Callable[..., Path], tmp_path: Path, config: dict, why: str) -> None:
    make_yolo(tmp_path / "outside", "images/x.jpg")
    root = make_yolo(tmp_path / "root", "images/a.jpg", **config)
    with pytest.raises(UserError, match=why):
        open_source(root)


@pytest.mark.parametrize(("classes", "codes"), [("none\nhelmet\n", ["class-order"]), ("helmet\nnone\n", [])])
def test_yolo_classes_in_another_order_warn(
    make_yolo: Callable[..., Path], tmp_path: Path, classes: str, codes: list[str]
) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", names=["helmet", "none"], train="images")
    (root / "labels" / "classes.txt").write_text(classes)
    source = open_source(root)
    assert [p.code for p in source.problems] == codes
    assert source.class_names == ["helmet", "none"]


def test_yolo_data_yaml_with_aliases_raises(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg")
    (root / "data.yaml").write_text("a: &a [x, x]\nnames: [*a, *a]\ntrain: images\n")
    with pytest.raises(UserError, match="expected YAML without aliases"):
        open_source(root)


def test_yolo_mutated_files_are_read_or_raise(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", names=["helmet", "none"], nc=2, path=".", train="images")
    rng, outcomes = random.Random(3), {"read": 0, "refused": 0}
    files = {path: path.read_bytes() for path in (root / "data.yaml", root / "labels" / "a.txt")}
    pieces = [b"", b"0", b"7", b".", b"-", b"x", b"\x00", b"\xff", b"\n"]
    pieces += [b" ", b"9" * 400, b"nan", b"[", b"{", b"&a ", b"*a", b"../", b"1e999", b": "]
    for number in range(FUZZ):
        path = list(files)[number % 2]
        data = files[path]
        a = rng.randrange(len(data) + 1)
        data = data[:a] + rng.choice(pieces) + data[a + rng.randint(0, 2) :]
        path.write_bytes(data)
        try:
            source = open_source(root)
            for key in source.splits.get("train", []):
                source.read(key)
            outcomes["read"] += 1
        except UserError as error:
            assert str(root) in str(error)
            outcomes["refused"] += 1
        path.write_bytes(files[path])
    assert min(outcomes.values()) > FUZZ / 20


def test_yolo_missing_split_is_a_warning_if_another_one_exists(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "train/images/a.jpg", names={"0": "helmet"}, train="../train/images", test="../test/images")
    source = open_source(root)
    assert list(source.splits) == ["train"]
    (problem,) = source.problems
    assert (problem.code, problem.item) == ("missing-split", "test")
    assert problem.message == (
        "../test/images (no such file or folder): the split test is ignored; correct the path, or remove the key"
    )


@pytest.mark.parametrize("gone", [{"val": "gone"}, {"val": ["images", "gone"]}, {"test": ["images", "gone"]}])
def test_yolo_missing_part_of_a_split_raises(make_yolo: Callable[..., Path], tmp_path: Path, gone: dict) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", names=["helmet", "none"], train="images", **gone)
    with pytest.raises(UserError, match=rf"{next(iter(gone))}: .*got gone \(no such file or folder\): correct the path"):
        open_source(root)


def test_yolo_two_lists_of_one_split_without_data_yaml_raise(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", "images/b.jpg")
    for name, image in (("val", "a"), ("valid", "b")):
        (root / f"{name}.txt").write_text(f"images/{image}.jpg\n")
    with pytest.raises(UserError, match="expected one of val and valid, got both"):
        open_source(root)


def test_yolo_labels_named_like_splits_are_no_lists(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "test.jpg", "val.jpg")
    (root / "val.txt").write_text("")  # a background image
    (root / "train.txt").write_text(LABEL)  # its image is gone
    assert boxes(root) == {"all": [("test.jpg", BOXES), ("val.jpg", [])]}


def test_yolo_images_in_no_list_are_reported(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg", "images/b.jpg")
    (root / "train.txt").write_text("images/../images/a.jpg\n")
    source = open_source(root)
    assert [len(keys) for keys in source.splits.values()] == [1]
    assert [(p.code, p.file, p.message) for p in source.problems] == [
        ("in-no-split", str(root / "images" / "b.jpg"), "not in train.txt: not used")
    ]


def test_yolo_two_labels_of_one_image_raise(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "images/a.jpg")
    (root / "labels" / "a.TXT").write_text(LABEL)
    with pytest.raises(AnnotationError, match=r"got a.txt as well: keep the right one, and remove the other"):
        open_source(root).read("images/a.jpg")


def test_yolo_lists_of_classes_in_different_orders_raise(make_yolo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_yolo(tmp_path, "train/a.jpg", names=["helmet"], train="train")
    (root / "data.yaml").unlink()
    for folder, names in (("train", "helmet\nnone\n"), ("test", "none\nhelmet\n")):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "classes.txt").write_text(names)
    with pytest.raises(UserError, match=r"train/classes.txt: expected none, helmet, as in .*, got helmet, none"):
        open_source(root)
