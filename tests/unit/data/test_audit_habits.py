"""Faults that a tool makes in every annotation."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.review.fix import fix
from ppe_yolo.data.sources.base import Problem


def test_audit_names_ymax_of_vott_once(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    wrong = {"a": [("helmet", (20, 5, 40, 20)), ("none", (9, 30, 12, 9))], "b": [("helmet", (5, 10, 20, 5))], "c": []}
    dataset = AnnotatedDataset.open(make_voc(tmp_path, wrong), on_error="skip", progress=False)
    (problem,) = dataset.errors
    assert (problem.code, problem.file) == ("ymax-is-xmin", str(tmp_path))
    assert "in all 3 objects" in problem.message
    assert dataset.left_out == 2  # the first box looks right, but is not


def test_audit_single_box_with_ymax_of_xmin_is_no_habit(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes = {"a": [("helmet", (20, 5, 40, 20)), ("none", (9, 30, 12, 40))], "b": [("helmet", (20, 5, 40, 20))]}
    dataset = AnnotatedDataset.open(make_voc(tmp_path, boxes), progress=False)
    assert not dataset.errors


@pytest.mark.parametrize(
    ("box", "problem"),
    [((40, 5, 60, 40), ("warning", "size-swapped")), ((5, 5, 20, 30), ("error", "size-differs"))],
)
def test_audit_decides_by_the_boxes_whether_only_the_sides_are_swapped(
    make_voc: Callable[..., Path], tmp_path: Path, box: tuple[int, ...], problem: tuple[str, str]
) -> None:
    root = make_voc(tmp_path, {"a": [("helmet", box)]}, size=(48, 64))
    xml = root / "Annotations" / "a.xml"
    text = xml.read_text().replace("<height>48<", "<height>64<").replace("<width>64<", "<width>48<")
    xml.write_text(text)
    dataset = AnnotatedDataset.open(root, on_error="skip", progress=False)
    assert problem in [(p.severity, p.code) for p in dataset.problems]
    assert dataset.left_out == (problem[0] == "error")


def test_audit_names_zero_based_boxes_once(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, {name: [("helmet", (0, 5, 20, 30))] for name in "abcd"})
    dataset = AnnotatedDataset.open(root, progress=False)
    (problem,) = [p for p in dataset.problems if p.code == "zero-based"]
    assert (problem.severity, problem.file) == ("warning", str(root))
    assert "in 4 images" in problem.message


def test_audit_command_tells_how_many_problems_are_not_shown(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path, {name: [("helmet", (5, 5, 5, 30)), ("helmet", (5, 5, 20, 30))] for name in "abcde"})
    assert run_cli("audit", root) == 1
    assert "and 2 more, listed by --json" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "count"), [("labels", 0), ("Annotations", 1)])
def test_audit_expects_boxes_from_one_only_in_pascal_voc(
    make_voc: Callable[..., Path], tmp_path: Path, folder: str, count: int
) -> None:
    root = make_voc(tmp_path, {"a": [("helmet", (0, 0, 32, 24))]})
    if folder == "labels":
        (root / "Annotations" / "a.xml").unlink()
        (root / "Annotations").rmdir()
        (root / "JPEGImages").rename(root / "images")
        (root / "labels").mkdir()
        (root / "labels" / "a.txt").write_text("0 0.25 0.25 0.5 0.5\n")
        (root / "classes.txt").write_text("helmet\n")
    dataset = AnnotatedDataset.open(root, progress=False)
    assert [o.box_xyxy for part in dataset.splits.values() for i in part for o in i.objects] == [(0, 0, 32, 24)]
    assert [p.code for p in dataset.problems].count("zero-based") == count


@pytest.fixture
def make_yolo(picture: Callable, tmp_path: Path) -> Callable[..., Path]:
    """Draws 48x64 images with the given label files, and classes.txt with helmet and none."""

    def make(labels: Mapping[str, str], names: str = "helmet\nnone\n") -> Path:
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        for stem, text in labels.items():
            cv2.imwrite(str(tmp_path / "images" / f"{stem}.jpg"), picture(stem))
            (tmp_path / "labels" / f"{stem}.txt").write_text(text)
        (tmp_path / "classes.txt").write_text(names)
        return tmp_path

    return make


def opened(root: Path) -> AnnotatedDataset:
    return AnnotatedDataset.open(root, on_error="skip", progress=False)


def only(problems: list[Problem], code: str) -> Problem:
    (problem,) = [p for p in problems if p.code == code]
    return problem


def test_audit_names_pixels_in_yolo_labels_once(make_yolo: Callable[..., Path]) -> None:
    root = make_yolo(dict.fromkeys("abcd", "0 20 20 10 12\n1 40 20 10 10\n") | {"e": "0 .5 .5 .1 .1"})
    dataset = opened(root)
    problem = only(dataset.errors, "pixel-values")
    assert (problem.file, problem.files) == (str(root), tuple(str(root / "labels" / f"{n}.txt") for n in "abcd"))
    assert problem.message.startswith("4 label files hold pixels")
    assert dataset.left_out == 4


def test_audit_names_labels_that_count_classes_from_one(make_yolo: Callable[..., Path]) -> None:
    dataset = opened(make_yolo({"a": "1 .5 .5 .1 .1", "b": "2 .5 .5 .1 .1", "c": "2 .2 .5 .1 .1", "d": "2 .2 .2 .3 .3"}))
    problem = only(dataset.errors, "class-number")
    assert "3 images have the class 2, but the 2 classes count from 0" in problem.message
    assert "the labels probably count from 1" in problem.message
    assert dataset.left_out == 4  # the class of a is wrong as well


def test_labels_from_one_in_small_data_set_are_one_problem_and_fix_keeps_none(
    make_yolo: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_yolo({"a": "1 .5 .5 .1 .1", "b": "2 .5 .5 .1 .1"})
    dataset = opened(root)
    assert "1 image has the class 2, but the 2 classes count from 0" in only(dataset.errors, "class-number").message
    assert dataset.left_out == 2
    with pytest.raises(UserError, match="no image can be corrected"):
        fix(root, tmp_path.with_name(f"{tmp_path.name}-fixed"), progress=False)


def test_audit_names_missing_class_names_once(make_yolo: Callable[..., Path]) -> None:
    dataset = opened(make_yolo({name: f"0 .5 .5 .1 .1\n{2 + i} .5 .5 .2 .2" for i, name in enumerate("abc")}))
    problem = only(dataset.errors, "class-number")
    assert "3 images have a class number without a name (names: helmet, none)" in problem.message


def test_audit_names_one_based_boxes_outside_of_voc_once(make_yolo: Callable[..., Path]) -> None:
    # from (1, 1) to (21, 25) of 64x48
    label = f"0 {11 / 64:.6f} {13 / 48:.6f} {20 / 64:.6f} {24 / 48:.6f}\n"
    dataset = opened(make_yolo(dict.fromkeys("abcd", label)))
    problem = only(dataset.problems, "one-based")
    assert (problem.severity, problem.message[:8]) == ("warning", "4 images")


def test_audit_finds_no_one_based_boxes_if_one_starts_at_zero(make_yolo: Callable[..., Path]) -> None:
    label = f"0 {11 / 64:.6f} {13 / 48:.6f} {20 / 64:.6f} {24 / 48:.6f}\n"
    dataset = opened(make_yolo(dict.fromkeys("abcd", label) | {"e": "0 .25 .25 .5 .5"}))
    assert "one-based" not in {p.code for p in dataset.problems}


def test_audit_names_resized_images_once(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, {name: [("helmet", (70, 8, 90, 30))] for name in "abcd"}, size=(96, 128))
    for path in (root / "JPEGImages").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (64, 48)))
    problem = only(opened(root).errors, "size-differs")
    assert problem.message.startswith("4 images are annotated for images 2 times as large")


def coco(root: Path, boxes: Mapping[str, list[float]]) -> Path:
    """A COCO file without sizes, for the images of `make_voc`."""
    content = {
        "images": [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(boxes)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes.values())],
        "categories": [{"id": 1, "name": "helmet"}],
    }
    (root / "train.json").write_text(json.dumps(content))
    return root / "train.json"


def test_audit_names_boxes_for_larger_images_once(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, list("abcdef"))
    file = coco(root, {name: [100, 20, 20, 20] if name in "abc" else [10, 10, 20, 20] for name in "abcdef"})
    dataset = opened(file)
    problem = only(dataset.errors, "other-size")
    assert "3 of 6 images have boxes outside of them, up to 1.9 times their side" in problem.message
    assert dataset.left_out == 6


def test_audit_keeps_single_boxes_outside_apart(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, list("abcdef"))
    file = coco(root, {name: [100, 20, 20, 20] if name == "a" else [10, 10, 20, 20] for name in "abcdef"})
    assert [p.code for p in opened(file).errors] == ["box-outside"]


def test_audit_suspects_boxes_that_all_lie_in_the_upper_left(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    names = [f"i{i}" for i in range(20)]
    objects = [("helmet", (2, 2, 20, 20)), ("none", (20, 5, 30, 20)), ("none", (2, 20, 30, 34))]
    assert only(opened(make_voc(tmp_path / "a", dict.fromkeys(names, objects))).problems, "other-size").severity == "warning"
    objects[0] = ("helmet", (45, 2, 60, 20))
    assert "other-size" not in {p.code for p in opened(make_voc(tmp_path / "b", dict.fromkeys(names, objects))).problems}


def test_audit_names_duplicated_annotations_once(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes = [("helmet", (5, 5, 20, 20)), ("helmet", (6, 5, 20, 19)), ("none", (5, 5, 20, 20))]  # the second is rounded
    root = make_voc(tmp_path, {stem: list(boxes) for stem in "abc"})
    dataset = opened(root)
    assert only(dataset.problems, "duplicate-box").message.startswith("3 images have boxes that are annotated twice")
    assert only(dataset.problems, "two-classes").message.startswith("3 images have one box in two classes")
    assert not dataset.errors
    dataset.save_audit(tmp_path / "audit.json")
    rows = json.loads((tmp_path / "audit.json").read_text())["problems"]
    assert next(row for row in rows if row["code"] == "duplicate-box")["files"] == [
        str(root / "Annotations" / f"{name}.xml") for name in "abc"
    ]


def test_audit_names_swapped_corners(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    problem = only(opened(make_voc(tmp_path, {"a": [("helmet", (30, 5, 20, 20))]})).errors, "swapped-corners")
    assert problem.boxes_xyxy == ((30, 5, 20, 20),)


def test_audit_names_swapped_corners_that_could_be_sizes_in_some_images(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    in_order = {f"a{i}": [("helmet", (5, 5, 20, 20 + i))] for i in range(10)}
    upper_left = {f"b{i}": [("helmet", (15 + i, 14, 5 + i, 4))] for i in range(12)}  # in 48x64 pixels: fit as sizes
    lower_right = {f"c{i}": [("helmet", (60, 44, 40 + i, 30))] for i in range(6)}  # do not
    dataset = opened(make_voc(tmp_path, {**in_order, **upper_left, **lower_right}))
    assert only(dataset.errors, "swapped-corners").message.startswith("18 images have boxes with xmax below xmin")


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda x, y, w, h: (x, y, x + w, x), "ymax-is-xmin"),
        (lambda x, y, w, h: (x, y, x, y + h), "empty-boxes"),
        (lambda x, y, w, h: (0, 0, 0, 0), "empty-boxes"),
        (lambda x, y, w, h: (x / 64, y / 48, (x + w) / 64, (y + h) / 48), "fractions"),
        (lambda x, y, w, h: (x, y, w, h), "corner-and-size"),
    ],
)
def test_audit_names_a_fault_of_all_boxes_once_and_fix_leaves_them_out(
    make_voc: Callable[..., Path], tmp_path: Path, write: Callable[..., tuple[float, ...]], code: str
) -> None:
    boxes = [*((20 + i, 6, 12, 8) for i in range(10)), (4, 4, 16, 20)]  # x, y, width, height
    root = make_voc(tmp_path / "data", {f"a{i}": [("helmet", write(*box))] for i, box in enumerate(boxes)})
    dataset = AnnotatedDataset.open(root, on_error="skip", progress=False)
    assert [p.code for p in dataset.errors] == [code]
    assert dataset.left_out == 11
    with pytest.raises(UserError, match="no image can be corrected"):
        fix(root, tmp_path.with_name(f"{tmp_path.name}-fixed"), progress=False)


def test_audit_names_one_cause_of_many_unreadable_labels(make_yolo: Callable[..., Path]) -> None:
    root = make_yolo({"a": "0,.5,.5,.2,.2\n", "b": "1,.5,.5,.2,.2\n", "c": "0,.4,.4,.2,.2\n"})
    (problem,) = AnnotatedDataset.open(root, on_error="skip", progress=False).errors
    assert problem.message.startswith("3 images: expected a class number and normalised coordinates, got '0,")
    assert problem.message.endswith("separate the numbers by spaces")
    assert len(problem.files) == 3


@pytest.fixture
def make_set(make_voc: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`make_set(format, images, size)` draws images with helmets; `images` are lists of the four numbers of the format."""

    def make(format: str, images: Sequence[Sequence[tuple[float, ...]]], size: tuple[int, int]) -> Path:
        stems = [f"a{i:02d}" for i in range(len(images))]
        boxes = [[("helmet", box) for box in row] for row in images]
        root = make_voc(tmp_path / "data", dict(zip(stems, boxes, strict=True)), size=size)
        if format == "VOC":
            return root
        shutil.rmtree(root / "Annotations")
        if format == "YOLO":
            (root / "JPEGImages").rename(root / "images")
            (root / "labels").mkdir()
            (root / "classes.txt").write_text("helmet\n")
            for stem, row in zip(stems, images, strict=True):
                (root / "labels" / f"{stem}.txt").write_text("".join("0 {:g} {:g} {:g} {:g}\n".format(*box) for box in row))
            return root
        annotations = [{"image_id": i, "category_id": 1, "bbox": box} for i, row in enumerate(images) for box in row]
        content = {
            "images": [{"id": i, "file_name": f"{stem}.jpg"} for i, stem in enumerate(stems)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "helmet"}],
        }
        (root / "train.json").write_text(json.dumps(content))
        return root

    return make


