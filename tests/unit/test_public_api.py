"""The names at the top of the package: they work, and import nothing that they do not need."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documents import python_blocks

import ppe_yolo
from ppe_yolo.core.boxes import pairwise_iou
from ppe_yolo.core.drawing import save_image
from ppe_yolo.data.synthetic import draw_site


def run_python(code: str, folder: Path) -> str:
    environment = {"PYTHONPATH": str(Path(ppe_yolo.__file__).parents[1]), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_snippet_detects_the_heads_of_a_site_without_torch(tmp_path: Path) -> None:
    image, objects = draw_site(np.random.default_rng(5), (480, 640))
    save_image(tmp_path / "site.jpg", image)
    report = """
import json, sys
heads = detections.select(detections.scores >= 0.4)
print(json.dumps([heads.boxes_xyxy.tolist(), "torch" in sys.modules]))
"""
    [snippet] = python_blocks("README.md")
    *printed, figures = run_python(snippet + report, tmp_path).splitlines()
    assert printed[0].startswith("Detections(boxes_xyxy=")
    boxes, torch_is_imported = json.loads(figures)
    # the bundled model was trained on real images: in a drawn one it finds the heads, and not always their helmets
    iou = pairwise_iou(np.array([o.box_xyxy for o in objects], dtype=np.float32), np.array(boxes, dtype=np.float32))
    assert (iou.max(axis=1) > 0.4).all() and not torch_is_imported


def test_package_import_is_light_and_its_names_are_lazy(tmp_path: Path) -> None:
    code = """
import sys, ppe_yolo
print([name for name in ("numpy", "cv2", "onnxruntime", "torch") if name in sys.modules])
from ppe_yolo import Detections, ModelContract, letterbox, load_detector
print([name for name in ("onnxruntime", "torch") if name in sys.modules])
"""
    assert run_python(code, tmp_path).split("\n") == ["[]", "[]", ""]


def test_public_names_are_listed_and_others_are_unknown() -> None:
    assert {"Detections", "ModelContract", "letterbox", "load_detector"} <= set(dir(ppe_yolo)) & set(ppe_yolo.__all__)
    with pytest.raises(AttributeError, match="module 'ppe_yolo' has no attribute 'load_model'"):
        ppe_yolo.load_model  # noqa: B018
