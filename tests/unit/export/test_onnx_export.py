"""Export: what the file holds, that it detects what the checkpoint detects, and that nothing else is ever written."""

import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from rich.console import Console
from torch import nn

from ppe_yolo.core.contract import ONNX_METADATA_KEY, ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.export import onnx as export_module
from ppe_yolo.export.benchmark import null_detector
from ppe_yolo.export.graph import with_decoded_outputs
from ppe_yolo.export.onnx import build_model, export_onnx, trace
from ppe_yolo.export.pack import pack_checkpoint
from ppe_yolo.export.parity import ParityError, Tolerance, compare, parity_images
from ppe_yolo.export.printing import print_export
from ppe_yolo.export.quantize_graph import body_nodes, pool_first, quantize_graph
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, describe_network
from ppe_yolo.inference.deployable import DeployableNetwork
from ppe_yolo.inference.onnx_detector import OnnxDetector
from ppe_yolo.inference.torch_detector import TorchDetector
from ppe_yolo.model.yolov3 import YoloV3

CONTRACT = ModelContract(("helmet", "none"), (64, 96), score_floor=0.02, nms_iou_threshold=0.45, max_detections=40)


def make_network(architecture: str = "yolov3-tiny") -> YoloV3:
    """Random weights whose batch norms have seen something, and which find a lot."""
    torch.manual_seed(1)
    network = YoloV3(architecture, 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None  # plain averages
    for head in network.body.heads:
        nn.init.normal_(head[-1].weight, std=0.05)
        head[-1].bias.detach().view(3, 7)[:, 4] = 0.0
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 96))
    return network.eval()


@pytest.fixture(scope="module")
def network() -> YoloV3:
    return make_network()


@pytest.fixture(scope="module")
def model(network: YoloV3) -> onnx.ModelProto:
    return build_model(network, CONTRACT)


@pytest.fixture
def checkpoint(tmp_path: Path, network: YoloV3) -> Path:
    return save(tmp_path / "best.ckpt", network, CONTRACT)


def save(path: Path, network: YoloV3, contract: ModelContract) -> Path:
    weights = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": weights, CHECKPOINT_KEY: describe_network(network, contract)}, path)
    return path


@torch.inference_mode()
def decoded(network: YoloV3, images: np.ndarray) -> list[np.ndarray]:
    return [t.numpy() for t in network.predict(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)]


