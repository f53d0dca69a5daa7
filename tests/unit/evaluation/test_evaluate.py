"""A detector that returns planted detections, on a small annotated data set."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.evaluation.evaluate import evaluate
from ppe_yolo.evaluation.metrics.matching import TargetTable, detection_table
from ppe_yolo.evaluation.mistake_images import count_mistakes
from ppe_yolo.evaluation.recorded import RecordedDetections

SIZE = (48, 64)
HELMET, BARE, HIDDEN = (4.0, 4.0, 20.0, 20.0), (30.0, 10.0, 46.0, 26.0), (40.0, 30.0, 60.0, 46.0)
# the images in the order of the list, and their objects
MARKED = {
    "clear": [AnnotatedObject("helmet", HELMET), AnnotatedObject("none", BARE)],
    "hidden": [AnnotatedObject("none", BARE), AnnotatedObject("none", HIDDEN, difficult=True)],
    "empty": [],
    "missed": [AnnotatedObject("helmet", HELMET), AnnotatedObject("helmet", BARE)],
}
# detections: label, score, box
PLANTED = {
    "clear": [(0, 0.9, HELMET), (1, 0.8, BARE)],
    "hidden": [(1, 0.7, BARE)],
    "empty": [(0, 0.6, HELMET)],
    "missed": [(1, 0.95, HELMET), (0, 0.2, BARE)],  # the wrong class, and one too weak to be drawn
}
MISTAKES = {"clear": 0, "hidden": 0, "empty": 1, "missed": 3}


class Planted:
    """Knows the images by their order."""

    contract = ModelContract(("helmet", "none"), (64, 64))

    def __init__(self):
        self.left = list(PLANTED)
        self.batches = []

    def detect(self, images):
        self.batches.append(len(images))
        result = []
        for image in images:
            assert image.shape == (*SIZE, 3)
            rows = sorted(PLANTED[self.left.pop(0)], key=lambda r: -r[1])
            result.append(
                Detections(
                    np.array([r[2] for r in rows], dtype=np.float32).reshape(-1, 4),
                    np.array([r[1] for r in rows], dtype=np.float32),
                    np.array([r[0] for r in rows], dtype=np.int64),
                )
            )
        return result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, (stem, objects) in enumerate(MARKED.items()):
        spots = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}.png"), cv2.resize(spots, SIZE[::-1], interpolation=cv2.INTER_CUBIC))
        write_voc_annotation(
            root / "Annotations" / f"{stem}.xml", image_name=f"{stem}.png", image_size=(*SIZE, 3), objects=objects
        )
    (root / "ImageSets/Main/test.txt").write_text("\n".join(MARKED))
    return root


@pytest.fixture(scope="module")
def outcome(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    (out / "pictures").mkdir()
    (out / "pictures" / "001_9-mistakes_old.jpg").touch()
    (out / "pictures" / "mine.jpg").touch()
    detector = Planted()
    evaluation = evaluate(detector, "planted", data, str(out), batch_size=3, images=3)
    assert detector.batches == [3, 1] and detector.left == []
    return out, evaluation


def test_evaluate_writes_metrics(outcome, data):
    out, evaluation = outcome
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == evaluation.metrics
    assert (metrics["model"], metrics["data"], metrics["split"]) == ("planted", str(data), "test")
    assert (metrics["images"], metrics["skipped_images"]) == (4, 0)
    helmet, bare = (metrics["per_class"][n] for n in ("helmet", "none"))
    assert (helmet["objects"], helmet["difficult"], helmet["detections"]) == (3, 0, 3)
    assert (bare["objects"], bare["difficult"], bare["detections"]) == (2, 1, 3)
    # helmet, by score: hit, false alarm, hit; two of three found: 34 recalls at 1, 33 at 2/3
    assert helmet["ap_50"] == pytest.approx((34 + 33 * 2 / 3) / 101) and helmet["recall_50"] == pytest.approx(2 / 3)
    # none: false alarm, hit, hit; the difficult one is no miss: 101 recalls at 2/3
    assert bare["ap_50"] == pytest.approx(2 / 3) and bare["recall_50"] == 1.0
    assert metrics["map_50"] == pytest.approx((helmet["ap_50"] + bare["ap_50"]) / 2)


def test_evaluate_writes_files_that_coco_tools_read(outcome):
    out, _ = outcome
    truth = COCO(str(out / "ground_truth.json"))
    assert [i["file_name"].rpartition("/")[2] for i in truth.dataset["images"]] == [f"{s}.png" for s in MARKED]
    assert {(i["height"], i["width"]) for i in truth.dataset["images"]} == {SIZE}
    assert truth.dataset["categories"] == [{"id": 1, "name": "helmet"}, {"id": 2, "name": "none"}]
    marked = [(a["image_id"], a["category_id"], a["iscrowd"], a["area"]) for a in truth.dataset["annotations"]]
    assert marked == [(1, 1, 0, 256), (1, 2, 0, 256), (2, 2, 0, 256), (2, 2, 1, 320), (4, 1, 0, 256), (4, 1, 0, 256)]
    rows = json.loads((out / "detections.json").read_text())
    assert rows[0] == {"image_id": 1, "category_id": 1, "bbox": [4.0, 4.0, 16.0, 16.0], "score": 0.9}
    assert [(r["image_id"], r["category_id"], r["score"]) for r in rows[1:]] == [
        (1, 2, 0.8),
        (2, 2, 0.7),
        (3, 1, 0.6),
        (4, 2, 0.95),
        (4, 1, 0.2),
    ]
    assert len(truth.loadRes(str(out / "detections.json")).getAnnIds()) == 6


def test_evaluate_draws_images_with_most_mistakes(outcome):
    out, _ = outcome
    names = sorted(p.name for p in (out / "pictures").iterdir())
    # equal numbers of mistakes keep the order; images of an earlier evaluation are gone, the user's own file is not
    assert names == ["001_3-mistakes_missed.jpg", "002_1-mistakes_empty.jpg", "003_0-mistakes_clear.jpg", "mine.jpg"]
    picture = cv2.imread(str(out / "pictures" / names[0]))
    assert picture.shape == (*SIZE, 3)
    assert cv2.imread(str(out / "precision_recall.png")) is not None


def test_evaluate_rejects_class_map_with_other_classes(data, tmp_path):
    (tmp_path / "heads.yaml").write_text("class_names: [head]\nmap: {helmet: head, none: head}\n")
    with pytest.raises(UserError) as error:
        evaluate(Planted(), "best.ckpt", str(data), tmp_path / "out", class_map=str(tmp_path / "heads.yaml"))
    assert str(error.value) == (
        f"class_map: {tmp_path / 'heads.yaml'}: expected the classes of the model best.ckpt (helmet, none), got head: "
        "choose another class map"
    )
    assert not (tmp_path / "out").exists()


def test_evaluate_writes_no_results_into_the_data_set(data):
    with pytest.raises(UserError, match=r"^out: .*eval: expected a folder outside of the data set, got one inside "):
        evaluate(Planted(), "planted", str(data), data / "eval")
    assert not (data / "eval").exists()


def test_interrupted_evaluation_leaves_no_metrics_of_an_earlier_one(data, tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text("{}")
    monkeypatch.setattr("ppe_yolo.evaluation.evaluate.write_detections", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        evaluate(Planted(), "planted", str(data), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_evaluate_rejects_class_map_with_other_order(data, tmp_path):
    (tmp_path / "turned.yaml").write_text("class_names: [none, helmet]\nmap: {helmet: helmet, none: none}\n")
    with pytest.raises(UserError, match=r"expected the classes of the model best.ckpt \(helmet, none\), got none, helmet"):
        evaluate(Planted(), "best.ckpt", str(data), tmp_path / "out", class_map=str(tmp_path / "turned.yaml"))


def test_evaluate_rejects_unknown_split(data, tmp_path):
    with pytest.raises(UserError, match="expected a split train, got test"):
        evaluate(Planted(), "best.ckpt", str(data), tmp_path / "out", split="train")
    with pytest.raises(UserError, match=r"best.ckpt does not record its validation images"):
        evaluate(Planted(), "best.ckpt", str(data), tmp_path / "out", split="val")


def mistakes(annotated, detected):
    """Rows of (label, box, difficult) and of (label, box)."""
    targets = TargetTable(
        images=np.zeros(len(annotated), dtype=np.int64),
        boxes_xyxy=np.array([m[1] for m in annotated], dtype=np.float64).reshape(-1, 4),
        labels=np.array([m[0] for m in annotated], dtype=np.int64),
        difficult=np.array([m[2] for m in annotated], dtype=bool),
    )
    scores = np.linspace(0.9, 0.8, len(detected))
    detections = detection_table([0] * len(detected), [d[1] for d in detected], [d[0] for d in detected], scores)
    return int(count_mistakes(detections, targets, 1)[0])


def test_count_mistakes_matches_hand_calculation():
    one, hard = (0, HELMET, False), (0, BARE, True)
    assert mistakes([], []) == 0
    assert mistakes([one], [(0, HELMET)]) == 0
    assert mistakes([one], []) == 1  # missed
    assert mistakes([], [(0, HELMET)]) == 1  # false alarm
    assert mistakes([one], [(1, HELMET)]) == 2  # the wrong class: missed, and a false alarm
    assert mistakes([one], [(0, HELMET), (0, HELMET)]) == 1  # detected twice
    assert mistakes([one], [(0, (4, 4, 20, 12.1))]) == 0  # IoU just above 0.5
    assert mistakes([one], [(0, (4, 4, 20, 11.9))]) == 2  # and just below
    assert mistakes([one, hard], [(0, HELMET)]) == 0  # a difficult one is no miss
    assert mistakes([one, hard], [(0, HELMET), (0, BARE)]) == 0  # and no false alarm


def test_evaluate_of_recorded_detections_gives_metrics_of_their_detector(data, outcome, tmp_path):
    folder, expected = outcome
    rows = json.loads((folder / "detections.json").read_text())
    names = [image["file_name"] for image in json.loads((folder / "ground_truth.json").read_text())["images"]]
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps([r | {"image_id": Path(names[r["image_id"] - 1]).stem} for r in rows]))
    recorded = RecordedDetections(theirs, load_class_map("default"))
    metrics = evaluate(recorded, str(theirs), str(data), tmp_path / "out").metrics
    for key in ("map", "map_50", "map_75", "per_class", "images"):
        assert metrics[key] == expected.metrics[key]
    with pytest.raises(UserError, match=r"robustness: expected a model, .*, got detections: .*theirs\.json"):
        evaluate(recorded, str(theirs), str(data), tmp_path / "out", robustness=True)
