"""The data doctor against a data set with all the dirt that is known of this field."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.audit import AuditReport, audit
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.sources.source import Problem

DEFAULT = load_class_map("default")
BOX = (8, 8, 30, 30)


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def found(report: AuditReport, file: Path, code: str) -> Problem:
    """The one problem of this kind in this file."""
    (problem,) = [p for p in report.problems if (p.file, p.code) == (str(file), code)]
    assert "\n" not in problem.message
    return problem


def check(root: Path) -> AuditReport:
    return audit(root, DEFAULT, progress=False)


@pytest.fixture(scope="module")
def dirty(make_voc, picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photo (48x64) for each kind of dirt, and clean ones."""
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
        "no_photo": [("helmet", BOX)],
        "clean": [("helmet", BOX), ("none", (30, 8, 50, 30))],
        "唐山 1": [("helmet", BOX)],
    }
    root = make_voc(tmp_path_factory.mktemp("dirty") / "voc", stems, size=(48, 64))
    photos, xmls = root / "JPEGImages", root / "Annotations"
    size = "<height>48</height>\n    <width>64</width>"
    rewrite(xmls / "size_zero.xml", (size, "<height>0</height><width>0</width>"))
    rewrite(xmls / "size_none.xml", (size, ""))
    rewrite(xmls / "depth_one.xml", ("<depth>3<", "<depth>1<"))
    (xmls / "empty_xml.xml").write_text("")
    rewrite(xmls / "paths.xml", ("<filename>", "<path>D:\\数据\\Übung\\paths.jpg</path><filename>"))
    rewrite(xmls / "filename.xml", ("filename.jpg", "IMG_0001.JPG"))
    shutil.copy(photos / "twice.jpg", photos / "twice.png")
    cv2.imwrite(str(photos / "stretched.jpg"), picture("stretched", (64, 64))[..., ::-1])
    for stem, orientation in (("exif6", 6), ("exif3", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture(stem)).save(photos / f"{stem}.jpg", exif=exif)
    Image.fromarray(picture("cmyk")).convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(picture("grey")).convert("L").save(photos / "grey.jpg")
    (photos / "deep.jpg").unlink()
    grey = np.asarray(Image.fromarray(picture("deep")).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(photos / "deep.png")
    (photos / "cut_png.jpg").unlink()
    Image.fromarray(picture("cut_png")).save(photos / "cut_png.png")
    for path in (photos / "cut_jpg.jpg", photos / "cut_png.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (photos / "no_photo.jpg").unlink()
    cv2.imwrite(str(photos / "unmarked.jpg"), picture("unmarked"))
    return root


@pytest.fixture(scope="module")
def report(dirty: Path) -> AuditReport:
    return check(dirty)


@pytest.mark.parametrize(
    ("file", "severity", "code", "item", "message"),
    [
        ("zero_area.xml", "error", "empty-box", "object 2 (helmet)", "expected x1 < x2 and y1 < y2, got (5, 5, 5, 20)"),
        ("inverted.xml", "error", "empty-box", "object 1 (helmet)", "got (30, 30, 8, 8)"),
        ("zero_based.xml", "warning", "zero-based", "object 1 (helmet)", "xmin or ymin is 0"),
        ("size_zero.xml", "warning", "size-missing", "", "<size> says (0, 0, 3)"),
        ("size_none.xml", "warning", "size-missing", "", "<size> says None"),
        ("depth_one.xml", "warning", "depth", "", "<depth> says 1, expected 3"),
        ("empty_xml.xml", "error", "annotation", "", "got an empty file"),
        ("typo.xml", "error", "unknown-name", "object 2 (helmt)", "'helmt' (it knows helmet, none); did you mean 'helmet'?"),
        ("spaces.xml", "error", "unknown-name", "object 1 (No Safety Helmet)", "the name 'No Safety Helmet'"),
        ("case.xml", "error", "unknown-name", "object 1 (Helmet)", "did you mean 'helmet'?"),
        ("filename.xml", "warning", "filename-differs", "", "says 'IMG_0001.JPG', the photo used is 'filename.jpg'"),
        ("twice.xml", "error", "annotation", "", "got several (twice.jpg, twice.png): remove the others"),
        ("background.xml", "warning", "no-object", "", "used as a photo of background"),
        ("stretched.xml", "error", "size-differs", "", "<size> says 64x48, the photo is 64x64"),
        ("exif6.xml", "error", "exif-turned", "", "annotated as 64x48 without the photo's EXIF turn, shown it is 48x64"),
        ("exif6.jpg", "warning", "unusual-photo", "", "EXIF orientation 6"),
        ("exif3.jpg", "warning", "unusual-photo", "", "EXIF orientation 3"),
        ("cmyk.jpg", "warning", "unusual-photo", "", "CMYK instead of RGB, converted"),
        ("grey.jpg", "warning", "unusual-photo", "", "L instead of RGB, converted"),
        ("deep.png", "warning", "unusual-photo", "", "I;16 instead of RGB, converted"),
        ("deep.xml", "warning", "filename-differs", "", "the photo used is 'deep.png'"),
        ("cut_jpg.jpg", "error", "photo", "", "cannot be decoded ("),
        ("cut_png.png", "error", "photo", "", "cannot be decoded ("),
        ("outside.xml", "error", "box-outside", "object 1 (helmet)", "(70, 8, 90, 30) lies outside of the photo of 64x48"),
        ("small.xml", "warning", "tiny-box", "object 1 (helmet)", "less than 3 pixels"),
        ("same_box.xml", "warning", "same-box-twice", "object 2 (helmet)", "counted once"),
        ("whole.xml", "warning", "whole-photo", "object 1 (helmet)", "covers the whole photo of 64x48"),
        ("no_photo.xml", "error", "annotation", "", "no photo no_photo.* and no no_photo.jpg in"),
        ("unmarked.jpg", "warning", "no-annotation", "", "no XML of this name"),
    ],
)  # fmt: skip
def test_every_kind_of_dirt_is_found(
    report: AuditReport, dirty: Path, file: str, severity: str, code: str, item: str, message: str
) -> None:
    problem = found(report, dirty / ("Annotations" if file.endswith("xml") else "JPEGImages") / file, code)
    assert (problem.severity, problem.object) == (severity, item)
    assert message in problem.message


def test_boxes_beyond_the_photo_are_clipped(report: AuditReport, dirty: Path) -> None:
    problems = [p for p in report.problems if p.code == "box-beyond"]
    assert [(Path(p.file).name, p.object) for p in problems] == [
        ("beyond.xml", "object 1 (helmet)"),
        ("beyond.xml", "object 2 (none)"),
    ]
    (image,) = [i for part in report.images.values() for i in part if i.image_id == "beyond"]
    assert [o.box_xyxy for o in image.objects] == [(0, 8, 30, 30), (50, 20, 64, 40)]


def test_clean_photos_have_no_problem(report: AuditReport) -> None:
    for stem in ("clean", "唐山 1", "paths"):
        assert not [p for p in report.problems if Path(p.file).stem == stem]


def test_photos_with_errors_are_left_out_whole(report: AuditReport) -> None:
    bad = {"zero_area", "inverted", "empty_xml", "typo", "spaces", "case", "twice", "stretched", "exif6"}
    bad |= {"cut_jpg", "cut_png", "outside", "no_photo"}
    used = {i.image_id for part in report.images.values() for i in part}
    assert {Path(p.file).stem for p in report.errors} == bad
    assert not used & bad
    assert len(used) == 30 - len(bad)
    assert report.left_out == len(bad)


def test_no_photo_looks_like_another(report: AuditReport) -> None:
    assert not [p for p in report.problems if "duplicate" in p.code or "same-photo" in p.code]


def test_the_command_line_writes_all_and_exits_with_one(
    dirty: Path, report: AuditReport, tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("audit", dirty, "--json", tmp_path / "audit.json") == 1
    saved = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert saved["problems"] == [
        {"severity": p.severity, "code": p.code, "file": p.file, "object": p.object, "message": p.message}
        for p in report.problems
    ]
    assert saved["statistics"]["all_names_found"]["No Safety Helmet"] == 1
    out = capsys.readouterr().out
    assert f"{len(report.errors)} errors, {len(report.problems) - len(report.errors)} warnings" in out
    assert "Choose another with --class-map (default, " in out.splitlines()[-2]  # the file that was written comes last
    severities = [p["severity"] for p in saved["problems"]]
    assert severities == sorted(severities)  # errors first


def test_a_clean_set_exits_with_zero(tiny_site: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("audit", tiny_site) == 0
    out = capsys.readouterr().out
    assert "0 errors" in out and "--class-map" not in out


def test_statistics_by_hand(make_voc, tmp_path: Path) -> None:
    objects = {
        "a": [("helmet", (10, 10, 20, 30)), ("none", (0.5, 1, 36.5, 37))],
        "b": [("helmet", (1, 1, 101, 101))],
        "c": [],
        "d": [("none", (10, 10, 20, 20))],
    }
    root = make_voc(tmp_path, objects, {"trainval": ["a", "b", "c"], "test": ["d"]}, size=(120, 160))
    report = check(root)
    s = report.statistics
    assert s["images"] == s["usable_images"] == {"trainval": 3, "test": 1}
    assert s["images_without_object"] == {"trainval": 1, "test": 0}
    assert s["names_found"] == {"trainval": {"helmet": 2, "none": 1}, "test": {"none": 1}}
    assert s["objects"] == s["names_found"]
    assert s["box_sizes"] == {"small (< 32 px)": 2, "medium": 1, "large (>= 96 px)": 1}  # sides 14.1, 10; 36; 100
    assert (s["box_side_pixels"]["p0"], s["box_side_pixels"]["p100"]) == (10.0, 100.0)
    assert (s["box_aspect_width_to_height"]["p0"], s["box_aspect_width_to_height"]["p100"]) == (0.5, 1.0)
    assert s["photo_sizes"] == {"160x120": 4}
    assert set(report.sizes.values()) == {(120, 160)}


def test_imbalance_and_a_missing_class(make_voc, tmp_path: Path) -> None:
    many = {"a": [("helmet", (i, 1, i + 9, 12)) for i in range(1, 12)]}
    codes = {p.code: p for p in check(make_voc(tmp_path / "one", many)).problems}
    assert (codes["class-missing"].object, codes["class-missing"].severity) == ("none", "warning")
    many["b"] = [("none", BOX)]
    codes = {p.code: p for p in check(make_voc(tmp_path / "two", many)).problems}
    assert codes["imbalance"].message.startswith("more than 10 to 1: helmet 11, none 1")
    many["c"] = [("none", BOX)]
    assert "imbalance" not in {p.code for p in check(make_voc(tmp_path / "three", many)).problems}


def test_a_set_without_any_usable_photo(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b"])
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(b"")
    report = check(root)
    assert [p.code for p in report.errors] == ["photo", "photo"]
    assert "no-objects" in {p.code for p in report.problems}
    with pytest.raises(UserError, match=r"no photo of the split test can be used: see `ppe-yolo audit"):
        report.split("test")
    with pytest.raises(UserError, match=r"expected a split val, got trainval, test: add it"):
        report.split("val")


def test_an_ignored_object_spoils_nothing(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"a": [("head", BOX), ("person", (5, 5, 5, 5)), ("person", (90, 5, 99, 9))]})
    report = audit(root, load_class_map("hard-hat-workers"), progress=False)
    assert not report.errors
    assert {p.code for p in report.problems if p.object.endswith("(person)")} == {"empty-box", "box-outside"}


def test_duplicates_within_and_across_splits(make_voc, picture, tmp_path: Path) -> None:
    stems = ["a", "a_again", "a_saved", "b", "b_saved", "c", "c_again", "d"]
    splits = {"trainval": ["a", "a_again", "a_saved", "b", "c_again", "d", "d"], "test": ["b_saved", "c", "d"]}
    root = make_voc(tmp_path, stems, splits)
    photos = root / "JPEGImages"
    for a, b in (("a", "a_again"), ("c", "c_again")):
        shutil.copy(photos / f"{a}.jpg", photos / f"{b}.jpg")
    for a in ("a", "b"):
        cv2.imwrite(str(photos / f"{a}_saved.jpg"), picture(a)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    report = check(root)
    codes = [
        (p.severity, p.code, Path(p.file).name, p.message.replace(f"{photos}/", ""))
        for p in report.problems
        if "duplicate" in p.code or "same" in p.code or "listed" in p.code or "splits" in p.code
    ]
    assert codes == [
        ("error", "in-two-splits", root.name, "d is in test and in trainval: take it off one list"),
        (
            "error",
            "same-photo-across-splits",
            "c_again.jpg",
            "the same photo as c.jpg: this one is in trainval, that one in test",
        ),
        ("warning", "listed-twice", root.name, "d is 2 times in trainval: counted once"),
        ("warning", "near-duplicate", "a.jpg", "looks like a_saved.jpg"),
        ("warning", "near-duplicate", "a_again.jpg", "looks like a_saved.jpg"),
        (
            "warning",
            "near-duplicate-across-splits",
            "b.jpg",
            "looks like b_saved.jpg: this one is in trainval, that one in test",
        ),
        ("warning", "same-photo", "a.jpg", "the same photo as a_again.jpg"),
    ]
    # what is in test stays there and leaves the training
    assert [i.image_id for i in report.images["test"]] == ["b_saved", "c", "d"]
    assert [i.image_id for i in report.images["trainval"]] == ["a", "a_again", "a_saved", "b"]
    assert report.left_out == 2


def test_a_film_gives_a_problem_a_photo_not_one_a_pair(make_voc, tmp_path: Path) -> None:
    stems = [f"frame{i:02d}" for i in range(12)]
    root = make_voc(tmp_path, stems)
    for stem in stems[1:]:
        shutil.copy(root / "JPEGImages" / "frame00.jpg", root / "JPEGImages" / f"{stem}.jpg")
    problems = [p for p in check(root).problems if p.code == "same-photo"]
    assert len(problems) == 11
    assert problems[0].message.endswith("frame01.jpg and 10 more")


def test_what_is_in_no_list(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b", "c"], {"trainval": ["a", "gone"], "test": ["b"], "val": []})
    (root / "Annotations" / "b.xml").rename(root / "Annotations" / "b.XML")  # Windows
    report = check(root)
    assert {p.code: Path(p.file).name for p in report.problems if p.code in ("in-no-split", "empty-split", "annotation")} == {
        "in-no-split": "c.xml",
        "empty-split": "val.txt",
        "annotation": "gone.xml",
    }
    assert [i.image_id for i in report.images["test"]] == ["b"]
    assert not [p for p in audit(root, DEFAULT, splits=["test"], progress=False).problems if p.code == "in-no-split"]
    with pytest.raises(UserError, match=r"expected the splits test, trainval, asked for val"):
        audit(root, DEFAULT, splits=["val"], progress=False)


def test_image_sets_of_voc(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a", "b 1", "c"], {"train": ["a 1", "b 1 -1"], "test": ["c.jpg"], "cat_train": ["a 1"]})
    report = check(root)
    assert [i.image_id for i in report.images["train"]] == ["a", "b 1"]
    assert "cat_train" not in report.images
    assert [Path(p.file).name for p in report.errors] == ["c.jpg.xml"]  # names in lists have no suffix


def test_image_sets_without_names(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a"], {"trainval": [], "my_test": ["a"]})
    with pytest.raises(UserError, match=r"expected trainval.txt, .* got my_test.txt, trainval.txt: mend or remove it"):
        check(root)
    (root / "ImageSets" / "Main" / "trainval.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(UserError, match=r"trainval.txt: expected a list in UTF-8"):
        check(root)


def test_a_photo_found_by_its_filename_alone(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a"])
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "IMG 1.jpg")
    rewrite(root / "Annotations" / "a.xml", ("<filename>a.jpg", "<filename>C:\\photos\\IMG 1.jpg"))
    report = check(root)
    assert {p.code for p in report.problems} == {"filename-differs", "class-missing"}
    rewrite(root / "Annotations" / "a.xml", ("IMG 1.jpg", "x" * 300))
    assert "annotation" in {p.code for p in check(root).errors}


def test_objects_of_a_list_are_named_with_their_line(make_voc, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", ["a", "b"])
    path = tmp_path / "voc_test.txt"
    path.write_text("voc/JPEGImages/a.jpg 1,2,30,40,helmet\nvoc/JPEGImages/b.jpg 1,2,30,40,none 5,5,5,9,none\n")
    problem = found(check(path), Path(f"{path}:2"), "empty-box")
    assert (problem.object, problem.severity) == ("object 2 (none)", "error")
    assert root.exists()


def test_names_with_brackets_are_printed(make_voc, tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_voc(tmp_path / "a[red]", {"c[red]": [("[/bold]", BOX)]})
    assert run_cli("audit", root) == 1
    assert "[/bold]" in capsys.readouterr().out


@pytest.fixture
def bad_box(make_voc, tmp_path: Path) -> Path:
    objects = {f"p{i}": [("helmet", BOX), ("none", (30, 30, 40, 40))] for i in range(8)}
    return make_voc(tmp_path / "bad", {**objects, "p7": [("helmet", (5, 5, 5, 9))]})


def test_errors_stop_a_command_and_name_a_flag_that_it_has(
    bad_box: Path, tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"ppe-yolo: error: {bad_box}: 1 error(s) in the data: {bad_box}/Annotations/p7.xml: object 1 (helmet): "
    for command, flag in (
        (("list", bad_box, "--out", tmp_path / "lists"), "leave those photos out with --on-error skip"),
        (("anchors", bad_box), "lists all; mend them\n"),
        (("fit", "--data.root", bad_box, "--run_dir", tmp_path / "run"), "leave those photos out with --data.on_error skip"),
    ):
        assert run_cli(*command) == 2
        message = capsys.readouterr().err.splitlines(keepends=True)[-1]
        assert message.startswith(start + "expected x1 < x2 and y1 < y2, got (5, 5, 5, 9)")
        assert flag in message
    assert not (tmp_path / "lists").exists()
    assert run_cli("list", bad_box, "--out", tmp_path / "lists", "--on-error", "skip") == 0
    lines = [line for path in (tmp_path / "lists").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 7


def test_unknown_names_stop_a_command_with_all_names(
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
        assert f"Choose another with {flag} (default, " in message