def box_problems(root: Path) -> list[Problem]:
    return [p for p in opened(root).problems if p.code not in ("class-missing", "no-objects")]


BOXES = [(70 + 9 * i, 20 + 17 * (i % 10), 20 + i % 7, 30) for i in range(24)]  # x, y, width, height; in 240x320 pixels
BOXES[:3] = [(2, 60 + i, 30, 30) for i in range(3)]


@pytest.mark.parametrize(
    ("format", "write", "code", "part", "is_corrected"),
    [
        (
            "COCO",
            lambda x, y, w, h: (x, y, x + w, y + h),
            "corners-as-size",
            " of 24 boxes do not fit their images, but they do as x1 y1",
            True,
        ),
        (
            "COCO",
            lambda x, y, w, h: (y, x, h, w),
            "x-and-y",
            "6 of 24 boxes do not fit their images, but they do if x and y are",  # x + w / 2 > 240 from the 19th on
            False,
        ),
        (
            "VOC",
            lambda x, y, w, h: (x, x + w, y, y + h),
            "columns",
            " of 24 boxes do not fit their images, but they do as x1 x2",
            False,
        ),
        ("VOC", lambda x, y, w, h: (x, 240 - y, x + w, 210 - y), "y-reversed", "ymax is below ymin in all 24 boxes", False),
        ("VOC", lambda x, y, w, h: (x + w, y + h, x, y), "swapped-corners", "24 images have boxes with xmax below xmin", True),
        ("VOC", lambda x, y, w, h: (x, 245, x + w, 210), "swapped-corners", "24 images have boxes with xmax below", None),
        (
            "VOC",
            lambda x, y, w, h: (x, y, w, h),
            "corner-and-size",
            "all of them fit the images as x, y, width and height: write xmin + width",
            False,
        ),
    ],
)
def test_audit_names_another_meaning_of_all_boxes(
    make_set: Callable[..., Path],
    tmp_path: Path,
    format: str,
    write: Callable[..., tuple[float, ...]],
    code: str,
    part: str,
    is_corrected: bool | None,
) -> None:
    root = make_set(format, [[write(*box)] for box in BOXES], (240, 320))
    (problem,) = box_problems(root)
    assert (problem.severity, problem.code) == ("error", code)
    assert part in problem.message
    if is_corrected:
        assert fixed_boxes(root, tmp_path / "fixed") == [pytest.approx((x, y, x + w, y + h)) for x, y, w, h in BOXES]
    elif is_corrected is False:
        with pytest.raises(UserError, match="no image can be corrected"):
            fix(root, tmp_path / "fixed", progress=False)