def noise(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("architecture", ["yolov3-tiny", "yolov3-small"])
def test_deployable_network_equals_network(architecture: str, network: YoloV3) -> None:
    network = network if architecture == "yolov3-tiny" else make_network(architecture)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.inference_mode():
        boxes, scores = DeployableNetwork(network)(torch.from_numpy(noise(2)))
    for found, expected, tolerance in zip((boxes, scores), decoded(network, noise(2)), (2e-2, 1e-4), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())  # a copy was changed, not the network


def test_build_model_file_holds_contract_and_no_local_paths(model: onnx.ModelProto) -> None:
    metadata = {p.key: p.value for p in model.metadata_props}
    assert ModelContract.from_json(metadata.pop(ONNX_METADATA_KEY)) == CONTRACT
    assert metadata == {
        "Image.BitmapPixelFormat": "Rgb8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    operators = [n.op_type for n in model.graph.node]
    assert "BatchNormalization" not in operators and operators.count("NonMaxSuppression") == 1
    words = onnx.ModelProto()
    words.CopyFrom(model)
    words.graph.ClearField("initializer")  # random bytes may spell anything
    content = words.SerializeToString()
    assert b".py" not in content and b"site-packages" not in content and str(Path.cwd()).encode() not in content
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_onnx_detector_any_batch_equals_torch_detector(network: YoloV3, model: onnx.ModelProto, batch: int) -> None:
    photos = [noise(1, seed)[0] for seed in range(batch)]
    ours = TorchDetector(network, CONTRACT, torch.device("cpu")).detect(photos)
    theirs = OnnxDetector(model.SerializeToString(), "model", "cpu").detect(photos)
    assert all(len(d.scores) > 5 for d in ours)
    difference = compare(ours, theirs, Tolerance(boxes=0.01, scores=1e-4))
    assert difference.unmatched == 0 and difference.detections == 2 * sum(len(d.scores) for d in ours)


def test_build_model_without_suppression_has_decoded_outputs(network: YoloV3, model: onnx.ModelProto) -> None:
    plain = build_model(network, CONTRACT, suppression=False)
    sessions = [ort.InferenceSession(m.SerializeToString()) for m in (plain, with_decoded_outputs(model))]
    assert [(o.name, o.shape) for o in sessions[0].get_outputs()] == [
        ("decoded_xyxy", ["batch", 3 * (4 * 6 + 2 * 3), 4]),
        ("decoded_scores", ["batch", 3 * (4 * 6 + 2 * 3), 2]),
    ]
    for session in sessions:
        found = session.run(["decoded_xyxy", "decoded_scores"], {"images": noise(3)})
        for a, b in zip(found, decoded(network, noise(3)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_build_model_half_has_float16_convolutions(network: YoloV3) -> None:
    model = build_model(network, CONTRACT, half=True)
    kernels = [t for t in model.graph.initializer if len(t.dims) == 4]
    assert kernels and all(t.data_type == onnx.TensorProto.FLOAT16 for t in kernels)
    OnnxDetector(model.SerializeToString(), "half", "cpu")  # bytes in, float32 out, as the contract says
    session = ort.InferenceSession(with_decoded_outputs(model).SerializeToString())
    boxes, scores = session.run(["decoded_xyxy", "decoded_scores"], {"images": noise(2)})
    expected_boxes, expected_scores = decoded(network, noise(2))
    np.testing.assert_allclose(boxes, expected_boxes, atol=2)
    np.testing.assert_allclose(scores, expected_scores, atol=0.02)


def test_export_onnx_compares_and_writes(tmp_path: Path, checkpoint: Path) -> None:
    out, console = tmp_path / "sub" / "model.onnx", Console(file=io.StringIO(), width=200)
    print_export(export_onnx(checkpoint, out), console)
    text = console.file.getvalue()
    assert "decoded boxes differ by at most" in text and "opset 18" in text and " 0 of " in text
    provenance = OnnxDetector(out.read_bytes(), "model", "cpu").contract.provenance
    assert provenance["architecture"] == "yolov3-tiny" and len(provenance["checkpoint_blake2b"]) == 32
    assert [p.name for p in out.parent.iterdir()] == ["model.onnx"]


def corrupt_weight(model: onnx.ModelProto) -> None:
    kernel = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(kernel).copy()
    values.flat[0] *= 1.05
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))


def corrupt_suppression(model: onnx.ModelProto) -> None:
    threshold = next(t for t in model.graph.initializer if t.name.endswith("iou_threshold"))
    threshold.CopyFrom(onnx.numpy_helper.from_array(np.array([0.55], np.float32), threshold.name))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (corrupt_weight, r"decoded boxes differ by at most .* px \(allowed 0.05\), scores by .* \(allowed 0.0001\)"),
        (corrupt_suppression, r"suppression in the graph against PyTorch's: \d+ of \d+ detections without a counterpart"),
    ],
)
def test_export_onnx_refuses_different_model(
    tmp_path: Path, checkpoint: Path, model, monkeypatch: pytest.MonkeyPatch, corrupt, message: str
) -> None:
    corrupted = onnx.ModelProto()
    corrupted.CopyFrom(model)
    corrupt(corrupted)
    monkeypatch.setattr(export_module, "build_model", lambda *args, **options: corrupted)
    with pytest.raises(ParityError, match=message + ": nothing is written"):
        export_onnx(checkpoint, tmp_path / "out" / "model.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_export_onnx_refuses_nan(tmp_path: Path, checkpoint: Path, model, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupted = onnx.ModelProto()
    corrupted.CopyFrom(model)
    bias = next(t for t in corrupted.graph.initializer if len(t.dims) == 1 and t.data_type == onnx.TensorProto.FLOAT)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(list(bias.dims), np.nan, np.float32), bias.name))
    monkeypatch.setattr(export_module, "build_model", lambda *args, **options: corrupted)
    with pytest.raises(ParityError, match="nan"):
        export_onnx(checkpoint, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_export_onnx_other_suffix_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"^out: .*: expected a name that ends in \.onnx, got '\.ckpt': add \.onnx"):
        export_onnx(checkpoint, checkpoint)


