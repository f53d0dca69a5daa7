"""The Python snippets of ppe_yolo/README.md run, one after the other, and those of GUIDE.md on what they wrote."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import ROOT, blocks

from ppe_yolo.core.drawing import save_image
from ppe_yolo.data.synthetic import draw_site

PAGE = ROOT / "ppe_yolo" / "README.md"


def python_blocks(page: Path) -> list[str]:
    return ["\n".join(block.lines) for block in blocks(page.read_text()) if block.language == "python"]


def test_snippets_of_the_library_run_and_give_what_they_say(
    tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image("site.jpg", draw_site(np.random.default_rng(5), (480, 640))[0])
    (tmp_path / "DIR").symlink_to(tiny_site)
    names: dict[str, object] = {}
    snippets = python_blocks(PAGE)
    for snippet in snippets:
        exec(compile(snippet, PAGE.name, "exec"), names)
    assert len(snippets) >= 5
    printed = capsys.readouterr().out
    assert len(names["alarms"]) == printed.count("helmet [") + printed.count("bare head [") >= 1
    assert cv2.imread("drawn.jpg").shape == (480, 640, 3)
    assert "Pascal VOC" in printed and "'test': 4" in printed
    assert 0 <= names["result"].metrics["map_50"] <= 1 and (tmp_path / "evaluation" / "metrics.json").is_file()
    assert [tuple(m.shape[:1]) for m in names["raw_maps"]] == [(1,)] * 3
    (tmp_path / "test").symlink_to("evaluation")
    coco, supervision = python_blocks(ROOT / "ppe_yolo" / "GUIDE.md")
    exec(compile(coco, "GUIDE.md", "exec"), names)
    # of this model, that was not trained on drawn images, more than 100 detections of an image count
    assert names["evaluation"].stats[1] == pytest.approx(names["result"].metrics["map_50"], abs=0.005)
    if find_spec("supervision"):
        exec(compile(supervision, "GUIDE.md", "exec"), {})
        assert cv2.imread("annotated.jpg").shape == (480, 640, 3)