def fixed_boxes(root: Path, out: Path) -> list[tuple[float, ...]]:
    """The boxes after `fix`, in the order of the images."""
    fix(root, out, progress=False)
    images = sorted((i for part in opened(out).splits.values() for i in part), key=lambda i: i.image)
    return [o.box_xyxy for i in images for o in i.objects]


def test_fix_converts_percentages_that_span_their_images(make_set: Callable[..., Path], tmp_path: Path) -> None:
    # left, middle and right, ever lower
    percentages = [[(2 + i / 4, 2 + 3 * i, 10, 15), (40, 50, 10, 15), (85, 80, 10 + i / 10, 15)] for i in range(20)]
    root = make_set("COCO", percentages, (300, 400))
    (problem,) = box_problems(root)
    assert (problem.severity, problem.code) == ("error", "percent")
    assert problem.message.startswith("all 60 boxes lie between 0 and 100: ")
    boxes = fixed_boxes(root, tmp_path / "fixed")
    assert boxes[:3] == [pytest.approx(box) for box in [(8, 6, 48, 51), (160, 150, 200, 195), (340, 240, 380, 285)]]
    (change,) = json.loads((tmp_path / "fixed" / "changes.json").read_text())["changes"]
    assert change["message"].endswith("percentages of width and height; they were converted")


