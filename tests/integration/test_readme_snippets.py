"""The Python snippets of ppe_yolo/README.md run, one after the other, and those of GUIDE.md on what they wrote."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import python_blocks

from ppe_yolo.core.drawing import save_image
from ppe_yolo.data.synthetic import draw_site

PAGE, GUIDE = "ppe_yolo/README.md", "ppe_yolo/GUIDE.md"


def draw_image(path: Path) -> None:
    save_image(path, draw_site(np.random.default_rng(5), (480, 640))[0])


def test_snippets_of_the_library_run_and_give_documented_results(
    tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_image(tmp_path / "site.jpg")
    (tmp_path / "DIR").symlink_to(tiny_site)
    names: dict[str, object] = {}
    snippets = python_blocks(PAGE)
    for snippet in snippets:
        exec(compile(snippet, PAGE, "exec"), names)
    assert len(snippets) >= 5
    printed = capsys.readouterr().out
    assert len(names["alarms"]) == printed.count("helmet [") + printed.count("bare head [") >= 1
    assert cv2.imread("drawn.jpg").shape == (480, 640, 3)
    assert "Pascal VOC" in printed and "'test': 4" in printed
    assert 0 <= names["result"].metrics["map_50"] <= 1 and (tmp_path / "evaluation" / "metrics.json").is_file()
    assert [tuple(m.shape[:1]) for m in names["raw_maps"]] == [(1,)] * 3
    (tmp_path / "test").symlink_to("evaluation")
    coco, _ = python_blocks(GUIDE)
    exec(compile(coco, GUIDE, "exec"), names)
    # of this model, that was not trained on drawn images, more than 100 detections of an image count
    assert names["evaluation"].stats[1] == pytest.approx(names["result"].metrics["map_50"], abs=0.005)


def test_snippet_for_supervision_draws_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("supervision")
    monkeypatch.chdir(tmp_path)
    draw_image(tmp_path / "site.jpg")
    _, supervision = python_blocks(GUIDE)
    exec(compile(supervision, GUIDE, "exec"), {})
    assert cv2.imread("annotated.jpg").shape == (480, 640, 3)
