"""Faults that a tool makes in every annotation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ppe_yolo.data.dataset import AnnotatedDataset


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
    root = make_voc(tmp_path, {name: [("helmet", (5, 5, 5, 30))] for name in "abcde"})
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
