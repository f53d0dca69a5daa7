"""Inputs that users really have, in every format: read, or refused with the right advice."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.sources.open_source import open_source

MakeVoc = Callable[..., Path]
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(1000)


def opened(root: Path) -> AnnotatedDataset:
    return AnnotatedDataset.open(root, on_error="skip", progress=False)


@pytest.fixture
def make_yolo(make_voc: MakeVoc, tmp_path: Path) -> Callable[[], Path]:
    """48x64 images a and b with one helmet each, labels and classes.txt."""

    def make() -> Path:
        root = make_voc(tmp_path / "yolo", ["a", "b"])
        (root / "JPEGImages").rename(root / "images")
        (root / "labels").mkdir()
        for stem in "ab":
            (root / "labels" / f"{stem}.txt").write_text("0 .5 .5 .25 .25\n")
        (root / "classes.txt").write_text("helmet\nnone\n")
        for folder in ("Annotations", "ImageSets"):
            shutil.rmtree(root / folder)
        return root

    return make


@pytest.fixture
def make_coco(make_voc: MakeVoc, tmp_path: Path) -> Callable[..., Path]:
    def make(images: list[dict[str, Any]], annotations: list[dict[str, Any]], category: object = 1) -> Path:
        root = make_voc(tmp_path / "coco", ["a", "b"])
        categories = [{"id": category, "name": "helmet"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "train.json").write_text(json.dumps(content))
        return root / "train.json"

    return make


def boxes_of(root: Path) -> dict[str, list[tuple[float, ...]]]:
    source = open_source(root)
    images = [source.read(key).image for keys in source.splits.values() for key in keys]
    return {Path(image.image).stem: [o.box_xyxy for o in image.objects] for image in images}


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_open_source_asks_to_unpack_an_archive(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.xml", "<annotation/>")
    with pytest.raises(UserError, match="expected a folder, got an archive: unpack it"):
        open_source(path)
    with pytest.raises(UserError, match=f"unpack {name}"):
        open_source(path.parent)


def test_open_source_enters_folders_that_hold_nothing_else(make_voc: MakeVoc, tmp_path: Path) -> None:
    make_voc(tmp_path / "outer" / "VOCdevkit" / "VOC2028", ["a", "b"])
    (tmp_path / "outer" / "__MACOSX").mkdir()
    assert open_source(tmp_path / "outer").splits == {"all": ["a", "b"]}
    (tmp_path / "outer" / "VOCdevkit" / "other").mkdir()
    with pytest.raises(UserError, match="a folder with none of these"):
        open_source(tmp_path / "outer")


@pytest.mark.parametrize("suffix", [".heic", ".jpg"])
def test_audit_names_heic(make_voc: MakeVoc, tmp_path: Path, suffix: str) -> None:
    root = make_voc(tmp_path, ["a", "b"])
    (root / "JPEGImages" / "a.jpg").unlink()
    (root / "JPEGImages" / f"a{suffix}").write_bytes(HEIC)
    (problem,) = opened(root).errors
    assert "expected an image as JPEG, PNG, BMP, WebP or TIFF, got " in problem.message
    assert problem.message.endswith("convert it to JPEG")


def test_yolo_warns_of_heic_and_of_labels_without_an_image(make_yolo: Callable[[], Path]) -> None:
    root = make_yolo()
    (root / "images" / "c.HEIC").write_bytes(HEIC)
    (root / "labels" / "gone.txt").write_text("0 .5 .5 .2 .2\n")
    (root / "labels" / "classes.txt").write_text("helmet\nnone\n")
    problems = {p.code: p for p in open_source(root).problems}
    assert set(problems) == {"unsupported-image", "label-without-image"}
    assert problems["unsupported-image"].message == (
        "1 images are not used, such as c.HEIC: HEIC is not supported; convert them to JPEG"
    )
    assert problems["label-without-image"].files == (str(root / "labels" / "gone.txt"),)


def test_yolo_reads_windows_files(make_yolo: Callable[[], Path]) -> None:
    root = make_yolo()
    (root / "classes.txt").unlink()
    (root / "labels" / "a.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .25 .25\r\n\r\n")
    (root / "labels" / "b.txt").write_text("0\t.5\t.5\t.25\t.25  \r\n", encoding="utf-16")  # PowerShell
    (root / "train.txt").write_bytes(b"\xef\xbb\xbfD:\\me\\images\\a.jpg\r\n")
    (root / "val.txt").write_bytes(b"yolo\\images\\b.jpg\r\n")
    (root / "data.yaml").write_bytes(b"train: train.txt\r\nval: val.txt\r\ntest:\r\nnames: [helmet, none]\r\n")
    assert open_source(root).splits == {"train": ["images/a.jpg"], "val": ["images/b.jpg"]}
    assert boxes_of(root) == {"a": [(24, 18, 40, 30)], "b": [(24, 18, 40, 30)]}


def test_yolo_follows_links_of_the_user(make_yolo: Callable[[], Path], tmp_path: Path) -> None:
    root = make_yolo()
    (root / "images").rename(tmp_path / "store")
    (root / "images").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "a.jpg").rename(tmp_path / "elsewhere.jpg")
    (tmp_path / "store" / "a.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert boxes_of(root) == {"a": [(24, 18, 40, 30)], "b": [(24, 18, 40, 30)]}


def test_coco_yaml_and_class_map_are_read_in_utf_16(tmp_path: Path, picture: Callable) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture("a"))
    values = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20]}],
        "categories": [{"id": 1, "name": "Schutzhelm für alle"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-16")
    assert open_source(tmp_path).read("train:1").image.objects[0].class_name == "Schutzhelm für alle"
    mine = tmp_path / "mine.yaml"
    mine.write_text("class_names: [helmet]\nmap: {Schutzhelm für alle: helmet}\n", encoding="utf-16")
    assert load_class_map(mine).mapping == {"Schutzhelm für alle": "helmet"}
    (tmp_path / "yolo/images").mkdir(parents=True)
    (tmp_path / "yolo/data.yaml").write_text("train: images\nnames: [für]\n", encoding="utf-16")
    cv2.imwrite(str(tmp_path / "yolo/images/a.png"), picture("a"))
    assert open_source(tmp_path / "yolo").class_names == ["für"]
    for file, read in (("train.json", open_source), ("mine.yaml", load_class_map), ("yolo/data.yaml", open_source)):
        path = tmp_path / file
        path.write_text(path.read_text("utf-16"), encoding="latin-1")  # Windows writes no UTF-8 unless it is told to
        with pytest.raises(UserError, match=f"^{path}: expected a UTF-8 text file, got .*: save it as UTF-8$"):
            read(path)


def test_voc_reads_utf_16_and_names_that_look_quoted(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a%20b", "c d"], {"train": ["a%20b"], "val": ["c d"]})
    xml = root / "Annotations" / "a%20b.xml"
    text = xml.read_text().partition("?>")[2] or xml.read_text()
    xml.write_text('<?xml version="1.0" encoding="utf-16"?>\n' + text, encoding="utf-16")
    (root / "ImageSets" / "Main" / "val.txt").write_bytes(b"\xef\xbb\xbfE:\\JPEGImages\\c d.jpg\r\n")
    dataset = opened(root)
    assert {split: [i.image_id for i in part] for split, part in dataset.splits.items()} == {"train": ["a%20b"], "val": ["c d"]}
    assert not dataset.errors


def test_voc_takes_splits_from_the_lists_of_classes_if_there_are_no_others(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b"], {"helmet_train": ["a.jpg 1"], "none_train": ["a.jpg -1"], "none_val": ["b.jpg 1"]})
    assert open_source(root).splits == {"train": ["a"], "val": ["b"]}


def test_voc_list_named_default_is_no_split(make_voc: MakeVoc, tmp_path: Path) -> None:
    assert open_source(make_voc(tmp_path, ["a", "b"], {"default": ["a", "b"]})).splits == {"all": ["a", "b"]}  # CVAT


def test_coco_reads_ids_as_text_in_any_mix(make_coco: Callable[..., Path]) -> None:
    images = [{"id": "0001", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}]
    annotations = [
        {"image_id": "0001", "category_id": "1", "bbox": [4, 5, 6, 7]},
        {"image_id": "2", "category_id": 1.0, "bbox": [1, 2, 3, 4]},
    ]
    assert boxes_of(make_coco(images, annotations)) == {"a": [(4, 5, 10, 12)], "b": [(1, 2, 4, 6)]}


def test_coco_scales_fractions_of_the_image(make_coco: Callable[..., Path]) -> None:
    images = [
        {"id": 1, "file_name": "AmlDatastore://x/a.jpg", "width": 64.0, "height": 48.0},
        {"id": 2, "file_name": "b.jpg"},  # its size is read from the image
    ]
    annotations = [{"image_id": i, "category_id": 1, "bbox": [0.25, 0.5, 0.5, 0.25]} for i in (1, 2)]
    annotations.append({"image_id": 2, "category_id": 1, "bbox": [0, 0, 1.03125, 1]})  # drawn a little beyond the edge
    assert boxes_of(make_coco(images, annotations)) == {"a": [(16, 24, 48, 36)], "b": [(16, 24, 48, 36), (0, 0, 66, 48)]}


def test_coco_file_in_annotations_finds_images_next_to_that_folder(make_coco: Callable[..., Path]) -> None:
    file = make_coco([{"id": 1, "file_name": "a.jpg"}], [{"image_id": 1, "category_id": 1, "bbox": [4, 5, 6, 7]}])
    moved = file.parent / "annotations" / file.name
    shutil.rmtree(file.parent / "Annotations")
    moved.parent.mkdir()
    assert boxes_of(file.rename(moved)) == {"a": [(4, 5, 10, 12)]}


def test_coco_name_with_a_signature_is_shown_without_it(make_coco: Callable[..., Path]) -> None:
    (problem,) = opened(make_coco([{"id": 1, "file_name": "https://host/gone.jpg?sig=secret"}], [])).errors
    assert "no such image https://host/gone.jpg:" in problem.message
    assert "secret" not in str(problem)


def test_list_of_addresses_next_to_images_is_no_data_set(make_yolo: Callable[[], Path]) -> None:
    root = make_yolo()
    shutil.rmtree(root / "labels")
    (root / "urls.txt").write_text("https://host.invalid/a.jpg\nhttps://host.invalid/b.jpg\n")
    with pytest.raises(UserError, match="a folder with none of these"):
        open_source(root)


def test_folder_of_images_alone_becomes_a_data_set_as_its_error_advises(make_yolo: Callable[[], Path]) -> None:
    images = make_yolo() / "images"
    with pytest.raises(UserError, match=f": give the whole data set, {images.parent}$"):
        open_source(images)
    shutil.rmtree(images.parent / "labels")
    with pytest.raises(UserError, match=r"move them into images, next to data\.yaml with names and `train: images`"):
        open_source(images)
    (images.parent / "data.yaml").write_text("names: [helmet, none]\ntrain: images\n")
    assert list(open_source(images.parent).splits) == ["train"]


def test_folder_of_data_sets_is_refused_with_one_of_their_names(make_voc: MakeVoc, tmp_path: Path) -> None:
    for name in ("gate 1", "gate 2"):
        make_voc(tmp_path / name, ["a"])
    with pytest.raises(UserError, match="give one of its folders, such as gate 1, or name them train, val and test"):
        open_source(tmp_path)


def test_coco_warns_once_of_annotations_without_image_and_images_listed_twice(make_coco: Callable[..., Path]) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "a.jpg"}]
    annotations = [{"image_id": i, "category_id": 1, "bbox": [4, 5, 6, 7]} for i in (1, 8, 9)]
    source = open_source(make_coco(images, annotations))
    assert source.splits == {"train": ["train:1"]}
    assert [(p.code, p.message.partition(":")[0]) for p in source.problems] == [
        ("listed-twice", "image 1 is listed twice"),
        ("annotation-without-image", "2 annotations belong to no image of the file, such as image 8"),
    ]


def test_image_whose_name_is_not_utf8_is_refused_by_name(make_yolo: Callable[[], Path]) -> None:
    folder = make_yolo()
    image = next(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    image.replace(image.with_name(os.fsdecode(b"\xff") + image.name))
    with pytest.raises(UserError, match=r"\\xff.*: its name is not valid UTF-8: rename the file"):
        opened(folder)


def test_error_about_an_unknown_format_names_the_folder_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "rf" / "train").mkdir(parents=True)
    (tmp_path / "rf" / "README.dataset.txt").write_text("Hard Hat\nhttps://universe.roboflow.com/x\n")
    with pytest.raises(UserError, match=r"/rf: expected a Pascal VOC folder"):
        open_source(tmp_path / "rf")


def test_folders_of_tools_are_ignored(make_yolo: Callable[[], Path]) -> None:
    root = make_yolo()
    for folder in (".ipynb_checkpoints", "@eaDir"):
        (root / "images" / folder).mkdir()
        shutil.copy(root / "images" / "a.jpg", root / "images" / folder / "a-copy.jpg")
    assert set(boxes_of(root)) == {"a", "b"}


def test_voc_warns_of_folders_whose_names_are_no_splits(make_voc: MakeVoc, tmp_path: Path) -> None:
    make_voc(tmp_path / "data" / "train", ["a"])
    make_voc(tmp_path / "data" / "dev", ["b"])
    source = open_source(tmp_path / "data")
    assert source.splits == {"train": ["a"]}
    assert [(p.code, p.file) for p in source.problems] == [("unused-folder", str(tmp_path / "data" / "dev"))]


def test_voc_reads_images_in_folders_of_splits_beside_all_annotations(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b"])
    for stem, folder in (("a", "train"), ("b", "Valid")):
        (root / "JPEGImages" / folder).mkdir()
        (root / "JPEGImages" / f"{stem}.jpg").rename(root / "JPEGImages" / folder / f"{stem}.jpg")
    assert open_source(root).splits == {"train": ["a"], "val": ["b"]}
    assert set(boxes_of(root)) == {"a", "b"}


@pytest.mark.parametrize(("annotations", "images"), [("labels", "images"), ("Annotation", "JPEGImage")])
def test_voc_reads_other_names_of_folders(make_voc: MakeVoc, tmp_path: Path, annotations: str, images: str) -> None:
    root = make_voc(tmp_path, ["a", "b"])
    (root / "Annotations").rename(root / annotations)
    (root / "JPEGImages").rename(root / images)
    assert set(boxes_of(root)) == {"a", "b"}
