"""The model that comes with the library, through the real command line; no photo is at hand, so a site is drawn."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, read_checkpoint
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.weights import FOLDER, find_model, model_names

RunCli = Callable[..., int]
NAME = "helmet-small"
MOST_BYTES = 25_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights_site") / "data"
    draw_site_dataset(root, trainval=10, test=4, size=(360, 480), seed=7)
    return root


def test_bundled_files_belong_together_and_are_small() -> None:
    assert model_names() == [NAME]
    assert sum(p.stat().st_size for p in FOLDER.iterdir() if p.is_file()) <= MOST_BYTES
    checkpoint = find_model(NAME, "checkpoint")
    kept = read_checkpoint(checkpoint)[CHECKPOINT_KEY]
    contract = ModelContract.from_json(kept["contract"])
    onnx = load_detector(find_model(NAME, "onnx"), device="cpu").contract
    assert onnx.provenance["checkpoint_blake2b"] == hashlib.blake2b(checkpoint.read_bytes(), digest_size=16).hexdigest()
    assert onnx.provenance["precision"] == "int8" and onnx.provenance["quantization"]["reduce_range"] is True
    assert (
        (contract.class_names, contract.input_size) == (onnx.class_names, onnx.input_size) == (("helmet", "none"), (416, 416))
    )
    assert dict(contract.alarm_thresholds) == dict(onnx.alarm_thresholds)
    assert set(contract.alarm_thresholds) == {"helmet", "none"}
    assert all(part["photos"] > 0 for part in contract.provenance["validation"])  # so that `--split val` finds the photos again


def test_bundled_files_contain_no_local_paths() -> None:
    for path in (find_model(NAME, "checkpoint"), find_model(NAME, "onnx")):
        contract = load_detector(path, device="cpu").contract
        assert "/" not in json.dumps(dict(contract.provenance)) and "\\" not in json.dumps(dict(contract.provenance))
    content = find_model(NAME, "onnx").read_bytes()
    for trace in (b"/home/", b"/work", b"/usr/", b"site-packages", b".py"):
        assert trace not in content


def test_bundled_checkpoint_and_onnx_detect_the_same(site: Path) -> None:
    photos = [cv2.imread(str(p))[..., ::-1] for p in sorted((site / "JPEGImages").iterdir())]
    ours, theirs = (load_detector(find_model(NAME, k), device="cpu").detect(photos) for k in ("checkpoint", "onnx"))
    strong = 0
    for a, b in zip(ours, theirs, strict=True):
        for box, score, label in zip(a.boxes_xyxy, a.scores, a.labels, strict=True):
            if score < 0.5:
                continue
            strong += 1
            near = (np.abs(b.boxes_xyxy - box).max(axis=1) < 0.2 * (box[2:] - box[:2]).max()) & (b.labels == label)
            assert near.any() and b.scores[near].max() > score - 0.2
    assert strong > 0  # else this says nothing


def test_predict_evaluate_and_export_take_bundled_name(tmp_path: Path, run_cli: RunCli, capsys, site: Path) -> None:
    assert run_cli("predict", NAME, site / "JPEGImages", "--out", tmp_path / "p") == 0
    assert len(json.loads((tmp_path / "p" / "predictions.json").read_text())) == 14
    assert run_cli("evaluate", NAME, "--data", site, "--out", tmp_path / "e", "--images", 0, "--report") == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["images"] == 4 and metrics["model"].endswith("helmet-small.int8.onnx")
    # the report speaks of the thresholds that the model carries
    contract = load_detector(find_model(NAME, "onnx"), device="cpu").contract
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert {n: v["threshold"] for n, v in report["per_class"].items()} == dict(contract.alarm_thresholds)
    assert (metrics["tiles"], report["images"]) == (1, 4)
    options = ("--images", 0, "--tiles", 2)
    assert run_cli("evaluate", NAME, "--data", site, "--out", tmp_path / "t", *options) == 0
    tiled = json.loads((tmp_path / "t" / "metrics.json").read_text())
    assert tiled["tiles"] == 2 and tiled["map_50"] != metrics["map_50"]
    assert run_cli("predict", NAME, site / "JPEGImages", "--out", tmp_path / "pt", "--tiles", 2) == 0
    out = tmp_path / "again.onnx"
    assert run_cli("export", NAME, "--out", out) == 0
    assert dict(load_detector(out, device="cpu").contract.alarm_thresholds) == dict(contract.alarm_thresholds)

    capsys.readouterr()
    for command in (
        ("predict", "helmet-smal", site / "JPEGImages", "--out", tmp_path / "x"),
        ("evaluate", "helmet-smal", "--data", site, "--out", tmp_path / "x"),
        ("export", "helmet-smal", "--out", tmp_path / "x.onnx"),
    ):
        assert run_cli(*command) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("ppe-yolo: error: helmet-smal: expected a model file or one of the names helmet-small")
        assert "\n" not in error
    assert not (tmp_path / "x").exists()


def test_fit_starts_from_bundled_weights(tmp_path: Path, run_cli: RunCli, capsys, site: Path) -> None:
    run_dir = tmp_path / "run"
    command = [
        *("fit", "--config", "yolov3-small", "--data.root", site, "--run_dir", run_dir, "--model.weights", NAME),
        *("--data.input_size", "[192,256]", "--data.multi_scale", "null", "--data.num_workers", 0, "--data.val_fraction", 0.3),
        *("--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
        # nothing is learned: what comes out is what came in
        *("--model.optimizer.lr", 0, "--ema.decay", 0),
    ]
    assert run_cli(*command) == 0
    ours, theirs = read_checkpoint(run_dir / "checkpoints" / "last.ckpt"), read_checkpoint(find_model(NAME, "checkpoint"))
    assert ours[CHECKPOINT_KEY]["anchors_wh"] == theirs[CHECKPOINT_KEY]["anchors_wh"]
    assert ModelContract.from_json(ours[CHECKPOINT_KEY]["contract"]).input_size == (192, 256)
    kernels = [k for k, v in theirs["state_dict"].items() if v.ndim == 4]
    assert len(kernels) == 37
    for key in kernels:
        assert torch.equal(ours["state_dict"][key], theirs["state_dict"][key].float()), key
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["weights"] == NAME  # a name, which means the same elsewhere

    capsys.readouterr()
    assert run_cli(*(tmp_path / "other" if a == run_dir else "helmet-smal" if a == NAME else a for a in command)) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "helmet-smal: expected a model file or one of the names helmet-small" in line


def test_pack_weights_writes_both_files_or_none(tmp_path: Path, run_cli: RunCli, capsys, monkeypatch, tiny_site: Path) -> None:
    """Both files or none; the thresholds must have been chosen for this checkpoint."""
    run_dir = tmp_path / "run"
    command = [
        *("fit", "--config", "yolov3-tiny", "--data.root", tiny_site, "--run_dir", run_dir, "--data.num_workers", 0),
        *("--data.input_size", "[64,96]", "--data.multi_scale", "null", "--data.val_fraction", 0.3),
        *("--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    ]
    assert run_cli(*command) == 0
    checkpoint, point, out = run_dir / "checkpoints" / "last.ckpt", tmp_path / "operating_point.json", tmp_path / "out"
    run_hash = hashlib.blake2b(checkpoint.read_bytes(), digest_size=16).hexdigest()

    def write_point(of: str) -> None:
        classes = {name: {"threshold": value} for name, value in (("helmet", 0.4), ("none", 0.2))}
        point.write_text(json.dumps({"model": "other.ckpt", "checkpoint_blake2b": of, "classes": classes}))

    pack = ("pack-weights", checkpoint, "--name", "mine", "--operating-point", point, "--calibration", tiny_site, "--out", out)
    write_point("0" * 32)
    assert run_cli(*pack) == 2
    assert "the thresholds were chosen for another model (other.ckpt)" in capsys.readouterr().err
    write_point(run_hash)

    def refuse(*_: object, **__: object) -> None:
        raise UserError("quantised, it finds too little")

    def pack_refused(arguments: tuple) -> None:
        with monkeypatch.context() as without:
            without.setattr("ppe_yolo.export.pack.export_onnx", lambda *_, **__: None)  # seconds, and not what this is about
            without.setattr("ppe_yolo.export.pack.quantize", refuse)
            assert run_cli(*arguments) == 2
        assert "quantised, it finds too little" in capsys.readouterr().err

    pack_refused(pack)
    assert not out.exists()
    # random weights: 8 bits may lose anything
    monkeypatch.setattr("ppe_yolo.export.quantize._maps", lambda *_: {"mAP@0.5": 0.9, "mAP@0.5:0.95": 0.5})
    assert run_cli(*pack) == 0
    assert sorted(p.name for p in out.iterdir()) == ["mine.ckpt", "mine.int8.onnx"]
    for file in out.iterdir():
        contract = load_detector(file, device="cpu").contract
        assert dict(contract.alarm_thresholds) == {"helmet": 0.4, "none": 0.2}
        assert contract.provenance["run_checkpoint_blake2b"] == run_hash
    # both remember the training that they come from: thresholds chosen on the run's own checkpoint go with them
    assert run_cli("evaluate", out / "mine.int8.onnx", "--data", tiny_site, "--images", 0, "--out", tmp_path / "test") == 0
    report = (
        "report",
        "--detections",
        tmp_path / "test" / "detections.json",
        "--data",
        tiny_site,
        "--out",
        tmp_path / "report",
    )
    assert run_cli(*report, "--operating-point", point) == 0
    assert run_cli("export", out / "mine.ckpt", "--out", tmp_path / "mine.onnx", "--operating-point", point) == 0
    pack_refused(("pack-weights", out / "mine.ckpt", *pack[2:]))  # only by the quantisation: packed files can be packed again
    write_point("0" * 32)
    assert run_cli(*report, "--operating-point", point) == 2
    # half of what the network alone takes in float32, far from what a run keeps
    assert (out / "mine.ckpt").stat().st_size < 0.2 * checkpoint.stat().st_size
