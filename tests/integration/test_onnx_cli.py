"""The commands that make and use ONNX files, on a detector whose own detections are the annotations."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image
from ppe_yolo.export import quantize, quantize_graph
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, describe_network
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.model.yolov3 import YoloV3

CONTRACT = ModelContract(("helmet", "none"), (64, 96), max_detections=30)
PHOTOS = [f"p{i:02d}" for i in range(20)]


def save_checkpoint(path: Path, seed: int) -> Path:
    """Random weights with batch norm statistics, which give many detections."""
    torch.manual_seed(seed)
    network = YoloV3("yolov3-tiny", 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain averages
    for head in network.body.heads:
        nn.init.normal_(head[-1].weight, std=0.05)
        head[-1].bias.detach().view(3, 7)[:, 4] = -1.0
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 96))
    weights = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": weights, CHECKPOINT_KEY: describe_network(network, CONTRACT)}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("model") / "best.ckpt", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_voc: Callable[..., Path], checkpoint: Path) -> Path:
    """Images annotated with the strongest detections of the checkpoint."""
    root = make_voc(tmp_path_factory.mktemp("voc"), PHOTOS)
    detector = load_detector(checkpoint, device="cpu")
    marked = {}
    for stem in PHOTOS:
        [found] = detector.detect([read_image(str(root / "JPEGImages" / f"{stem}.jpg"))])
        boxes = np.rint(found.boxes_xyxy).astype(int)
        large = [i for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()) if x2 - x1 > 3 and y2 - y1 > 3]
        marked[stem] = [(CONTRACT.class_names[found.labels[i]], tuple(boxes[i].tolist())) for i in large[:6]]
    return make_voc(root, marked, {"trainval": PHOTOS[:14], "test": PHOTOS[14:]})


@pytest.fixture(scope="module")
def model(checkpoint: Path, run_cli: Callable[..., int]) -> Path:
    out = checkpoint.parent / "model.onnx"
    assert run_cli("export", checkpoint, "--out", out) == 0
    return out


def test_quantize_ranges_ignore_rare_values(tmp_path: Path, run_cli, monkeypatch, data: Path, model: Path) -> None:
    scales: list[dict[str, float]] = []
    for percentile, name in ((100.0, "all"), (99.0, "most")):
        monkeypatch.setattr(quantize_graph, "PERCENTILE", percentile)
        out = tmp_path / f"{name}.onnx"
        options = ("--calibration", data, "--out", out, "--images", 11, "--val-fraction", 0.2, "--seed", 0)
        assert run_cli("quantize", model, *options, "--max-drop", 100, "--reduce-range") == 0
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
        scales.append({n: float(t) for n, t in tensors.items() if n.endswith("_scale") and t.ndim == 0})
    common = scales[0].keys() & scales[1].keys()
    assert len(common) > 10
    assert sum(scales[1][n] < 0.9 * scales[0][n] for n in common) > 0.8 * len(common)


def test_calibration_images_reads_each_image_once_in_chunks(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    photos = AnnotatedDataset.open(make_voc(tmp_path, PHOTOS)).splits["trainval"][:11]
    count = iter(range(100))
    reader = quantize_graph.CalibrationImages(photos, CONTRACT, lambda: next(count))
    read = []
    for start in range(0, len(reader), quantize_graph.CHUNK):  # as onnxruntime does
        reader.set_range(start, start + quantize_graph.CHUNK)
        read.append(0)
        while (batch := reader.get_next()) is not None:
            assert batch["images"].shape == (1, 64, 96, 3)
            read[-1] += 1
    assert read == [8, 3] and next(count) == 11


def test_evaluate_and_predict_take_checkpoint_or_onnx(
    tmp_path: Path, run_cli, data: Path, checkpoint: Path, model: Path
) -> None:
    metrics, rows = [], []
    for file in (checkpoint, model):
        out = tmp_path / file.suffix[1:]
        assert run_cli("evaluate", file, "--data", data, "--out", out, "--images", 0) == 0
        metrics.append(json.loads((out / "metrics.json").read_text()))
        assert run_cli("predict", file, data / "JPEGImages", "--out", out / "p", "--score-threshold", "0.05") == 0
        rows.append(json.loads((out / "p" / "predictions.json").read_text()))
    assert metrics[0]["map_50"] > 0.3  # else the next line says little
    assert metrics[1]["map_50"] == pytest.approx(metrics[0]["map_50"], abs=1e-3)
    assert metrics[1]["map"] == pytest.approx(metrics[0]["map"], abs=1e-3)
    assert [len(r["detections"]) for r in rows[0]] == [len(r["detections"]) for r in rows[1]]
    for ours, theirs in zip(*rows, strict=True):
        for a, b in zip(ours["detections"], theirs["detections"], strict=True):
            assert a["class_name"] == b["class_name"] and a["score"] == pytest.approx(b["score"], abs=1e-4)
            assert a["box_xyxy"] == pytest.approx(b["box_xyxy"], abs=0.05)


def test_verify_compares_with_checkpoint(
    tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, model: Path
) -> None:
    assert run_cli("verify", model, "--checkpoint", checkpoint, "--data", data) == 0
    assert "6 images of test: 0 of " in capsys.readouterr().out
    other = save_checkpoint(tmp_path / "other.ckpt", seed=2)
    assert run_cli("verify", model, "--checkpoint", other, "--data", data) == 2
    error = capsys.readouterr().err.strip()
    assert "mAP@0.5" in error and "points, allowed are 0.1" in error and "\n" not in error


def test_quantize_writes_8_bit_model_or_nothing(
    tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str], monkeypatch, data: Path, model: Path
) -> None:
    out = tmp_path / "model.int8.onnx"
    options = ("--calibration", data, "--out", out, "--images", 6, "--val-fraction", 0.3, "--seed", 0)
    assert run_cli("quantize", model, *options, "--max-drop", 100, "--reduce-range") == 0
    printed = capsys.readouterr().out
    assert "weights of 7 bits (as requested)" in printed and "smaller" in printed and "faster" in printed
    assert out.stat().st_size < 0.3 * model.stat().st_size
    contract = load_detector(out, device="cpu").contract
    assert contract.provenance["precision"] == "int8" and contract.provenance["quantization"]["photos"] == 6
    assert contract.class_names == CONTRACT.class_names and contract.provenance["architecture"] == "yolov3-tiny"
    proto = onnx.load(out)
    kernels = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if len(t.dims) == 4]
    assert sorted(k.dtype.name for k in kernels) == ["float32"] * 2 + ["int8"] * 11  # the heads' last ones stay
    assert max(int(np.abs(k.astype(int)).max()) for k in kernels if k.dtype == np.int8) <= 64  # 7 bits
    scales = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and "kernel" not in n.name]
    assert scales and not any(n.op_type == "Cast" and n.input[0] == "images" for n in proto.graph.node)
    # most detections stay: it is the same network
    photo = read_image(str(data / "JPEGImages" / "p00.jpg"))
    [before], [after] = (load_detector(m, device="cpu").detect([photo]) for m in (model, out))
    assert abs(len(before.scores) - len(after.scores)) <= 0.3 * len(before.scores)
    assert after.scores[:5] == pytest.approx(before.scores[:5], abs=0.1)

    refused = tmp_path / "refused.onnx"
    options = ("--calibration", data, "--out", refused, "--images", 2, "--val-fraction", 0.3, "--seed", 0)
    for loose, strict, message in (
        (0.89, 0.5, "mAP@0.5 falls by 1.00 points (90.00 to 89.00 % on"),
        (0.9, 0.48, "mAP@0.5:0.95 falls by 2.00 points (50.00 to 48.00 % on"),  # boxes have moved
    ):
        figures = iter([{"mAP@0.5": 0.9, "mAP@0.5:0.95": 0.5}, {"mAP@0.5": loose, "mAP@0.5:0.95": strict}])
        monkeypatch.setattr(quantize, "_maps", lambda *_, figures=figures: next(figures))
        assert run_cli("quantize", model, *options) == 2
        assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["model.int8.onnx"]

    assert run_cli("quantize", model, "--calibration", data, "--out", refused) == 2
    assert "does not record its validation images" in capsys.readouterr().err
    assert run_cli("quantize", out, "--calibration", data, "--out", refused) == 2
    assert "quantised already" in capsys.readouterr().err
    for name, problem in (
        (model, "is also the input, which would be overwritten: choose another name"),
        (tmp_path / "m.int8", "expected a name that ends in .onnx, got '.int8': add .onnx to the name"),
    ):
        assert run_cli("quantize", model, "--calibration", data, "--out", name) == 2
        assert capsys.readouterr().err == f"ppe-yolo: error: --out: {name}: {problem}\n"


def test_quantize_takes_several_data_sets(
    tmp_path: Path, run_cli, monkeypatch, make_voc: Callable[..., Path], data: Path, model: Path
) -> None:
    """The second data set has names of its own, and so its own class map."""
    other = make_voc(tmp_path / "other", {f"q{i:02d}": [("head", (8, 8, 40, 30))] for i in range(10)})
    class_map = tmp_path / "own.yaml"
    class_map.write_text("class_names: [helmet, none]\nmap: {head: none}\n")
    evaluated: list[list[str]] = []

    def maps(_: object, images: list[AnnotatedImage]) -> dict[str, float]:
        evaluated.append([image.image_id for image in images])
        return {"mAP@0.5": 0.5, "mAP@0.5:0.95": 0.5}

    monkeypatch.setattr(quantize, "_maps", maps)  # random weights: quantisation may lose anything
    out = tmp_path / "both.onnx"
    both = ("--calibration", data, "--calibration", f"{other}={class_map}", "--out", out)
    assert run_cli("quantize", model, *both, "--images", 4, "--val-fraction", 0.3, "--seed", 0, "--full-range") == 0
    assert evaluated[0] == evaluated[1] and {name[0] for name in evaluated[0]} == {"p", "q"}
    assert load_detector(out, device="cpu").contract.provenance["quantization"]["photos"] == 4


def test_export_at_another_size_runs_in_evaluate_and_verify(
    tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, model: Path
) -> None:
    out = tmp_path / "large.onnx"
    assert run_cli("export", checkpoint, "--out", out, "--input-size", 96, 128) == 0
    assert "input 96 x 128" in capsys.readouterr().out.replace("\n", "")
    assert run_cli("verify", out, "--checkpoint", checkpoint, "--data", data) == 0
    assert run_cli("evaluate", out, "--data", data, "--out", tmp_path / "e", "--images", 0) == 0
    assert load_detector(out, device="cpu").contract.input_size == (96, 128)
    assert run_cli("benchmark", "onnx", model, "--int8", out) == 2
    expected = f"--int8: {out}: expected the input size of {model}, 64 x 96, got 96 x 128"
    assert expected in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    below_file = f"expected a folder, got the file {tmp_path / 'file'}"
    for command, out, expected in (
        (("predict", "none.onnx", "a.jpg"), tmp_path / "file/new", below_file),
        (("export", "none.ckpt"), tmp_path / "file/a.onnx", below_file),
        (("export", "none.ckpt"), tmp_path / "folder.onnx", "expected a file to write, got a folder"),
    ):
        assert run_cli(*command, "--out", out) == 2
        assert expected in capsys.readouterr().err


def test_benchmark_onnx_prints_all_cases(run_cli, capsys: pytest.CaptureFixture[str], model: Path) -> None:
    assert run_cli("benchmark", "onnx", model, "--rounds", 1) == 0
    printed = capsys.readouterr().out
    for word in ("run alone", "frame 1280x720", "frame 1920x1080", "no network", "GFLOP/s", "CPUExecutionProvider", "threads"):
        assert word in printed


@pytest.mark.parametrize("command", ["evaluate", "predict", "verify", "quantize"])
def test_damaged_model_is_refused_in_one_line(
    tmp_path: Path, run_cli, capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, model: Path, command: str
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    options = {
        "evaluate": ("--data", data, "--out", tmp_path / "out"),
        "predict": (data / "JPEGImages", "--out", tmp_path / "out"),
        "verify": ("--checkpoint", checkpoint, "--data", data),
        "quantize": ("--calibration", data, "--out", tmp_path / "int8.onnx"),
    }
    assert run_cli(command, broken, *options[command]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"ppe-yolo: error: {broken}: expected an ONNX model, got") and "\n" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["broken.onnx"]
