"""Images corrupted to a stated degree, and a detector of red spots measured on them."""

import json

import cv2
import numpy as np
import pytest

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.corruptions import CORRUPTIONS
from ppe_yolo.evaluation.evaluate import evaluate
from ppe_yolo.evaluation.report.report import report

BY_NAME = {c.name: c for c in CORRUPTIONS}
SIZE = (90, 120)
SPOT = (30.0, 20.0, 70.0, 60.0)


def image():
    canvas = np.full((*SIZE, 3), 100, dtype=np.uint8)
    x1, y1, x2, y2 = (int(v) for v in SPOT)
    canvas[y1:y2, x1:x2] = (255, 0, 0)
    return canvas


@pytest.mark.parametrize("name", BY_NAME)
def test_corruption_depends_on_seed_and_keeps_input(name):
    before = image()
    (one, shift), (again, _), (other, _) = (BY_NAME[name].apply(before, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and one.dtype == np.uint8
    assert np.array_equal(one, other) == (name not in ("motion blur", "night", "rain"))
    assert np.array_equal(before, image())
    assert (one.shape, shift) == (((180, 240, 3), (60, 45)) if name == "far" else (before.shape, (0, 0)))
    assert not np.array_equal(one, before)


def test_corruption_severities_match_hand_calculation():
    corrupted = {name: corruption.apply(image(), 0)[0].astype(float) for name, corruption in BY_NAME.items()}
    # 40 % of the contrast, 30 % of white: 0.4 v + 76.5
    assert corrupted["fog"][0, 0] == pytest.approx(116, abs=1) and corrupted["fog"][30, 40] == pytest.approx(
        (178, 76, 76), abs=1
    )
    # (100 / 255)^2.5 x 255 = 24.6, and noise of 12.75, of which black cuts off a little
    assert corrupted["night"][:, :25].mean() == pytest.approx(24.6, abs=1) and 11 < corrupted["night"][:, :25].std() < 13
    done, data = cv2.imencode(".jpg", image()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
    assert done and np.array_equal(corrupted["jpeg"], cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    # an edge from 100 to 255 under a Gaussian of sigma 0.6: pixels weigh 1, e^(-1 / 0.72) = 0.249, e^(-4 / 0.72) = 0.004
    inside = (1 + 0.249 + 0.004) / (1 + 2 * (0.249 + 0.004))
    assert corrupted["blur"][40, 29:31, 0] == pytest.approx((255 - 155 * inside, 100 + 155 * inside), abs=1)
    # twice as far: the image in the middle of a canvas twice as large
    assert np.array_equal(corrupted["far"][45:135, 60:180], image()) and (corrupted["far"][:45] == 114).all()


def test_corruption_lengths_scale_with_image_size():
    rng = np.random.default_rng(0)
    small = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(small, (960, 720), interpolation=cv2.INTER_CUBIC)
    shrunk = cv2.resize(BY_NAME["blur"].apply(large, 0)[0], (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - BY_NAME["blur"].apply(small, 0)[0].astype(int)).mean() < 1


class SeesRed:
    """Detects the one red spot: a helmet with a score of 0.9."""

    contract = ModelContract(("helmet", "none"), (96, 128), alarm_thresholds={"helmet": 0.5, "none": 0.4})

    def detect(self, images):
        result = []
        for pixels in images:
            red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(axis=-1)
            y, x = np.nonzero(red)
            boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1]] if len(x) > 400 else []
            result.append(
                Detections(
                    np.array(boxes, dtype=np.float32).reshape(-1, 4),
                    np.full(len(boxes), 0.9, dtype=np.float32),
                    np.zeros(len(boxes), dtype=np.int64),
                )
            )
        return result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two images with a red spot, which is lower in the second."""
    root = tmp_path_factory.mktemp("voc")
    (root / "JPEGImages").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for stem, lower in (("upper", 0), ("lower", 20)):
        pixels = np.roll(image(), lower, axis=0)
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}.png"), pixels[..., ::-1])
        x1, y1, x2, y2 = SPOT
        marked = [AnnotatedObject("helmet", (x1, y1 + lower, x2, y2 + lower))]
        write_voc_annotation(
            root / "Annotations" / f"{stem}.xml", image_name=f"{stem}.png", image_size=(*SIZE, 3), objects=marked
        )
    (root / "ImageSets/Main/test.txt").write_text("upper\nlower")
    return root


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    evaluate(SeesRed(), "red.ckpt", str(data), folder, images=0, with_report=True, robustness=True)
    return folder


def test_robustness_has_figures_of_each_corruption(out):
    result = json.loads((out / "robustness.json").read_text())
    assert result["thresholds"] == {"helmet": 0.5, "none": 0.4}
    assert result["clean"]["map_50"] == 1.0 and result["clean"]["per_class"]["helmet"]["recall"] == 1.0
    rows = {row["name"]: row for row in result["conditions"]}
    assert set(rows) == set(BY_NAME)
    # in fog red is no longer red
    assert (rows["fog"]["map_50"], rows["fog"]["change_map_50"], rows["fog"]["per_class"]["helmet"]["recall"]) == (0, -1, 0)
    # objects move with the image: else nothing would overlap
    assert (rows["far"]["map_50"], rows["far"]["map"], rows["far"]["change_map_50"]) == (1.0, 1.0, 0)
    assert rows["far"]["per_class"]["none"] == {"ap_50": None, "recall": None, "false_alarms_per_1000": 0}
    changes = [row["change_map_50"] for row in result["conditions"]]
    assert changes == sorted(changes)
    for row in rows.values():
        picture = cv2.imread(str(out / row["picture"]))
        assert picture.shape == ((180, 240, 3) if row["name"] == "far" else (*SIZE, 3))


def test_report_names_corruptions_that_fail(out, data, tmp_path):
    page = (out / "report.html").read_text()
    assert page.count('<figure id="corruption-') == len(CORRUPTIONS)
    failing = page.split("<strong>It fails here: ")[1].split("</strong>")[0].split(", ")
    assert "fog" in failing and "far" not in failing and "jpeg" not in failing
    assert (
        "fog: mAP@0.5 = 0.00% (-100.00 points); recall of helmet 0.00%, recall of none undefined"
        in (out / "results.txt").read_text()
    )
    # `ppe-yolo report` reads the file next to the detections
    report(out / "detections.json", str(data), tmp_path)
    assert (tmp_path / "results.txt").read_text() == (out / "results.txt").read_text()
    assert (tmp_path / "report.html").read_text().count('<figure id="corruption-') == len(CORRUPTIONS)


def test_report_ignores_robustness_of_earlier_evaluation(data, tmp_path):
    (tmp_path / "robustness.json").write_text("{}")
    evaluate(SeesRed(), "red.ckpt", str(data), tmp_path, images=0, with_report=True)
    assert not (tmp_path / "robustness.json").exists()
    assert "corruptions" not in (tmp_path / "report.html").read_text()
    (tmp_path / "robustness.json").write_text("[]")
    with pytest.raises(UserError, match="expected a file written by `ppe-yolo evaluate --robustness`"):
        report(tmp_path / "detections.json", str(data), tmp_path / "report")
