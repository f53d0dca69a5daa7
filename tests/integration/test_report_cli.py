"""From a training to thresholds in the model file: evaluate, report and export, through the real command line."""

import csv
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.data.loading.datamodule import DetectionDataModule
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY
from ppe_yolo.inference.loading import load_detector

RunCli = Callable[..., int]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report_site") / "data"
    draw_site_dataset(root, trainval=20, test=8, size=(96, 128), seed=3)
    return root


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, run_cli: RunCli, site: Path) -> Path:
    """A training that learns nothing, but records its validation images."""
    out = tmp_path_factory.mktemp("report_run") / "run"
    command = [
        *("fit", "--config", "yolov3-tiny", "--data.root", site, "--run_dir", out, "--seed_everything", 5),
        *("--data.input_size", "[64,96]", "--data.batch_size", 4, "--data.num_workers", 0, "--data.val_fraction", 0.3),
        *("--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 1, "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu"),
    ]
    assert run_cli(*command) == 0
    return out


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, run_cli: RunCli, run_dir: Path, site: Path) -> dict[str, Path]:
    """Evaluations of val and test with planted detections: 3 of 4 objects, and some of nothing."""
    folders = {}
    for split in ("val", "test"):
        out = folders[split] = tmp_path_factory.mktemp(f"measured_{split}")
        command = ["evaluate", run_dir / "checkpoints/last.ckpt", "--data", site, "--split", split, "--out", out]
        assert run_cli(*command, "--images", 0, *(["--report"] if split == "val" else [])) == 0
        truth, rows = json.loads((out / "ground_truth.json").read_text()), []
        for i, annotated in enumerate(truth["annotations"]):
            row = {k: annotated[k] for k in ("image_id", "category_id", "bbox")}
            if i % 4:
                rows.append({**row, "score": round(0.95 - 0.01 * (i % 40), 3)})
            if i % 3 == 0:
                rows.append({**row, "bbox": [0.0, 0.0, 9.5, 9.5], "score": round(0.9 - 0.02 * (i % 30), 3)})
        (out / "detections.json").write_text(json.dumps(rows))
    return folders


@pytest.fixture(scope="module")
def on_val(
    tmp_path_factory: pytest.TempPathFactory, run_cli: RunCli, measured: dict[str, Path], site: Path, run_dir: Path
) -> Path:
    out = tmp_path_factory.mktemp("on_val")
    command = ["report", "--detections", measured["val"] / "detections.json", "--data", site, "--split", "val", "--out", out]
    assert run_cli(*command, "--rule", "recall>=0.5", "--rule", "none:false-alarms<=900", "--run-dir", run_dir) == 0
    return out


