"""Figures by domain and size: by hand, and from several data sets through evaluate and report."""

import json

import numpy as np
import pytest

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.evaluation.data_sets import DataSpec, open_data_sets, parse_data
from ppe_yolo.evaluation.evaluate import evaluate
from ppe_yolo.evaluation.files.detections import read_detections
from ppe_yolo.evaluation.files.ground_truth import read_ground_truth
from ppe_yolo.evaluation.metrics.domain_figures import domain_figures
from ppe_yolo.evaluation.metrics.matching import TargetTable, detection_table
from ppe_yolo.evaluation.report.report import report

NAMES = ("helmet", "none")
NEAR, FAR, OTHER = (0, 0, 40, 40), (100, 100, 116, 116), (200, 200, 240, 240)


def measured(detected, annotated, image_sizes, thresholds=(0.5, 0.5)):
    """Rows of (image, label, score, box) and (image, label, box, difficult); an input of 100 x 200 pixels."""
    return domain_figures(
        "site",
        detection_table(*([r[i] for r in detected] for i in (0, 3, 1, 2))),
        TargetTable(
            images=np.array([r[0] for r in annotated], dtype=np.int64),
            boxes_xyxy=np.array([r[2] for r in annotated], dtype=np.float64).reshape(-1, 4),
            labels=np.array([r[1] for r in annotated], dtype=np.int64),
            difficult=np.array([len(r) > 3 for r in annotated], dtype=bool),
        ),
        np.array(image_sizes),
        input_size=(100, 200),
        class_names=NAMES,
        thresholds=dict(zip(NAMES, thresholds, strict=True)),
    )


def test_domain_figures_sort_heads_by_size_in_network_input():
    # the first image is halved (400 x 200 -> 200 x 100), the second keeps its size
    annotated = [(0, 0, NEAR), (0, 0, FAR), (1, 0, FAR)]
    figures = measured([(0, 0, 0.9, NEAR), (1, 0, 0.9, FAR), (1, 0, 0.4, NEAR)], annotated, [(200, 400), (100, 200)])
    objects = {size: one.per_class["helmet"].objects for size, one in figures.by_size.items()}
    # sides 40 / 2, 16 / 2 and 16: a head of 16 pixels belongs to the size that starts at 16
    assert objects == {"all": 3, "<10": 1, "10-16": 0, "16-96": 2, ">=96": 0}
    recalls = {size: one.per_class["helmet"].recall for size, one in figures.by_size.items()}
    assert recalls == {"all": pytest.approx(2 / 3), "<10": 0.0, "10-16": None, "16-96": 1.0, ">=96": None}
    assert figures.by_size["16-96"].map_50 == 1.0 and figures.by_size["<10"].map_50 == 0.0
    assert figures.by_size["10-16"].map_50 is None


def test_domain_figures_match_at_lower_iou_and_alarm_thresholds():
    shifted = (15, 0, 55, 40)  # IoU 25 / 55 with NEAR: below 0.5, above 0.3
    figures = measured([(0, 0, 0.6, shifted)], [(0, 0, NEAR)], [(100, 200)])
    assert figures.by_size["all"].per_class["helmet"].recall == 1.0 and figures.by_size["all"].map_50 == 0.0
    higher = measured([(0, 0, 0.6, shifted)], [(0, 0, NEAR)], [(100, 200)], thresholds=(0.7, 0.5))
    assert higher.by_size["all"].per_class["helmet"].recall == 0.0
    assert higher.by_size["all"].per_class["helmet"].false_alarms == 0


def test_domain_figures_count_heads_taken_for_the_other_class():
    detected = [(0, 1, 0.9, NEAR), (0, 0, 0.8, OTHER), (0, 1, 0.7, OTHER)]
    figures = measured(detected, [(0, 0, NEAR), (0, 0, OTHER), (0, 0, FAR)], [(300, 300)])
    helmet, bare = (figures.by_size["all"].per_class[n] for n in NAMES)
    # the first head has an alarm of the other class alone; the stronger of two alarms on the second is right
    assert (helmet.objects, helmet.detected, helmet.confused) == (3, 1, 1)
    assert (bare.objects, bare.false_alarms, bare.recall, bare.confused_share) == (0, 2, None, None)


def test_domain_figures_of_images_without_objects_count_false_alarms():
    figures = measured([(0, 0, 0.9, NEAR), (0, 1, 0.9, NEAR), (1, 0, 0.4, NEAR)], [], [(100, 200)] * 4)
    whole = figures.by_size["all"]
    assert (figures.images, figures.empty_images) == (4, 4)
    assert (whole.map_50, whole.empty_images_with_alarm, whole.empty_images_with_alarm_share) == (None, 1, 0.25)
    assert whole.per_class["helmet"].false_alarms_per_1000 == 250.0
    assert figures.by_size["<10"].empty_images_with_alarm == 0 and figures.by_size["16-96"].empty_images_with_alarm == 1


def test_difficult_objects_make_an_image_not_empty_and_are_not_asked_for():
    figures = measured([(0, 0, 0.9, NEAR)], [(0, 0, NEAR, "difficult")], [(100, 200)])
    whole = figures.by_size["all"]
    assert figures.empty_images == 0 and whole.empty_images_with_alarm_share is None
    assert (whole.per_class["helmet"].objects, whole.per_class["helmet"].false_alarms) == (0, 0)


