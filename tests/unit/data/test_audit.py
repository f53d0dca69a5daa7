"""The audit, on a data set with one example of each known problem."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.data import dataset as dataset_module
from ppe_yolo.data.dataset import AnnotatedDataset, DatasetError
from ppe_yolo.data.sources import voc_folder
from ppe_yolo.data.sources.base import Problem
from ppe_yolo.data.sources.voc import VocAnnotation, read_voc_annotation

BOX = (8, 8, 30, 30)


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def problem_of(dataset: AnnotatedDataset, file: Path, code: str) -> Problem:
    """The one problem of this kind in this file."""
    (problem,) = [p for p in dataset.problems if (p.file, p.code) == (str(file), code)]
    assert "\n" not in problem.message
    return problem


def opened(root: Path, class_map: str = "default", **options: Any) -> AnnotatedDataset:
    return AnnotatedDataset.open(root, class_map, on_error="skip", progress=False, **options)


@pytest.fixture(scope="module")
def dirty(make_voc, picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image (48x64) for each kind of problem, and clean ones."""
    stems = {
        "zero_area": [("helmet", BOX), ("helmet", (5, 5, 5, 20))],
        "zero_based": [("helmet", (0, 4, 20, 20)), ("none", (1, 1, 20, 20))],
        "size_zero": [("helmet", BOX)],
        "size_none": [("helmet", BOX)],
        "depth_one": [("helmet", BOX)],
        "empty_xml": [("helmet", BOX)],
        "typo": [("helmet", BOX), ("helmt", (30, 8, 50, 30))],
        "spaces": [("No Safety Helmet", BOX)],
        "case": [("Helmet", BOX)],
        "paths": [("helmet", BOX)],
        "filename": [("helmet", BOX)],
        "twice": [("helmet", BOX)],
        "background": [],
        "stretched": [("helmet", BOX)],
        "exif6": [("helmet", BOX)],
        "exif3": [("helmet", BOX)],
        "cmyk": [("helmet", BOX)],
        "grey": [("helmet", BOX)],
        "deep": [("helmet", BOX)],
        "cut_jpg": [("helmet", BOX)],
        "cut_png": [("helmet", BOX)],
        "beyond": [("helmet", (-3, 8, 30, 30)), ("none", (50, 20, 66, 40))],
        "outside": [("helmet", (70, 8, 90, 30))],
        "inverted": [("helmet", (30, 30, 8, 8))],
        "small": [("helmet", (8, 8, 10, 30))],
        "same_box": [("helmet", BOX), ("helmet", BOX)],
        "whole": [("helmet", (1, 1, 64, 48))],
        "no_image": [("helmet", BOX)],
        "clean": [("helmet", BOX), ("none", (30, 8, 50, 30))],
        "唐山 1": [("helmet", BOX)],
    }
    root = make_voc(tmp_path_factory.mktemp("dirty") / "voc", stems, size=(48, 64))
    images, xmls = root / "JPEGImages", root / "Annotations"
    size = "<height>48</height>\n    <width>64</width>"
    rewrite(xmls / "size_zero.xml", (size, "<height>0</height><width>0</width>"))
    rewrite(xmls / "size_none.xml", (size, ""))
    rewrite(xmls / "depth_one.xml", ("<depth>3<", "<depth>1<"))
    (xmls / "empty_xml.xml").write_text("")
    rewrite(xmls / "paths.xml", ("<filename>", "<path>D:\\数据\\Übung\\paths.jpg</path><filename>"))
    rewrite(xmls / "filename.xml", ("filename.jpg", "IMG_0001.JPG"))
    shutil.copy(images / "twice.jpg", images / "twice.png")
    cv2.imwrite(str(images / "stretched.jpg"), picture("stretched", (64, 64))[..., ::-1])
    for stem, orientation in (("exif6", 6), ("exif3", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture(stem)).save(images / f"{stem}.jpg", exif=exif)
    Image.fromarray(picture("cmyk")).convert("CMYK").save(images / "cmyk.jpg")
    Image.fromarray(picture("grey")).convert("L").save(images / "grey.jpg")
    (images / "deep.jpg").unlink()
    grey = np.asarray(Image.fromarray(picture("deep")).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(images / "deep.png")
    (images / "cut_png.jpg").unlink()
    Image.fromarray(picture("cut_png")).save(images / "cut_png.png")
    for path in (images / "cut_jpg.jpg", images / "cut_png.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (images / "no_image.jpg").unlink()
    cv2.imwrite(str(images / "unannotated.jpg"), picture("unannotated"))
    return root


@pytest.fixture(scope="module")
def dataset(dirty: Path) -> AnnotatedDataset:
    return opened(dirty)


@pytest.mark.parametrize(
    ("file", "severity", "code", "item", "message"),
    [
        ("zero_area.xml", "error", "empty-box", "object 2 (helmet)", "expected x1 < x2 and y1 < y2, got (5, 5, 5, 20)"),
        ("inverted.xml", "error", "swapped-corners", "object 1 (helmet)", "got (30, 30, 8, 8)"),
        ("zero_based.xml", "warning", "zero-based", "object 1 (helmet)", "xmin or ymin is 0"),
        ("size_zero.xml", "warning", "size-missing", "", "<size> is (0, 0, 3)"),
        ("size_none.xml", "warning", "size-missing", "", "<size> is None"),
        ("depth_one.xml", "warning", "depth", "", "<depth> is 1, expected 3"),
        ("empty_xml.xml", "error", "annotation", "", "got an empty file"),
        ("typo.xml", "error", "unknown-name", "object 2 (helmt)", "'helmt' (it knows helmet, none); did you mean 'helmet'?"),
        ("spaces.xml", "error", "unknown-name", "object 1 (No Safety Helmet)", "the name 'No Safety Helmet'"),
        ("case.xml", "error", "unknown-name", "object 1 (Helmet)", "did you mean 'helmet'?"),
        ("filename.xml", "warning", "filename-differs", "", "is 'IMG_0001.JPG', but the image used is 'filename.jpg'"),
        ("twice.xml", "error", "annotation", "", "got several (twice.jpg, twice.png): remove the others"),
        ("background.xml", "warning", "no-object", "", "used as a background image"),
        ("stretched.xml", "error", "size-differs", "", "annotated as 64x48, but the image is 64x64"),
        ("exif6.xml", "error", "exif-rotated", "", "annotated as 64x48, without the EXIF rotation; the upright image is 48x64"),
        ("exif6.jpg", "warning", "unusual-image", "", "EXIF orientation 6"),
        ("exif3.jpg", "warning", "unusual-image", "", "EXIF orientation 3"),
        ("cmyk.jpg", "warning", "unusual-image", "", "CMYK instead of RGB: converted"),
        ("grey.jpg", "warning", "unusual-image", "", "L instead of RGB: converted"),
        ("deep.png", "warning", "unusual-image", "", "I;16 instead of RGB: converted"),
        ("deep.xml", "warning", "filename-differs", "", "the image used is 'deep.png'"),
        ("cut_jpg.jpg", "error", "image", "", "cannot be decoded ("),
        ("cut_png.png", "error", "image", "", "cannot be decoded ("),
        ("outside.xml", "error", "box-outside", "object 1 (helmet)", "(70, 8, 90, 30) lies outside the 64x48 image"),
        ("small.xml", "warning", "tiny-box", "object 1 (helmet)", "less than 3 pixels"),
        ("same_box.xml", "warning", "duplicate-box", "object 2 (helmet)", "counted once"),
        ("whole.xml", "warning", "whole-image", "object 1 (helmet)", "covers all of the 64x48 image"),
        ("no_image.xml", "error", "no-image", "", "no image no_image.* and no no_image.jpg in"),
        ("unannotated.jpg", "warning", "no-annotation", "", "no XML file of this name"),
    ],
)  # fmt: skip
def test_audit_reports_each_kind_of_problem(
    dataset: AnnotatedDataset, dirty: Path, file: str, severity: str, code: str, item: str, message: str
) -> None:
    problem = problem_of(dataset, dirty / ("Annotations" if file.endswith("xml") else "JPEGImages") / file, code)
    assert (problem.severity, problem.item) == (severity, item)
    assert message in problem.message


def test_audit_clips_boxes_beyond_the_image(dataset: AnnotatedDataset, dirty: Path) -> None:
    problems = [p for p in dataset.problems if p.code == "box-beyond"]
    assert [(Path(p.file).name, p.item) for p in problems] == [
        ("beyond.xml", "object 1 (helmet)"),
        ("beyond.xml", "object 2 (none)"),
    ]
    (image,) = [i for part in dataset.splits.values() for i in part if i.image_id == "beyond"]
    assert [o.box_xyxy for o in image.objects] == [(0, 8, 30, 30), (50, 20, 64, 40)]


def test_audit_clean_images_have_no_problem(dataset: AnnotatedDataset) -> None:
    for stem in ("clean", "唐山 1", "paths"):
        assert not [p for p in dataset.problems if Path(p.file).stem == stem]


def test_audit_leaves_out_images_with_errors(dataset: AnnotatedDataset) -> None:
    bad = {"zero_area", "inverted", "empty_xml", "typo", "spaces", "case", "twice", "stretched", "exif6"}
    bad |= {"cut_jpg", "cut_png", "outside", "no_image"}
    used = {i.image_id for part in dataset.splits.values() for i in part}
    assert {Path(p.file).stem for p in dataset.errors} == bad
    assert not used & bad
    assert len(used) == 30 - len(bad)
    assert dataset.left_out == len(bad)


def test_audit_different_images_are_no_duplicates(dataset: AnnotatedDataset) -> None:
    assert not [p for p in dataset.problems if p.code.startswith(("near-duplicate", "same-image"))]


def test_audit_command_errors_write_json_and_exit_with_one(
    dirty: Path, dataset: AnnotatedDataset, tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("audit", dirty, "--json", tmp_path / "audit.json") == 1
    saved = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert saved["problems"] == [
        {"severity": p.severity, "code": p.code, "file": p.file, "object": p.item, "message": p.message}
        for p in dataset.problems
    ]
    assert saved["statistics"]["all_names_found"]["No Safety Helmet"] == 1
    out = capsys.readouterr().out
    assert f"{len(dataset.errors)} errors, {len(dataset.problems) - len(dataset.errors)} warnings" in out
    assert "choose another class map (default, " in out.splitlines()[-2]  # the last line names the JSON file
    severities = [p["severity"] for p in saved["problems"]]
    assert severities == sorted(severities)  # errors first


def test_audit_command_clean_data_exits_with_zero(
    tiny_site: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("audit", tiny_site) == 0
    out = capsys.readouterr().out
    assert out.startswith("read as a Pascal VOC data set: 2 classes, test ")
    assert "0 errors" in out and "--class-map" not in out


def test_statistics_match_hand_calculation(make_voc, tmp_path: Path) -> None:
    objects = {
        "a": [("helmet", (10, 10, 20, 30)), ("none", (0.5, 1, 36.5, 37))],
        "b": [("helmet", (1, 1, 101, 101))],
        "c": [],
        "d": [("none", (10, 10, 20, 20))],
    }
    root = make_voc(tmp_path, objects, {"trainval": ["a", "b", "c"], "test": ["d"]}, size=(120, 160))
    dataset = opened(root)
    s = dataset.statistics
    assert s.images == s.usable_images == {"trainval": 3, "test": 1}
    assert s.images_without_object == {"trainval": 1, "test": 0}
    assert s.names_found == {"trainval": {"helmet": 2, "none": 1}, "test": {"none": 1}}
    assert s.objects == s.names_found
    assert s.box_sizes == {"small (< 32 px)": 2, "medium": 1, "large (>= 96 px)": 1}  # sides 14.1, 10; 36; 100
    assert (s.box_side_pixels["p0"], s.box_side_pixels["p100"]) == (10.0, 100.0)
    assert (s.box_aspect_width_to_height["p0"], s.box_aspect_width_to_height["p100"]) == (0.5, 1.0)
    assert s.photo_sizes == {"160x120": 4}
    assert set(dataset.sizes.values()) == {(120, 160)}


def test_audit_warns_about_imbalance_and_missing_class(make_voc, tmp_path: Path) -> None:
    many = {"a": [("helmet", (i, 1, i + 9, 12)) for i in range(1, 12)]}
    codes = {p.code: p for p in opened(make_voc(tmp_path / "one", many)).problems}
    assert (codes["class-missing"].item, codes["class-missing"].severity) == ("none", "warning")
    many["b"] = [("none", BOX)]
    codes = {p.code: p for p in opened(make_voc(tmp_path / "two", many)).problems}
    assert codes["imbalance"].message.startswith("more than 10 to 1: helmet 11, none 1")
    many["c"] = [("none", BOX)]
    assert "imbalance" not in {p.code for p in opened(make_voc(tmp_path / "three", many)).problems}


def test_audit_no_usable_image_reports_errors_and_no_objects(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b"])
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(b"")
    dataset = opened(root)
    assert [p.code for p in dataset.errors] == ["image", "image"]
    assert "no-objects" in {p.code for p in dataset.problems}
    with pytest.raises(UserError, match=r"no image of the split test can be used: see `ppe-yolo audit"):
        dataset.split("test")
    with pytest.raises(UserError, match=r"expected a split val, got trainval, test: add it"):
        dataset.split("val")


def test_audit_ignored_objects_cause_no_error(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"a": [("head", BOX), ("person", (5, 5, 5, 5)), ("person", (90, 5, 99, 9))]})
    dataset = opened(root, "hard-hat-workers")
    assert not dataset.errors
    assert {p.code for p in dataset.problems if p.item.endswith("(person)")} == {"empty-box", "box-outside"}


def test_audit_names_duplicates_within_and_across_splits(make_voc, picture, tmp_path: Path) -> None:
    stems = ["a", "a_again", "a_saved", "b", "b_saved", "c", "c_again", "d"]
    splits = {"trainval": ["a", "a_again", "a_saved", "b", "c_again", "d", "d"], "test": ["b_saved", "c", "d"]}
    root = make_voc(tmp_path, stems, splits)
    images = root / "JPEGImages"
    for a, b in (("a", "a_again"), ("c", "c_again")):
        shutil.copy(images / f"{a}.jpg", images / f"{b}.jpg")
    for a in ("a", "b"):
        cv2.imwrite(str(images / f"{a}_saved.jpg"), picture(a)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    dataset = opened(root)
    codes = [
        (p.severity, p.code, Path(p.file).name, p.message.replace(f"{images}/", ""))
        for p in dataset.problems
        if "duplicate" in p.code or "same" in p.code or "listed" in p.code or "splits" in p.code
    ]
    assert codes == [
        ("error", "in-two-splits", root.name, "listed in both test and trainval: remove it from one list"),
        (
            "error",
            "same-image-across-splits",
            "c_again.jpg",
            "identical to c.jpg: this one is in trainval, the other in test",
        ),
        ("warning", "listed-twice", root.name, "listed 2 times in trainval: counted once"),
        ("warning", "near-duplicate", "a.jpg", "looks like a_saved.jpg"),
        (
            "warning",
            "near-duplicate-across-splits",
            "b.jpg",
            "looks like b_saved.jpg: this one is in trainval, the other in test",
        ),
        ("warning", "same-image", "a.jpg", "identical to a_again.jpg"),
    ]
    # the images stay in test and are left out of training
    assert [i.image_id for i in dataset.splits["test"]] == ["b_saved", "c", "d"]
    assert [i.image_id for i in dataset.splits["trainval"]] == ["a", "a_again", "a_saved", "b"]
    assert dataset.left_out == 2


def test_audit_many_duplicates_give_one_problem_per_group(make_voc, picture, tmp_path: Path) -> None:
    stems = [f"frame{i:02d}" for i in range(12)]
    root = make_voc(tmp_path, stems, {"trainval": stems[:8], "test": stems[8:]})
    images = root / "JPEGImages"
    for stem in stems[1:6]:
        shutil.copy(images / "frame00.jpg", images / f"{stem}.jpg")
    for i, stem in enumerate(stems[6:]):
        cv2.imwrite(str(images / f"{stem}.jpg"), picture("frame00")[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90 - 2 * i])
    problems = [(p.code, Path(p.file).name, p.message.replace(f"{images}/", "")) for p in opened(root).problems]
    assert [p for p in problems if p[0].startswith(("same", "near"))] == [
        (
            "near-duplicate-across-splits",
            "frame00.jpg",
            "looks like frame08.jpg: 8 of trainval and 4 of test look alike",
        ),
        ("same-image", "frame00.jpg", "identical to frame01.jpg, frame02.jpg, frame03.jpg and 2 more"),
    ]


def test_audit_reports_images_in_no_split(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b", "c"], {"trainval": ["a", "gone"], "test": ["b"], "val": []})
    (root / "Annotations" / "b.xml").rename(root / "Annotations" / "b.XML")  # Windows
    dataset = opened(root)
    assert {p.code: Path(p.file).name for p in dataset.problems if p.code in ("in-no-split", "empty-split", "annotation")} == {
        "in-no-split": "c.xml",
        "empty-split": "val.txt",
        "annotation": "gone.xml",
    }
    assert [i.image_id for i in dataset.splits["test"]] == ["b"]
    assert not [p for p in opened(root, splits=["test"]).problems if p.code == "in-no-split"]
    with pytest.raises(UserError, match=r"expected a split val, got test, trainval: add it"):
        opened(root, splits=["val"])


def test_voc_image_sets_ignore_flags_and_lists_of_classes(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b 1", "c"], {"train": ["a 1", "b 1 -1"], "test": ["c.jpg"], "cat_train": ["a 1"]})
    dataset = opened(root)
    assert [i.image_id for i in dataset.splits["train"]] == ["a", "b 1"]
    assert "cat_train" not in dataset.splits
    assert [i.image_id for i in dataset.splits["test"]] == ["c"]  # names in lists may have a suffix
    assert not dataset.errors


def test_voc_image_sets_without_names_raise(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a"], {"trainval": [], "my_test": ["a"]})
    with pytest.raises(UserError, match=r"image names in trainval.txt, .* got my_test.txt, trainval.txt: fix or remove"):
        opened(root)
    (root / "ImageSets" / "Main" / "trainval.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(UserError, match=r"trainval.txt: expected a UTF-8 text file"):
        opened(root)


def test_voc_image_is_found_by_filename(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a"])
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "IMG 1.jpg")
    rewrite(root / "Annotations" / "a.xml", ("<filename>a.jpg", "<filename>C:\\photos\\IMG 1.jpg"))
    dataset = opened(root)
    assert {p.code for p in dataset.problems} == {"filename-differs", "class-missing"}
    rewrite(root / "Annotations" / "a.xml", ("IMG 1.jpg", "x" * 300))
    assert "no-image" in {p.code for p in opened(root).errors}


def test_audit_list_problem_names_the_line(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", ["a", "b"])
    path = tmp_path / "voc_test.txt"
    path.write_text("voc/JPEGImages/a.jpg 1,2,30,40,helmet\nvoc/JPEGImages/b.jpg 1,2,30,40,none 5,5,5,9,none\n")
    problem = problem_of(opened(path), Path(f"{path}:2"), "empty-box")
    assert (problem.item, problem.severity) == ("object 2 (none)", "error")
    assert root.exists()


def test_audit_command_prints_names_with_brackets(
    make_voc, tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "a[red]", {"c[red]": [("[/bold]", BOX)]})
    assert run_cli("audit", root) == 1
    assert "[/bold]" in capsys.readouterr().out


@pytest.fixture
def bad_box(make_voc, tmp_path: Path) -> Path:
    objects = {f"p{i}": [("helmet", BOX), ("none", (30, 30, 40, 40))] for i in range(8)}
    return make_voc(tmp_path / "bad", {**objects, "p7": [("helmet", (5, 5, 5, 9))]})


def test_commands_stop_on_errors_and_name_their_own_option(
    bad_box: Path, tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"ppe-yolo: error: {bad_box}: 1 error in the data: {bad_box}/Annotations/p7.xml: object 1 (helmet): "
    for command, flag in (
        (("list", bad_box, "--out", tmp_path / "lists"), "or skip the affected images with --on-error skip"),
        (("anchors", bad_box), "lists all problems; fix the errors\n"),
        (
            ("fit", "--data.root", bad_box, "--run_dir", tmp_path / "run"),
            "skip the affected images with --data.on_error skip",
        ),
    ):
        assert run_cli(*command) == 2
        message = capsys.readouterr().err.splitlines(keepends=True)[-1]
        assert message.startswith(start + "expected x1 < x2 and y1 < y2, got (5, 5, 5, 9)")
        assert flag in message
    assert not (tmp_path / "lists").exists()
    assert run_cli("list", bad_box, "--out", tmp_path / "lists", "--on-error", "skip") == 0
    lines = [line for path in (tmp_path / "lists").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 7


def test_commands_stop_on_unknown_names_and_list_all_names(
    make_voc, tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path / "voc", {"a": [("hat", BOX), ("helmet", (30, 8, 40, 20))], "b": [("hat", BOX)]})
    for command, flag in (
        (("list", root, "--out", tmp_path / "lists"), "--class-map"),
        (("fit", "--data.root", root, "--run_dir", tmp_path / "run"), "--data.class_map"),
    ):
        assert run_cli(*command) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert "'hat' 2, 'helmet' 1" in message
        assert message.startswith(f"ppe-yolo: error: {flag}: {root}: class map default does not mention the name 'hat'")
        assert "choose another class map (default, " in message


def test_open_without_on_error_raises_and_offers_no_option(bad_box: Path) -> None:
    with pytest.raises(DatasetError) as raised:
        AnnotatedDataset.open(bad_box, progress=False)
    assert [(p.code, p.item) for p in raised.value.errors] == [("empty-box", "object 1 (helmet)")]
    assert raised.value.file == str(bad_box)
    assert str(raised.value).endswith("lists all problems; fix the errors")
    with pytest.raises(DatasetError, match="or skip the affected images with on_error skip"):
        AnnotatedDataset.open(bad_box, on_error="stop", progress=False)
    assert opened(bad_box).left_out == 1


def test_problem_of_unreadable_file_keeps_file_and_object_apart(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a: b", ["a"])  # a separator of messages in the path
    xml = root / "Annotations" / "a.xml"
    rewrite(xml, ("<xmin>8<", "<xmin>left<"))
    problem = problem_of(opened(root), xml, "annotation")
    assert (problem.item, problem.message) == ("object 1 (helmet)", "expected a number in <xmin>, got 'left'")
    assert str(problem) == f"{xml}: object 1 (helmet): expected a number in <xmin>, got 'left'"


def test_open_dataset_without_objects_only_warns(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"a": [], "b": []}, {"trainval": ["a"], "test": ["b"]})
    dataset = AnnotatedDataset.open(root, progress=False)
    assert {split: [len(i.objects) for i in images] for split, images in dataset.splits.items()} == {
        "trainval": [0],
        "test": [0],
    }
    assert [p.code for p in dataset.problems] == ["class-missing", "class-missing", "no-object", "no-object", "no-objects"]
    assert not dataset.errors


def test_open_dataset_with_one_class_of_the_map_only_warns(make_voc, tmp_path: Path) -> None:
    path = tmp_path / "helmets.yaml"
    path.write_text("class_names: [helmet, none]\nmap: {helmet: helmet}\n")
    dataset = AnnotatedDataset.open(make_voc(tmp_path / "voc", ["a", "b"]), path, progress=False)
    assert dataset.class_map.class_names == ("helmet", "none")
    assert [(p.severity, p.code, p.item) for p in dataset.problems] == [("warning", "class-missing", "none")]


def test_open_slow_files_are_read_in_threads_in_order(make_voc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or network on which each file takes a millisecond: reading soon goes on in several threads."""
    stems = [f"p{i:02d}" for i in range(48)]
    readers: dict[str, int] = {}

    def read_slowly(path: Path) -> VocAnnotation:
        time.sleep(0.001)
        readers[path.stem] = threading.get_ident()
        return read_voc_annotation(path)

    root = make_voc(tmp_path, stems, {"trainval": stems})
    monkeypatch.setattr(dataset_module, "_AT_ONCE", 16)
    monkeypatch.setattr(voc_folder, "read_voc_annotation", read_slowly)
    images = AnnotatedDataset.open(root, progress=False).splits["trainval"]
    assert [image.image_id for image in images] == stems
    assert {readers[stem] for stem in stems[:16]} == {threading.get_ident()}
    assert len({readers[stem] for stem in stems[16:]}) > 1