def top_heads() -> list[list[tuple[float, ...]]]:
    cut = [(0.1 + 0.2 * i, 0.03, 0.06, 0.1) for i in range(4)]
    return [[(0.1 + 0.1 * (i % 8), 0.2 + 0.1 * (i // 8), 0.06, 0.1) for i in range(56)], cut]


@pytest.mark.parametrize(
    ("format", "size", "images"),
    [
        ("COCO", (240, 320), [[box] for box in BOXES]),
        ("VOC", (240, 320), [[(x, y, x + w, y + h)] for x, y, w, h in BOXES]),
        # a door in the upper left of a fixed camera
        *[(format, (480, 640), [[(46 + i, 24 + i, 68 + i, 49 + i)] for i in range(14)]) for format in ("VOC", "COCO")],
        ("YOLO", (480, 640), [[(0.09 + i / 400, 0.08, 0.03, 0.05)] for i in range(14)]),
        # the same in many images, and 100 pixels of small ones
        ("VOC", (480, 640), [[(46 + i, 24 + j, 68 + i, 49 + j) for j in (0, 9, 18)] for i in range(20)]),
        ("VOC", (260, 200), [[(5 + i, 5 + i, 80 + i, 80 + j) for j in (0, 5, 19)] for i in range(20)]),
        # close-ups that cross the edges
        ("YOLO", (200, 200), [[(0.48 + i / 200, 0.52 - i / 200, 0.95, 0.96)] for i in range(14)]),
        ("YOLO", (480, 640), [[(0.35 + i / 50, 0.64, 0.66 + i / 100, 0.85)] for i in range(14)]),
        ("COCO", (300, 300), [[(i * 2, 20 - i, 290, 295)] for i in range(14)]),
        # bodies in the left half, 4 of 13 of them beyond the lower edge
        *[
            ("VOC", (480, 640), [[(20 + 20 * i, 300, 110 + 20 * i, y2 if i < 4 else 400)] for i in range(13)])
            for y2 in (520, 620)
        ],
        # heads that one edge cuts
        ("YOLO", (480, 640), top_heads()),
        ("COCO", (480, 640), [[(8 * i, 440 if i < 4 else 100, 40, 60) for i in range(60)]]),
    ],
)
def test_audit_keeps_good_boxes(
    make_set: Callable[..., Path], format: str, size: tuple[int, int], images: list[list[tuple[float, ...]]]
) -> None:
    problems = box_problems(make_set(format, images, size))
    # of 20 images and 50 boxes in the upper left, the audit says that they may belong to smaller images
    assert {(p.severity, p.code) for p in problems} <= {("warning", "box-beyond"), ("warning", "other-size")}


def test_audit_pixels_in_yolo_labels_are_no_percentages(make_set: Callable[..., Path]) -> None:
    spread = [[(10, 10, 10, 10), (40 + i, 35 + i, 30, 30), (80, 80, 30, 30)] for i in range(20)]
    assert [p.code for p in box_problems(make_set("YOLO", spread, (480, 640)))] == ["pixel-values"]


def test_audit_suspects_corners_as_sizes_of_boxes_slightly_beyond_images(
    make_set: Callable[..., Path],
) -> None:
    # as sizes, all end at 1.15 times the sides
    root = make_set("COCO", [[(60 + i, 50 + i, 170 - i, 180 - i)] for i in range(12)], (200, 200))
    (problem,) = [p for p in box_problems(root) if p.code != "box-beyond"]
    assert (problem.severity, problem.code) == ("warning", "corners-as-size")
    assert problem.message.startswith("12 of 12 boxes extend far beyond their images")


def test_audit_suspects_corners_where_centres_are_expected(make_yolo: Callable[..., Path]) -> None:
    boxes = [(i % 7 / 7, i // 7 / 8, 0.125, 0.125) for i in range(50)]  # x1 y1 width height; 13 touch the left or upper edge
    root = make_yolo({"a": "".join("0 {:g} {:g} {:g} {:g}\n".format(*box) for box in boxes)})
    problem = only(opened(root).problems, "corner-or-centre")
    assert problem.severity == "warning"
    assert problem.message.startswith(
        "14 of 50 boxes extend beyond the left or upper edge of their images, none beyond the others"
    )
    (root / "labels" / "a.txt").write_text("".join(f"0 {x + 0.0625} {y + 0.0625} {w} {h}\n" for x, y, w, h in boxes))
    assert not [p for p in opened(root).problems if p.code == "corner-or-centre"]


def test_audit_lists_images_of_two_splits_once_and_fix_keeps_those_for_training(
    make_voc: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_voc(tmp_path / "data", list("abcde"), {"train": "abcde", "val": "abcd"})
    problem = only(opened(root).errors, "in-two-splits")
    assert problem.message.startswith("4 images are listed in both val and train, such as a, b, c: ")
    assert problem.files == tuple("abcd")
    assert fix(root, tmp_path / "fixed", progress=False).images == {"train": 1, "val": 4}
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    assert fix(root, tmp_path / "again", progress=False).images == {"train": 4}


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda x, y, w, h: (x, y, x + w, x), "ymax-is-xmin"),
        (lambda x, y, w, h: (x / 64, y / 48, (x + w) / 64, (y + h) / 48), "fractions"),
        (lambda x, y, w, h: (x, y, w, h), "corner-and-size"),
    ],
)
def test_audit_systematic_box_fault_is_one_problem_and_fix_omits_its_images(
    make_voc: Callable[..., Path], tmp_path: Path, write: Callable[..., tuple[float, ...]], code: str
) -> None:
    boxes = [(20 + i, 24 + i % 3, 12 + i % 5, 9 + i % 4) for i in range(12)]
    objects = {f"bad{i}": [("helmet", write(*box))] for i, box in enumerate(boxes)}
    objects |= {f"good{i}": [("helmet", (x, y, x + w, y + h))] for i, (x, y, w, h) in enumerate(boxes * 2)}
    root = make_voc(tmp_path / "data", objects)
    dataset = opened(root)
    problem = only(dataset.errors, code)
    assert problem.message.startswith("12 images have ")
    assert sorted(Path(file).stem for file in problem.files) == sorted(f"bad{i}" for i in range(12))
    assert dataset.left_out == 12
    fixed = fix(root, tmp_path.with_name(f"{tmp_path.name}-fixed"), progress=False)
    assert [(c.code, c.left_out) for c in fixed.changes] == [(code, True)]
    assert (fixed.left_out, fixed.images) == (12, {"all": 24})


def test_audit_command_names_missing_images_once_with_examples(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(tmp_path, list("abcdef"))
    for stem in "abcde":
        (root / "JPEGImages" / f"{stem}.jpg").unlink()
    assert run_cli("audit", root) == 1
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "the images of 5 annotations are missing" in printed
    assert "(such as a.xml, b.xml, c.xml; 2 more, listed by --json FILE)" in printed


AS_SIZES = [(20 + i, 24 + i % 3, 12 + i % 5, 9 + i % 4) for i in range(12)]  # x, y, width, height


def test_audit_keeps_an_image_with_the_first_pixel_as_its_only_box(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes = {"a": (0, 0, 1, 1), "b": (5, 5, 20, 20), "c": (5.5, 5, 20, 20)}
    dataset = opened(make_voc(tmp_path, {name: [("helmet", box)] for name, box in boxes.items()}))
    assert (dataset.errors, dataset.left_out) == ([], 0)


def test_audit_names_one_image_of_fractions(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    boxes = {"a": (0.1, 0, 1, 1), "b": (5, 5, 20, 20), "c": (5, 5, 21, 20)}
    dataset = opened(make_voc(tmp_path, {name: [("helmet", box)] for name, box in boxes.items()}))
    assert only(dataset.errors, "fractions").message.startswith("1 image has all boxes between 0 and 1")


def test_audit_finds_sizes_as_corners_next_to_a_stray_slip(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    objects = {f"bad{i}": [("helmet", box)] for i, box in enumerate(AS_SIZES)}
    objects["slip"] = [("helmet", (60, 40, 30, 20))]  # 60 + 30 exceeds the width of 64
    dataset = opened(make_voc(tmp_path, objects))
    assert only(dataset.errors, "corner-and-size").message.startswith("12 images have ")
    assert Path(only(dataset.errors, "swapped-corners").file).stem == "slip"


def test_fix_names_the_fault_of_each_image(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    objects = {f"bad{i}": [("helmet", box)] for i, box in enumerate(AS_SIZES)}
    objects |= {f"part{i}": [("helmet", (0.1, 0.1, 0.5, 0.5))] for i in range(4)}
    objects["good"] = [("helmet", (40, 5, 60, 40))]
    fixed = fix(make_voc(tmp_path / "data", objects), tmp_path / "fixed", progress=False)
    assert [(c.code, c.message.partition(" have ")[0]) for c in fixed.changes] == [
        ("corner-and-size", "12 images"),
        ("fractions", "4 images"),
    ]


def test_audit_counts_the_images_of_one_coco_file(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, list("abcdef"))
    file = coco(root, {name: [5, 5, 10, 10] for name in "abcdef"})
    content = json.loads(file.read_text())
    for image, factor in zip(content["images"], (2, 2, 2, 3, 3, 3), strict=True):
        image |= {"width": 64 * factor, "height": 48 * factor}
    content["images"] += [{"id": name, "file_name": f"{name}.jpg"} for name in "xyz"]
    file.write_text(json.dumps(content))
    dataset = opened(file)
    twice, thrice = [p for p in dataset.errors if p.code == "size-differs"]
    assert twice.message.startswith("3 images are annotated for images 2 times")
    assert thrice.message.startswith("3 images are annotated for images 3 times")
    assert [Path(name).name for name in (*twice.files, *thrice.files)] == [f"{name}.jpg" for name in "abcdef"]
    gone = only(dataset.errors, "no-image")
    assert gone.message.startswith("the images of 3 annotations are missing")
    assert gone.message.endswith("(such as image x.jpg, image y.jpg, image z.jpg)")
    assert gone.files == (str(file),)


def test_audit_names_file_and_image_of_coco_apart(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = coco(make_voc(tmp_path, ["a"]), {"a": [5, 5, 0, 10], "gone": [5, 5, 10, 10]})
    page = tmp_path / "page.html"
    assert run_cli("audit", file, "--json", tmp_path / "audit.json", "--html", page) == 1
    rows = json.loads((tmp_path / "audit.json").read_text())["problems"]
    assert [(row["file"], row["object"]) for row in rows if row["severity"] == "error"] == [
        (str(file), "image a.jpg: object 1 (helmet)"),
        (str(file), "image gone.jpg"),
    ]
    assert "train.json: image gone.jpg" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "<figcaption>image a.jpg: object 1 (helmet)" in page.read_text()