class Page(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("ppe-yolo: error: ")
    return lines[-1]


def test_val_split_is_what_training_validated_on(measured: dict[str, Path], site: Path, run_dir: Path) -> None:
    module = DetectionDataModule(str(site), val_fraction=0.3, seed=5)
    module.setup("fit")
    truth = json.loads((measured["val"] / "ground_truth.json").read_text())
    assert [i["name"] for i in truth["images"]] == [p.image_id for p in module.val_images]
    assert len(truth["images"]) == 6
    digest = hashlib.blake2b((run_dir / "checkpoints/last.ckpt").read_bytes(), digest_size=16).hexdigest()
    hashes = {"checkpoint_blake2b": digest, "model_blake2b": digest}
    assert truth["info"] == {"split": "val", "tiles": 1, "model": str(run_dir / "checkpoints/last.ckpt"), **hashes}
    # evaluate --report writes the report next to its own files
    assert (measured["val"] / "report.html").is_file() and (measured["val"] / "operating_point.json").is_file()


def test_val_split_of_checkpoint_without_record_needs_options(
    tmp_path: Path, run_cli: RunCli, run_dir: Path, site: Path, measured: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    contract = json.loads(checkpoint[CHECKPOINT_KEY]["contract"])
    del contract["provenance"]["validation"]
    checkpoint[CHECKPOINT_KEY]["contract"] = json.dumps(contract)
    torch.save(checkpoint, tmp_path / "old.ckpt")
    command = ["evaluate", tmp_path / "old.ckpt", "--data", site, "--split", "val", "--out", tmp_path / "out", "--images", 0]
    assert run_cli(*command) == 2
    assert "does not record its validation images" in error(capsys)
    assert run_cli(*command, "--val-fraction", 0.3, "--seed", 5) == 0
    truths = [json.loads((d / "ground_truth.json").read_text())["images"] for d in (tmp_path / "out", measured["val"])]
    assert truths[0] == truths[1]
    assert run_cli(*command, "--split", "test", "--seed", 5) == 2
    assert "--val-fraction, --seed: they choose the images of the split val, got --split test" in error(capsys)


def test_report_warns_about_thresholds_from_few_objects(
    measured: dict[str, Path], site: Path, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", "--detections", measured["val"] / "detections.json", "--data", site, "--split", "val"]
    assert run_cli(*command, "--out", tmp_path, "--rule", "recall>=0.5") == 0
    printed = capsys.readouterr().out
    truth = json.loads((measured["val"] / "ground_truth.json").read_text())
    for category in truth["categories"]:
        count = sum(a["category_id"] == category["id"] for a in truth["annotations"])
        low, high = json.loads((tmp_path / "operating_point.json").read_text())["classes"][category["name"]]["recall_interval"]
        shown = {"none": "bare head"}.get(category["name"], category["name"])
        warning = f"{shown}: chosen on {count} objects: recall is known only as {100 * low:.0f} to {100 * high:.0f} %"
        assert (warning in printed) == (high - low > 0.15)
    assert "chosen on" in printed.replace("chosen on these validation images", "")


def test_report_page_is_self_contained(on_val: Path) -> None:
    text = (on_val / "report.html").read_text()
    page = Page(text)
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) > 12
    assert all((i["src"] or "").startswith("data:image/") and i["alt"] for i in images)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|@import|url\(", text)
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    assert all((a["href"] or "")[1:] in anchors for tag, a in page.tags if tag == "a")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert (on_val / "report.html").stat().st_size < 5e6
    for name in ("objects", "average_precision", "predicted", "confusion", "sizes", "calibration", "training_loss"):
        picture = cv2.imread(str(on_val / f"{name}.png"))
        assert picture is not None and picture.std() > 1


def test_thresholds_are_exported_into_model_file(
    tmp_path: Path, run_cli: RunCli, on_val: Path, run_dir: Path, site: Path, measured: dict[str, Path]
) -> None:
    point = json.loads((on_val / "operating_point.json").read_text())
    assert {n: c["rule"] for n, c in point["classes"].items()} == {"helmet": "recall>=0.5", "none": "false-alarms<=900"}
    assert point["classes"]["helmet"]["recall"] >= 0.5 and point["classes"]["none"]["false_alarms_per_1000"] <= 900
    low, high = point["classes"]["helmet"]["recall_interval"]
    assert low < point["classes"]["helmet"]["recall"] < high
    model = tmp_path / "model.onnx"
    thresholds = on_val / "operating_point.json"
    assert run_cli("export", run_dir / "checkpoints/last.ckpt", "--out", model, "--operating-point", thresholds) == 0
    contract: ModelContract = load_detector(model, device="cpu").contract
    assert contract.alarm_thresholds == {n: c["threshold"] for n, c in point["classes"].items()}
    scores = np.array([d["score"] for d in json.loads((measured["val"] / "detections.json").read_text())])
    assert sum(contract.score_histogram) == (scores >= 0.1).sum() > 0
    # on the test split the thresholds are those of the file, and none is chosen
    assert run_cli("evaluate", model, "--data", site, "--out", tmp_path / "test", "--images", 0) == 0
    command = ["report", "--detections", tmp_path / "test/detections.json", "--data", site]
    assert run_cli(*command, "--out", site / "test") == 2 and not (site / "test").exists()  # not into the data set
    assert run_cli(*command, "--out", tmp_path / "test") == 0
    figures = json.loads((tmp_path / "test/report.json").read_text())
    assert {n: c["threshold"] for n, c in figures["per_class"].items()} == contract.alarm_thresholds
    assert figures["thresholds_from"] == "those in the model file"
    assert not (tmp_path / "test/operating_point.json").exists()
    # the checkpoint's own thresholds are accepted for it and for no other
    command = ["report", "--detections", measured["test"] / "detections.json", "--data", site, "--out", tmp_path / "again"]
    assert run_cli(*command, "--operating-point", thresholds) == 0
    assert (
        json.loads((tmp_path / "again/report.json").read_text())["per_class"]["none"]["threshold"]
        == (point["classes"]["none"]["threshold"])
    )


def test_export_rejects_thresholds_of_another_checkpoint(
    tmp_path: Path, run_cli: RunCli, on_val: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads((on_val / "operating_point.json").read_text())
    other["checkpoint_blake2b"] = "0" * 32
    (tmp_path / "other.json").write_text(json.dumps(other))
    command = ["export", run_dir / "checkpoints/last.ckpt", "--out", tmp_path / "m.onnx"]
    assert run_cli(*command, "--operating-point", tmp_path / "other.json") == 2
    assert "the thresholds were chosen for another model" in error(capsys)
    assert not (tmp_path / "m.onnx").exists()


def test_report_writes_results_and_suspects(on_val: Path, measured: dict[str, Path], site: Path) -> None:
    text = (on_val / "results.txt").read_text()
    truth = json.loads((measured["val"] / "ground_truth.json").read_text())
    counts = np.bincount([a["category_id"] for a in truth["annotations"]], minlength=3)
    assert f"# Number of ground-truth objects per class\nhelmet: {counts[1]}\nnone: {counts[2]}\n" in text
    rows = list(csv.DictReader((on_val / "suspects.csv").open()))
    assert rows and {Path(r["image"]).parent for r in rows} == {site / "JPEGImages"}
    assert all(float(r["score"]) >= 0.6 and Path(r["annotation"]).is_file() for r in rows)


def test_report_chooses_no_thresholds_on_test_images(
    tmp_path: Path, run_cli: RunCli, on_val: Path, measured: dict[str, Path], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", "--detections", measured["test"] / "detections.json", "--data", site, "--out", tmp_path]
    assert run_cli(*command, "--rule", "recall>=0.9") == 2
    assert "thresholds are chosen on validation images alone, got --split test" in error(capsys)
    assert list(tmp_path.iterdir()) == []
    # nor by calling them validation images
    assert run_cli(*command, "--split", "val") == 2
    assert "holds the split test, asked for val" in error(capsys)
    assert run_cli(*command) == 0
    figures = json.loads((tmp_path / "report.json").read_text())
    assert {c["threshold"] for c in figures["per_class"].values()} == {0.3}
    assert "No threshold was chosen for this detector" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "operating_point.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[1]", "detections.json: result 1: expected image_id"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5], "score": 0.5}]', "result 1: expected image_id"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, NaN], "score": 0.5}]', "result 1: expected image_id"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1.5}]', "a score from 0 to 1"),
        ('[{"image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]', "an image_id from 1 to 8, got 9"),
        ('[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "score": 0.5}]', "a category_id from 1 to 2"),
        ("{}", "expected a list of COCO results, got dict"),
        ("[", "expected JSON written by `ppe-yolo evaluate`"),
    ],
)
def test_report_rejects_malformed_detections(
    tmp_path: Path, run_cli: RunCli, site: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    (tmp_path / "detections.json").write_text(change)
    assert run_cli("report", "--detections", tmp_path / "detections.json", "--data", site, "--out", tmp_path / "out") == 2
    assert message in error(capsys)
    assert not (tmp_path / "out").exists()


def test_report_rejects_detections_of_other_images(
    tmp_path: Path, run_cli: RunCli, measured: dict[str, Path], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((measured["test"] / "ground_truth.json").read_text())
    (tmp_path / "detections.json").write_text("[]")
    command = ["report", "--detections", tmp_path / "detections.json", "--data", site, "--out", tmp_path / "out"]
    for images, message in (
        (truth["images"][:-1], "was not measured"),
        ([*truth["images"][:-1], {**truth["images"][-1], "name": "else"}], "'else' is not in the split"),
        (truth["images"][::-1], "expected image ids from 1 in order"),
    ):
        ids = {image["id"] for image in images}
        annotations = [a for a in truth["annotations"] if a["image_id"] in ids]
        (tmp_path / "ground_truth.json").write_text(json.dumps({**truth, "images": images, "annotations": annotations}))
        assert run_cli(*command) == 2
        assert message in error(capsys)
    (tmp_path / "ground_truth.json").unlink()
    assert run_cli(*command, "--split", "val") == 2
    assert "missing next to detections.json" in error(capsys)
    # no detections at all is a result
    assert run_cli(*command) == 0
    assert json.loads((tmp_path / "out/report.json").read_text())["coco"]["map_50"] == 0.0


def test_benchmark_metrics_engines_agree(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("benchmark", "metrics", "--images", 20, "--objects", 5, "--detections", 9, "--rounds", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [float(re.search(r"(0\.\d{6})", line)[1]) for line in lines if re.search(r"ours, ten|torchmetrics, faster", line)]
    assert len(values) == 3
    assert max(values) - min(values) < 1e-4
    assert values[0] > 0.1
