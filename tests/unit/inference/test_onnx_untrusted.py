"""Untrusted ONNX files: errors of one line, and the detections of a valid file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx.parser import parse_model

from ppe_yolo.core import onnx_session
from ppe_yolo.core.contract import ONNX_METADATA_KEY, ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.export.graph import add_suppression, stamp
from ppe_yolo.inference import onnx_detector
from ppe_yolo.inference.loading import is_onnx, load_detector
from ppe_yolo.inference.onnx_detector import OnnxDetector

CONTRACT = ModelContract(("helmet", "none"), (32, 64), max_detections=10)
# one of fifteen grid locations predicts something: the box (8, 4, 24, 28) as `none`, with the image's brightness as score
NETWORK = """
<ir_version: 10, opset_import: ["": 18]>
network (uint8[batch, 32, 64, 3] images) => (float[batch, 15, 4] decoded_xyxy, float[batch, 15, 2] decoded_scores)
<int64[3] middle = {1, 2, 3}, int64[3] column = {-1, 1, 1}, float white = {255}, float nothing = {0}>
{
  floats = Cast <to = 1> (images)
  mean = ReduceMean <keepdims = 0> (floats, middle)
  brightness_255 = Reshape (mean, column)
  brightness = Div (brightness_255, white)
  zero = Mul (brightness, nothing)
  decoded_xyxy = Add (zero, boxes)
  decoded_scores = Mul (brightness, scores)
}
"""


def make_model(contract: ModelContract = CONTRACT) -> ModelProto:
    network = parse_model(NETWORK)
    boxes, scores = np.zeros((15, 4), np.float32), np.zeros((15, 2), np.float32)
    boxes[6], scores[6, 1] = (8, 4, 24, 28), 1
    network.graph.initializer.extend([numpy_helper.from_array(boxes, "boxes"), numpy_helper.from_array(scores, "scores")])
    # the initializer must not share a name with an output of the suppression
    network.graph.initializer[-1].name = network.graph.node[-1].input[1] = "weights"
    model = add_suppression(network, contract)
    stamp(model, contract)
    return model


@pytest.fixture
def save(tmp_path: Path) -> Callable[[ModelProto], Path]:
    def write(model: ModelProto) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def test_onnx_detector_returns_boxes_in_image_pixels(save) -> None:
    detector = load_detector(save(make_model()), device="cpu")
    assert isinstance(detector, OnnxDetector) and detector.contract == CONTRACT
    wide, high = np.full((64, 128, 3), 255, np.uint8), np.full((64, 32, 3), 255, np.uint8)
    first, second = detector.detect([wide, high])
    assert first.boxes_xyxy.tolist() == [[16, 8, 48, 56]] and first.labels.tolist() == [1]  # half the size in the input
    assert first.scores.tolist() == [1.0] and first.boxes_xyxy.dtype == np.float32 and first.labels.dtype == np.int64
    # 16 wide in the middle, from x = 24 on: the box ends where the image starts, so it is dropped
    assert len(second.boxes_xyxy) == len(second.scores) == len(second.labels) == 0
    assert detector.detect([np.zeros((32, 64, 3), np.uint8)])[0].scores.tolist() == []  # black: below the floor
    assert detector.detect([]) == []
    assert len(detector.detect(np.zeros((2, 32, 64, 3), np.uint8))) == 2  # an array is a sequence of images


def test_onnx_detector_reuses_canvases_without_changing_results(save) -> None:
    detector = OnnxDetector(make_model().SerializeToString(), "m", "cpu")
    image = np.full((40, 80, 3), 200, np.uint8)
    detector.detect([image] * 3)
    canvases = detector._canvases
    kept = detector.detect([image])
    detector.detect([np.zeros_like(image)])
    assert detector._canvases is canvases and len(canvases) == 3
    assert kept[0].scores.tolist() == pytest.approx([200 / 255])  # earlier results do not change


def with_metadata(**changes: object) -> ModelProto:
    model = make_model()
    values = json.loads(CONTRACT.to_json()) | changes
    helper.set_model_props(model, {ONNX_METADATA_KEY: json.dumps(values)})
    return model


def without_contract() -> ModelProto:
    model = make_model()
    del model.metadata_props[:]
    return model


def with_external_data() -> ModelProto:
    model = make_model()
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def with_hidden_external_data() -> ModelProto:
    model = make_model()
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "branch", [], [])
    inner.output.append(helper.make_tensor_value_info("y", 1, [1]))
    condition = numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["z"], then_branch=inner, else_branch=inner))
    return model


def with_foreign_operator() -> ModelProto:
    model = make_model()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node.append(helper.make_node("Evil", ["images"], ["evil"], domain="com.example"))
    return model


def with_function() -> ModelProto:
    model = make_model()
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Hidden", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    return model


def with_unknown_standard_operator() -> ModelProto:
    model = make_model()
    model.graph.node.append(helper.make_node("NoSuchOperator", ["images"], ["evil"]))
    return model


def with_one_more_output() -> ModelProto:
    model = make_model()
    model.graph.output.append(helper.make_tensor_value_info("decoded_xyz", 1, ["batch", 32, 64, 3]))
    model.graph.node.append(helper.make_node("Cast", ["images"], ["decoded_xyz"], to=1))
    return model


def before_suppression() -> ModelProto:
    model = make_model()
    stamped = parse_model(NETWORK)
    stamped.graph.initializer.extend(t for t in model.graph.initializer if t.name in ("boxes", "weights"))
    stamped.graph.node[-1].input[1] = "weights"
    stamp(stamped, CONTRACT)
    return stamped


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_contract, "without a contract in its metadata"),
        (lambda: with_metadata(schema_version=2), "expected schema_version 1, got 2: update ppe_yolo"),
        (lambda: with_metadata(input_size=[64, 64]), r"promises images tensor\(uint8\) \[batch, 64, 64, 3\], the graph has"),
        (lambda: with_metadata(max_detections=300), r"promises boxes_xyxy .*300, 4\], the graph has .*10, 4\]"),
        (lambda: with_metadata(max_detections="many"), "max_detections must be a whole number"),
        (lambda: with_metadata(class_names=[]), "class_names must be"),
        (lambda: with_metadata(surprise=1), "unknown keys"),
        (with_external_data, "expected all weights in this file"),
        (with_hidden_external_data, "expected all weights in this file"),
        (with_foreign_operator, "expected standard ONNX operators, got those of com.example"),
        (with_function, "expected standard ONNX operators, got those of Hidden"),
        (with_unknown_standard_operator, "NoSuchOperator"),
        (with_one_more_output, "the graph has decoded_xyz, which the contract does not mention"),
        (before_suppression, "exported with --without-nms"),
    ],
)
def test_load_detector_of_untrusted_onnx_raises_user_error(save, make: Callable[[], ModelProto], message: str) -> None:
    path = save(make())
    with pytest.raises(UserError, match=message) as caught:
        load_detector(path, device="cpu")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 100, 1500, -1])
def test_load_detector_of_truncated_onnx_raises_user_error(save, keep: int) -> None:
    path = save(make_model())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.onnx: expected an ONNX model, got \d+ bytes that are not a complete one"):
        load_detector(path, device="cpu")


def test_load_detector_of_too_large_onnx_raises_user_error(save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(make_model())
    monkeypatch.setattr(onnx_session, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=rf"at most 1000 bytes, got {path.stat().st_size}"):
        load_detector(path, device="cpu")


def test_load_detector_of_missing_onnx_or_folder_raises_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected an ONNX model, got no such file"):
        load_detector(tmp_path / "no.onnx")
    with pytest.raises(UserError, match="expected an ONNX model, got a folder"):
        onnx_detector.read_onnx(tmp_path)


def test_is_onnx_decides_by_content(tmp_path: Path, save) -> None:
    onnx_file = save(make_model())
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(onnx_file.read_bytes())
    archive = tmp_path / "checkpoint.onnx"
    archive.write_bytes(b"PK\x03\x04")
    assert is_onnx(onnx_file) and is_onnx(renamed) and not is_onnx(archive)
    assert load_detector(renamed, device="cpu").contract == CONTRACT
    with pytest.raises(UserError, match="expected a checkpoint, got a file that cannot be read as one"):
        load_detector(archive)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:1", "cuda"])
def test_onnx_detector_with_unavailable_device_raises_user_error(save, device: str) -> None:
    if device == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=f"device: '{device}' cannot be used"):
        load_detector(save(make_model()), device=device)