def test_compare_counts_detections_without_counterpart() -> None:
    def found(*rows: tuple[float, float, int]) -> Detections:
        return Detections(
            np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4),
            np.array([s for _, s, _ in rows], np.float32),
            np.array([k for _, _, k in rows], np.int64),
        )

    tolerance = Tolerance(boxes=0.5, scores=0.1)
    same = compare([found((0, 0.9, 0), (50, 0.5, 1))], [found((50.25, 0.45, 1), (0, 0.9, 0))], tolerance)
    assert (same.boxes, same.unmatched, same.detections) == (0.25, 0, 4) and same.scores == pytest.approx(0.05)
    assert compare([found((0, 0.9, 0))], [found((0, 0.9, 1))], tolerance).unmatched == 2  # another class
    assert compare([found((0, 0.9, 0))], [found((1, 0.9, 0))], tolerance).unmatched == 2  # too far
    assert compare([found((0, 0.9, 0))], [found((0, 0.7, 0))], tolerance).unmatched == 2  # another score
    assert compare([found(), found()], [found(), found((0, 0.9, 0))], tolerance).unmatched == 1


def test_parity_images_have_several_sizes() -> None:
    sizes = {name: p.shape for name, p in parity_images().items()}
    assert len(set(sizes.values())) >= 4 and {"crowd", "empty"} <= set(sizes)


def test_pool_first_keeps_results(model: onnx.ModelProto) -> None:
    swapped = pool_first(model)
    order = [n.op_type for n in swapped.graph.node]
    # tiny's first four blocks: convolution, pooling, ReLU; the fifth ReLU feeds two and stays
    assert [order[i - 1] for i, kind in enumerate(order) if kind == "LeakyRelu"][:5] == ["MaxPool"] * 4 + ["Conv"]
    runs = [
        ort.InferenceSession(with_decoded_outputs(m).SerializeToString()).run(None, {"images": noise(2)})
        for m in (model, swapped)
    ]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_body_nodes_leave_heads_and_decoding_in_float(model: onnx.ModelProto) -> None:
    body = set(body_nodes(model))
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    outside = [n for n in convolutions if n.name not in body]
    channels = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    assert len(convolutions) == 13 and [channels[n.input[1]] for n in outside] == [21, 21]  # 3 * (5 + 2)
    assert {n.op_type for n in model.graph.node if n.name in body} == {
        "Conv",
        "LeakyRelu",
        "MaxPool",
        "Pad",
        "Concat",
        "Resize",
    }


def test_export_onnx_untrained_checkpoint_is_refused(tmp_path: Path, network: YoloV3) -> None:
    path = tmp_path / "start.ckpt"
    contract = replace(CONTRACT, provenance={"at_random": ["body.heads.0.1.weight"]})
    weights = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": weights, CHECKPOINT_KEY: describe_network(network, contract)}, path)
    with pytest.raises(UserError, match="hold random numbers"):
        export_onnx(path, tmp_path / "model.onnx")


def write_operating_point(path: Path, **more: object) -> Path:
    classes = {name: {"threshold": 0.25} for name in CONTRACT.class_names}
    path.write_text(json.dumps({"model": "best.ckpt", "classes": classes, **more}))
    return path


