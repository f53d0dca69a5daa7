"""A prepared data set: training sees the same images and objects as in the original."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.prepare import prepare

RunCli = Callable[..., int]
HEADS = {
    "gate.1": [("helmet", (8, 8, 30, 30)), ("head", (32, 4, 50, 28))],
    "crane": [("head", (1.5, 2.25, 20, 21))],
    "yard": [("person", (2, 2, 60, 46)), ("helmet", (10, 10, 24, 22))],
    "ramp": [],
}


def plain(root: Path, class_map: str) -> dict[str, list[tuple]]:
    splits = AnnotatedDataset.open(root, class_map, progress=False).splits
    return {split: [(i.image_id, replace(i).objects) for i in images] for split, images in splits.items()}


def test_prepare_keeps_images_objects_and_display_names(make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli) -> None:
    root = make_voc(tmp_path / "data", HEADS, {"trainval": ["gate.1", "crane", "ramp"], "test": ["yard"]})
    out = tmp_path / "moved" / "ready"
    assert run_cli("prepare", root, "--class-map", "hard-hat-workers", "--out", tmp_path / "ready") == 0
    (tmp_path / "moved").mkdir()
    (tmp_path / "ready").rename(out)  # the folder can be mounted anywhere
    expected = plain(root, "hard-hat-workers")
    assert plain(out, str(out / "class_map.yaml")) == expected
    assert [o.class_name for _, objects in expected["trainval"] for o in objects] == ["helmet", "none", "none"]
    for name in ("gate.1", "yard"):
        assert (out / f"JPEGImages/{name}.jpg").read_bytes() == (root / f"JPEGImages/{name}.jpg").read_bytes()
    assert (out / "voc_test.txt").read_text() == "JPEGImages/yard.jpg 10,10,24,22,helmet\n"
    assert load_class_map(out / "class_map.yaml").display_names == {"none": "bare head"}
    assert run_cli("audit", out / "voc_trainval.txt", "--class-map", out / "class_map.yaml") == 0


def test_prepare_errors_stop_or_are_skipped(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "data", ["a", "b", "c"], {"trainval": ["a", "b"], "test": ["c"]})
    (root / "JPEGImages/b.jpg").write_bytes(b"no image")
    assert run_cli("prepare", root, "--out", tmp_path / "ready") == 2
    assert "1 error in the data" in capsys.readouterr().err
    assert not (tmp_path / "ready/Annotations").exists()
    problems = json.loads((tmp_path / "ready/audit.json").read_text())["problems"]
    assert [p["severity"] for p in problems].count("error") == 1
    assert run_cli("prepare", root, "--out", tmp_path / "ready", "--on-error", "skip") == 0
    assert (tmp_path / "ready/ImageSets/Main/trainval.txt").read_text() == "a\n"


def test_prepare_two_images_of_one_name_raises(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("one", "a"), ("two", "b")):
        make_voc(tmp_path / folder, [name])
    (tmp_path / "two/JPEGImages/b.jpg").rename(tmp_path / "two/JPEGImages/a.jpg")
    lines = [f"{folder}/JPEGImages/a.jpg 8,8,30,30,helmet\n" for folder in ("one", "two")]
    (tmp_path / "voc_trainval.txt").write_text("".join(lines))
    assert run_cli("prepare", tmp_path / "voc_trainval.txt", "--out", tmp_path / "ready") == 2
    assert "would both be named a: rename one of them" in capsys.readouterr().err


def test_list_command_writes_absolute_paths_or_prefix(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "data", {"a": [("head", (8, 8, 30, 30))], "b": []}, {"trainval": ["a"], "test": ["b"]})
    command = ("list", root, "--class-map", "hard-hat-workers", "--out", tmp_path / "lists")
    assert run_cli(*command) == 0
    assert f"{tmp_path}/lists/voc_trainval.txt: 1 images, 1 objects" in capsys.readouterr().out
    assert (tmp_path / "lists/voc_trainval.txt").read_text() == f"{root}/JPEGImages/a.jpg 8,8,30,30,none\n"
    assert run_cli(*command, "--prefix", "https://host/container/") == 0
    assert (tmp_path / "lists/voc_trainval.txt").read_text() == "https://host/container/a.jpg 8,8,30,30,none\n"
    assert (tmp_path / "lists/voc_test.txt").read_text() == "https://host/container/b.jpg\n"


@pytest.mark.parametrize("format", ["voc", "yolo", "coco"])
def test_prepare_formats_keep_boxes_names_and_splits(make_voc: Callable[..., Path], tmp_path: Path, format: str) -> None:
    objects = {
        "ä 1": [("helmet", (1.5, 2, 33.3333, 40.123456)), ("none", (8, 8, 30, 31))],
        "b.c": [("none", (7, 5, 19, 23.7))],
        "background": [],
    }
    root = make_voc(tmp_path / "voc", objects, {"train": ["ä 1", "background"], "val": ["b.c"], "trainval": ["ä 1", "b.c"]})
    xml = root / "Annotations" / "b.c.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1"))
    before = prepare(root, tmp_path / "out", format=format)
    after = AnnotatedDataset.open(tmp_path / "out", tmp_path / "out" / "class_map.yaml", progress=False)
    assert after.format == {"voc": "Pascal VOC", "yolo": "YOLO", "coco": "COCO"}[format]

    def content(dataset: AnnotatedDataset) -> dict[str, list]:
        return {
            split: sorted(
                (Path(i.image).name, [(o.class_name, o.box_xyxy, o.difficult and format != "yolo") for o in i.objects])
                for i in images
            )
            for split, images in dataset.splits.items()
        }

    assert content(after) == content(before)
    assert {i.image_id for part in after.splits.values() for i in part} == {"ä 1", "b.c", "background"}
    assert [len(images) for images in after.splits.values()] == [len(before.splits[split]) for split in after.splits]


def test_prepare_same_names_in_split_folders_get_split_in_front(make_voc: Callable[..., Path], tmp_path: Path, picture) -> None:
    for split in ("train", "test"):
        folder = make_voc(tmp_path / "in" / split, ["a"])
        image = picture(split)
        cv2.imwrite(str(folder / "JPEGImages" / "a.jpg"), image)
    prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "JPEGImages").iterdir()) == ["test_a.jpg", "train_a.jpg"]


def test_prepare_into_files_of_others_raises(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "data", ["a"], {"trainval": ["a"], "test": []})
    other = make_voc(tmp_path / "other", ["a"], {"trainval": ["a"], "test": []})
    (other / "JPEGImages/a.jpg").write_bytes(b"an image of somebody else")
    assert run_cli("prepare", root, "--out", other) == 2
    assert "expected a new or empty folder, or one that prepare wrote" in capsys.readouterr().err
    assert (other / "JPEGImages/a.jpg").read_bytes() == b"an image of somebody else"
    assert run_cli("prepare", root, "--out", root) == 2
    assert "the data set itself" in capsys.readouterr().err
    assert run_cli("prepare", root, "--out", root / "new") == 2
    assert "expected a folder outside of the data set" in capsys.readouterr().err and not (root / "new").exists()


def test_prepare_refuses_a_file_and_ignores_files_of_the_system(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "data", ["a"], {"trainval": ["a"], "test": []})
    out = tmp_path / "out"
    out.write_text("mine")
    assert run_cli("prepare", root, "--out", out) == 2
    assert f"expected a folder, got the file {out}" in capsys.readouterr().err
    assert out.read_text() == "mine"
    out.unlink()
    out.mkdir()
    (out / ".DS_Store").write_text("")
    assert run_cli("prepare", root, "--out", out) == 0


def test_prepare_again_replaces_an_image_of_equal_size(make_voc: Callable[..., Path], tmp_path: Path, run_cli: RunCli) -> None:
    root = make_voc(tmp_path / "data", ["a"], {"trainval": ["a"], "test": []})
    assert run_cli("prepare", root, "--out", tmp_path / "ready") == 0
    copy, image = tmp_path / "ready/JPEGImages/a.jpg", (root / "JPEGImages/a.jpg").read_bytes()
    copy.write_bytes(bytes(len(image)))
    assert run_cli("prepare", root, "--out", tmp_path / "ready") == 0
    assert copy.read_bytes() == image