def test_parse_data_pairs_folders_with_class_maps(tmp_path):
    (tmp_path / "a=b").mkdir()
    texts = ["one", "two=shwd", str(tmp_path / "a=b"), f"{tmp_path}/a=b=shwd"]
    assert parse_data(texts, "default") == [
        DataSpec("one", "default"),
        DataSpec("two", "shwd"),
        DataSpec(str(tmp_path / "a=b"), "default"),
        DataSpec(str(tmp_path / "a=b"), "shwd"),
    ]


HELMET, BARE = (8.0, 8.0, 30.0, 30.0), (34.0, 8.0, 56.0, 30.0)


class Constant:
    """Detects a helmet in the same place of every image."""

    contract = ModelContract(
        NAMES, (96, 128), alarm_thresholds={"helmet": 0.5, "none": 0.5}, display_names={"none": "bare head"}
    )

    def detect(self, images):
        one = Detections(np.array([HELMET], dtype=np.float32), np.array([0.9], dtype=np.float32), np.array([0]))
        return [one for _ in images]


@pytest.fixture(scope="module")
def sites(tmp_path_factory, make_voc):
    """Two classes; one class, under other names; no object at all. Two data sets share an image name and a folder name."""
    root = tmp_path_factory.mktemp("sites")
    both = {f"b{i}": [("helmet", HELMET), ("none", BARE)] for i in range(3)} | {"same": [("helmet", HELMET)]}
    return [
        str(make_voc(root / "x" / "site", both, {"test": list(both)})),
        str(make_voc(root / "y" / "site", {"same": [("person", BARE)], "p1": [("person", BARE)]}, {"test": ["same", "p1"]})),
        str(make_voc(root / "empty", {"e0": [], "e1": []}, {"test": ["e0", "e1"]})),
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory, sites):
    folder = tmp_path_factory.mktemp("out")
    evaluate(Constant(), "model", specs(sites), folder, images=1, with_report=True)
    return folder


def specs(sites):
    return parse_data([sites[0], f"{sites[1]}=shwd", sites[2]], "default")


def test_open_data_sets_gives_each_domain_its_own_name(tmp_path):
    roots = [tmp_path / name for name in ("a/site-2", "b/site", "c/site")]
    for root in roots:
        draw_site_dataset(root, trainval=1, test=1, size=(32, 32))
    opened = open_data_sets([DataSpec(str(root)) for root in roots], None, split="test", on_error="skip")
    assert list(opened) == ["site-2", "site", "site-3"]


def test_evaluate_of_several_data_sets_lists_each_domain(out):
    metrics = json.loads((out / "metrics.json").read_text())
    rows = {d["name"]: d for d in metrics["domains"]}
    assert list(rows) == ["site", "site-2", "empty"]
    assert [d["class_map"] for d in rows.values()] == ["default", "shwd", "default"]
    assert metrics["images"] == 8 and [d["images"] for d in rows.values()] == [4, 2, 2]
    whole = {name: d["by_size"]["all"] for name, d in rows.items()}
    assert whole["site"]["per_class"]["helmet"]["recall"] == 1.0 and whole["site"]["per_class"]["none"]["recall"] == 0.0
    assert whole["site-2"]["per_class"]["helmet"]["false_alarms_per_1000"] == 1000.0
    assert whole["empty"]["empty_images_with_alarm_share"] == 1.0 and whole["empty"]["map"] is None


def test_ground_truth_keeps_domains_and_unique_names(out):
    truth = read_ground_truth(out / "ground_truth.json")
    assert truth.domains == ("site", "site-2", "empty") and len({i.name for i in truth.images}) == 8
    assert truth.domain_of.tolist() == [0] * 4 + [1] * 2 + [2] * 2
    assert truth.info.input_size == (96, 128) and truth.info.display_names == {"none": "bare head"}
    detections = read_detections(out / "detections.json", 8, NAMES)
    moved, again = truth.sorted_by_name(detections)
    assert [i.name for i in moved.images] == sorted(i.name for i in truth.images)
    pairs = {(truth.images[i].name, *b) for i, b in zip(truth.targets.images, truth.targets.boxes_xyxy.tolist(), strict=True)}
    assert pairs == {
        (moved.images[i].name, *b) for i, b in zip(moved.targets.images, moved.targets.boxes_xyxy.tolist(), strict=True)
    }
    assert sorted(again.images.tolist()) == list(range(8))


def test_report_of_several_data_sets_shows_each_domain_and_display_names(out, sites, tmp_path):
    # in another order than they were evaluated in
    written = report(out / "detections.json", specs(sites)[:1] + specs(sites)[2:] + specs(sites)[1:2], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert all(f"<h3>{name}: " in page for name in ("site", "site-2", "empty"))
    assert "bare head: recall" in page
    evaluated = json.loads((out / "metrics.json").read_text())
    assert written.plain["coco"]["map_50"] == evaluated["map_50"] and written.plain["coco"]["map"] == evaluated["map"]
    with pytest.raises(UserError, match=r"expected --data for each evaluated data set \(site, site-2, empty\)"):
        report(out / "detections.json", specs(sites)[:2], tmp_path)


def test_evaluate_rejects_repeated_data_set_and_class_map_with_other_classes(sites, tmp_path):
    with pytest.raises(UserError, match="expected each data set once"):
        evaluate(Constant(), "model", parse_data([sites[0], sites[0] + "/"]), tmp_path)
    (tmp_path / "heads.yaml").write_text("class_names: [head]\nmap: {helmet: head, none: head, person: head}\n")
    with pytest.raises(UserError, match=r"heads.yaml: expected the classes of the model model"):
        evaluate(Constant(), "model", parse_data([sites[0], f"{sites[2]}={tmp_path}/heads.yaml"]), tmp_path / "out")