def test_export_onnx_other_input_size_keeps_weights_and_parity(
    tmp_path: Path, network: YoloV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def trace_once(network: DeployableNetwork, contract: ModelContract) -> onnx.ModelProto:
        if not traced:
            traced.append((contract.input_size, trace(network, contract)))
        [(size, model)] = traced
        assert contract.input_size == size
        return copy.deepcopy(model)

    monkeypatch.setattr(export_module, "trace", trace_once)  # both exports are of one network at one size
    path, out = tmp_path / "best.ckpt", tmp_path / "model.onnx"
    contract = replace(CONTRACT, alarm_thresholds={"helmet": 0.5, "none": 0.5})
    save(path, network, contract)
    result = export_onnx(path, out, input_size=(96, 160))
    detector = OnnxDetector(out.read_bytes(), "model", "cpu")
    assert detector.contract.input_size == (96, 160) and detector.contract.alarm_thresholds == {}
    assert result.has_dropped_thresholds and result.parity.decoded.boxes < 0.05
    assert detector.session.get_inputs()[0].shape[1:] == [96, 160, 3]
    # anchors stay in pixels: the same head of the same size is decoded alike
    reference = TorchDetector(network, replace(CONTRACT, input_size=(96, 160)), torch.device("cpu"))
    image = np.random.default_rng(3).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    difference = compare(reference.detect([image]), detector.detect([image]), Tolerance(boxes=0.01, scores=1e-4))
    assert difference.unmatched == 0 and difference.detections > 10
    # chosen at the new size, thresholds enter the contract
    point = write_operating_point(tmp_path / "operating_point.json", input_size=[96, 160], score_histogram=list(range(9)))
    again = export_onnx(path, out, input_size=(96, 160), operating_point=point)
    assert again.contract.alarm_thresholds == {"helmet": 0.25, "none": 0.25} and not again.has_dropped_thresholds
    assert again.contract.score_histogram == tuple(range(9))


@pytest.mark.parametrize(
    ("input_size", "measured_at"),
    [
        (None, {"input_size": [96, 160]}),
        ((96, 160), {}),  # written before the size was recorded: chosen at the size of the training
        ((96, 160), {"input_size": [64, 96]}),
    ],
)
def test_export_onnx_refuses_thresholds_of_other_input_size(
    tmp_path: Path, checkpoint: Path, input_size: tuple[int, int] | None, measured_at: dict[str, object]
) -> None:
    point, out = write_operating_point(tmp_path / "operating_point.json", **measured_at), tmp_path / "model.onnx"
    with pytest.raises(UserError, match=r"expected thresholds chosen at the input size \d+ x \d+, got those of \d+ x \d+"):
        export_onnx(checkpoint, out, input_size=input_size, operating_point=point)
    assert not out.exists()


def test_export_onnx_input_size_not_multiple_of_32_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"input_size: expected a height and a width in multiples of 32, got 100 96"):
        export_onnx(checkpoint, tmp_path / "model.onnx", input_size=(100, 96))


@pytest.mark.parametrize("architecture", ["yolov3-small", "yolov3-tiny"])
def test_null_detector_is_built_for_each_architecture(architecture: str) -> None:
    detector = null_detector(replace(CONTRACT, provenance={"architecture": architecture}), threads=1)
    [detections] = detector.detect([noise(1)[0]])
    assert detector.contract.input_size == (64, 96) and len(detections) <= CONTRACT.max_detections


def test_small_network_packs_and_quantises() -> None:
    network = make_network("yolov3-small")
    assert len(pack_checkpoint(network, describe_network(network, CONTRACT))) < 15e6  # 7.3 M weights of two bytes
    model = build_model(network, CONTRACT)
    images = [AnnotatedImage(image=f"{i}.jpg", objects=(), source=None, image_id=str(i)) for i in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppe_yolo.export.quantize_graph.read_image", lambda path: noise(1, seed=len(path))[0])
        quantized = quantize_graph(model, CONTRACT, images, reduce_range=True)
    assert len(quantized.SerializeToString()) < 7.8e6
    detector = OnnxDetector(quantized.SerializeToString(), "small", "cpu")
    reference = OnnxDetector(model.SerializeToString(), "small", "cpu")
    [before], [after] = (d.detect([noise(1, seed=5)[0]]) for d in (reference, detector))
    assert len(before) > 0 and after.scores[:3] == pytest.approx(before.scores[:3], abs=0.1)
