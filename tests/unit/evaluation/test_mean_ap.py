"""torchmetrics' average precision by hand, against a small reference, and over several processes."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ppe_yolo.evaluation.metrics.coco_ap import RECALLS
from ppe_yolo.evaluation.metrics.mean_ap import (
    build_metric,
    precision_recall_curves,
    summarise,
    to_metric_predictions,
    to_metric_targets,
)
from ppe_yolo.evaluation.metrics.plots import draw_curves
from ppe_yolo.model.boxes import pairwise_iou

NAMES = ("helmet", "none")


def detections(*rows):
    """Rows of (label, score, box_xyxy)."""
    return {
        "boxes_xyxy": torch.tensor([r[2] for r in rows], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([r[1] for r in rows], dtype=torch.float32),
        "labels": torch.tensor([r[0] for r in rows], dtype=torch.long),
    }


def targets(*rows):
    """Rows of (label, box_xyxy) or (label, box_xyxy, difficult)."""
    return {
        "boxes_xyxy": torch.tensor([r[1] for r in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([r[0] for r in rows], dtype=torch.long),
        "difficult": torch.tensor([len(r) > 2 and r[2] for r in rows], dtype=torch.bool),
    }


def measured(images, max_detections=100):
    metric = build_metric(max_detections)
    for detected, annotated in images:
        metric.update(to_metric_predictions([detected]), to_metric_targets([annotated]))
    return metric.compute()


A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60)


def test_summarise_average_precision_matches_hand_calculation():
    # in falling order of score: hit, false alarm, hit; two of three objects are detected
    detected = detections((0, 0.9, A), (0, 0.8, (70, 70, 90, 90)), (0, 0.7, B))
    summary = summarise(measured([(detected, targets((0, A), (0, B), (0, C)))]), NAMES)
    # precision 1 up to recall 1/3 (34 of 101 recalls: 0 to 0.33), then 2/3 up to 2/3 (33: 0.34 to 0.66), then 0
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert summary["map_50"] == pytest.approx(expected)
    assert summary["per_class"]["helmet"] == pytest.approx({"ap": expected, "ap_50": expected, "recall_50": 2 / 3})
    assert summary["per_class"]["none"] == {"ap": None, "ap_50": None, "recall_50": None}


def test_map_averages_stricter_iou_thresholds():
    # 20x20 against 20x16 within it: IoU 0.8, so a hit at 0.50 to 0.80 (7 of 10 thresholds) and none at 0.85 to 0.95
    summary = summarise(measured([(detections((0, 0.9, (0, 0, 20, 16.1))), targets((0, A)))]), NAMES)
    assert (summary["map_50"], summary["map_75"]) == (1.0, 1.0)
    assert summary["map"] == pytest.approx(0.7)
    # IoU 0.6: none at 0.75
    summary = summarise(measured([(detections((0, 0.9, (0, 0, 20, 12.1))), targets((0, A)))]), NAMES)
    assert (summary["map_50"], summary["map_75"], summary["map"]) == (1.0, 0.0, pytest.approx(0.3))


def test_mean_covers_classes_with_objects():
    images = [(detections((0, 0.9, A), (1, 0.8, B)), targets((0, A), (1, C)))]
    summary = summarise(measured(images), NAMES)
    assert summary["per_class"]["helmet"]["ap_50"] == 1.0 and summary["per_class"]["none"]["ap_50"] == 0.0
    assert summary["map_50"] == 0.5
    # a false alarm of a class without objects changes no mean, and its figure is not defined
    summary = summarise(measured([(detections((0, 0.9, A), (1, 0.8, B)), targets((0, A)))]), NAMES)
    assert summary["map_50"] == 1.0 and summary["per_class"]["none"]["ap_50"] is None


def test_difficult_objects_are_neither_missed_nor_false_alarms():
    easy = (0, A)
    for detected in ((), ((0, 0.95, B),), ((0, 0.95, B), (0, 0.94, B))):  # missed, detected, detected twice
        summary = summarise(measured([(detections((0, 0.9, A), *detected), targets(easy, (0, B, True)))]), NAMES)
        assert summary["map_50"] == 1.0 and summary["per_class"]["helmet"]["recall_50"] == 1.0
    # the same annotated as usual: a miss
    assert summarise(measured([(detections((0, 0.9, A)), targets(easy, (0, B)))]), NAMES)["map_50"] < 0.6
    # only difficult ones: nothing is defined
    assert summarise(measured([(detections((0, 0.9, A)), targets((0, A, True)))]), NAMES)["map_50"] is None


@pytest.mark.parametrize("max_detections", [1, 5, 100])
def test_split_without_detections_or_objects_has_no_map(max_detections):
    summary = summarise(measured([(detections(), targets())], max_detections), NAMES)
    assert (summary["map"], summary["map_50"], summary["map_75"]) == (None, None, None)
    assert summarise(measured([(detections(), targets((1, A)))], max_detections), NAMES)["map_50"] == 0.0


def test_detections_beyond_max_detections_do_not_count():
    images = [(detections((0, 0.9, A), (0, 0.8, B)), targets((0, A), (0, B)))]
    assert summarise(measured(images, 1), NAMES)["per_class"]["helmet"]["recall_50"] == 0.5
    assert summarise(measured(images, 2), NAMES)["per_class"]["helmet"]["recall_50"] == 1.0


def reference_ap_50(images, label):
    """COCO's definition in a few lines: greedy by score, interpolated precision, 101 recalls."""
    rows, objects = [], 0
    for number, (_, annotated) in enumerate(images):
        objects += int((annotated["labels"] == label).sum())
        rows += [(-s, number, i) for i, s in enumerate(images[number][0]["scores"].tolist())]
    free = [(annotated["labels"] == label).clone() for _, annotated in images]
    hits = []
    for _, number, i in sorted(rows):
        detected, annotated = images[number]
        if detected["labels"][i] != label:
            continue
        iou = pairwise_iou(detected["boxes_xyxy"][i : i + 1], annotated["boxes_xyxy"])[0] * free[number]
        best = int(iou.argmax()) if len(iou) else 0
        hits.append(len(iou) > 0 and iou[best] >= 0.5)
        if hits[-1]:
            free[number][best] = False
    hits_so_far = np.cumsum(hits)
    precision, recall = hits_so_far / np.arange(1, len(hits) + 1), hits_so_far / objects
    return np.mean([precision[recall >= r].max(initial=0.0) for r in RECALLS])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_reference(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        corners = rng.uniform(0, 80, (5, 2))
        annotated = np.concatenate((corners, corners + rng.uniform(10, 30, (5, 2))), axis=1)
        labels = rng.integers(0, 2, 5)
        # some accurate, some inaccurate, some of the other class, some twice, and some of nothing
        boxes = np.concatenate(
            (annotated + rng.normal(0, 3, (5, 4)), annotated[:2], rng.uniform([0, 0, 50, 50], [40, 40, 90, 90], (3, 4)))
        )
        wrong = np.concatenate((labels ^ (rng.random(5) < 0.2), labels[:2], rng.integers(0, 2, 3)))
        scores = rng.permutation(1000)[:10] / 1000 + 1e-3
        detected = detections(*zip(wrong.tolist(), scores.tolist(), boxes.tolist(), strict=True))
        images.append((detected, targets(*zip(labels.tolist(), annotated.tolist(), strict=True))))
    summary = summarise(measured(images), NAMES)
    for label, name in enumerate(NAMES):
        assert summary["per_class"][name]["ap_50"] == pytest.approx(reference_ap_50(images, label), abs=1e-6)


def test_precision_recall_curves_match_hand_calculation():
    detected = detections((0, 0.9, A), (0, 0.8, (70, 70, 90, 90)), (0, 0.7, B))
    curves = precision_recall_curves(measured([(detected, targets((0, A), (0, B), (0, C)))]), NAMES)
    assert list(curves) == ["helmet"]
    np.testing.assert_allclose(curves["helmet"].precision, [1] * 34 + [2 / 3] * 33 + [0] * 34)
    np.testing.assert_allclose(curves["helmet"].scores, [0.9] * 34 + [0.7] * 33 + [0] * 34, rtol=1e-6)
    axes = draw_curves(curves).axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["helmet: AP50 0.554"]
    assert draw_curves({}).axes[0].get_legend() is None


SPLIT = [
    (detections((0, 0.9, A)), targets((0, A))),
    (detections(), targets()),
    (detections((0, 0.8, A), (1, 0.7, B)), targets((0, B), (1, B))),
    (detections(), targets((1, C), (0, A))),
    (detections((1, 0.6, C)), targets((1, C))),
]


def _share(rank, processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    result = measured(SPLIT[rank::processes])
    torch.save(summarise(result, NAMES), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_metric_over_processes_with_unequal_shares_equals_whole(tmp_path):
    # five images for two processes: three and two
    mp.start_processes(_share, (2, str(tmp_path)), nprocs=2, start_method="fork")
    whole = summarise(measured(SPLIT), NAMES)
    assert whole["map_50"] > 0
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt") == whole
