"""The detector of the box: the same detections as the library, from the same file."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from conftest import GREEN, GREY, HEAD_XYXY, RED  # isort: skip
from ppe_edge.errors import EdgeError, NotReadyError
from ppe_edge.model.detector import EdgeDetector, choose_providers
from ppe_edge.model.store import bundled_frame, smoke_test

from ppe_yolo.core.contract import ContractError
from ppe_yolo.inference.onnx_detector import load_onnx_detector


def plain(colour: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    return np.full((*size, 3), colour, dtype=np.uint8)


def test_edge_detector_returns_boxes_in_frame_pixels(tiny_model: Path) -> None:
    detector = EdgeDetector(tiny_model, threads=1)
    bare, helmet, nobody = detector.detect([plain(RED, (128, 192)), plain(GREEN, (64, 96)), plain(GREY, (64, 96))])
    assert bare.labels.tolist() == [1] and helmet.labels.tolist() == [0] and nobody.labels.tolist() == []
    assert bare.boxes_xyxy[0] == pytest.approx(2 * np.array(HEAD_XYXY))  # twice the size of the model's input
    assert helmet.boxes_xyxy[0] == pytest.approx(HEAD_XYXY)
    assert bare.scores[0] == pytest.approx((230 - 20) / 255, abs=1e-5)
    assert detector.detect([]) == []


def test_edge_detector_equals_onnx_detector_of_the_library(tiny_model: Path) -> None:
    rng = np.random.default_rng(3)
    colours = [RED, GREEN, GREY, RED]
    frames = [
        np.clip(plain(c, s) + rng.integers(-20, 21, (*s, 3)), 0, 255).astype(np.uint8)
        for c, s in zip(colours, [(64, 96), (90, 60), (33, 200), (480, 640)], strict=True)
    ]
    on_box, in_library = EdgeDetector(tiny_model).detect(frames), load_onnx_detector(tiny_model, device="cpu").detect(frames)
    for a, b in zip(on_box, in_library, strict=True):
        assert np.array_equal(a.boxes_xyxy, b.boxes_xyxy)
        assert np.array_equal(a.scores, b.scores) and np.array_equal(a.labels, b.labels)


def test_edge_detector_later_call_keeps_earlier_results(tiny_model: Path) -> None:
    detector = EdgeDetector(tiny_model)
    [first] = detector.detect([plain(RED, (64, 96))])
    before = first.boxes_xyxy.copy(), first.scores.copy(), first.labels.copy()
    detector.detect([plain(GREEN, (64, 300)), plain(GREEN, (300, 64))])
    for kept, now in zip(before, (first.boxes_xyxy, first.scores, first.labels), strict=True):
        assert np.array_equal(kept, now)


def test_edge_detector_reports_hash_provider_and_contract(tiny_model: Path) -> None:
    detector = EdgeDetector(tiny_model)
    assert detector.sha256 == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert detector.provider == "CPUExecutionProvider" and detector.contract.class_names == ("helmet", "none")
    smoke_test(detector)
    assert bundled_frame().shape == (180, 320, 3)


def test_edge_detector_session_spins_briefly_and_has_no_memory_pattern(tiny_model: Path) -> None:
    options = EdgeDetector(tiny_model).session.get_session_options()
    assert not options.enable_mem_pattern
    assert 0 < int(options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 5000


def test_choose_providers_keeps_requested_order() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose_providers(None, available) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose_providers(["CPUExecutionProvider", "CUDAExecutionProvider"], available)[0] == "CPUExecutionProvider"
    assert choose_providers(["TensorrtExecutionProvider", "OpenVINOExecutionProvider"], available) == available[:1]
    with pytest.raises(EdgeError, match=r"model\.providers: expected some of .*, got OpenVINOExecutionProvider"):
        choose_providers(["OpenVINOExecutionProvider"], available)


def test_edge_detector_of_unusable_file_raises_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="got no such file"):
        EdgeDetector(tmp_path / "none.onnx")
    with pytest.raises(EdgeError, match="got a folder"):
        EdgeDetector(tmp_path)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(tiny_model.read_bytes()[:200])
    with pytest.raises(EdgeError, match=r"expected an ONNX model that onnxruntime can run, got 200 bytes .*: copy it again, "):
        EdgeDetector(cut)
    checkpoint = Path(__file__).parents[2] / "ppe_yolo" / "weights" / "helmet-small.ckpt"
    with pytest.raises(
        EdgeError, match=r"got an archive .*: export it with `ppe-yolo export \S+\.ckpt --out helmet-small\.onnx`"
    ):
        EdgeDetector(checkpoint)
    model = onnx.load(tiny_model)
    del model.metadata_props[:]
    onnx.save(model, cut)
    with pytest.raises(ContractError, match="without a contract"):
        EdgeDetector(cut)
    with pytest.raises(EdgeError, match=r"model\.providers"):
        EdgeDetector(tiny_model, providers=["CUDAExecutionProvider"])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_provider_whose_driver_is_not_loaded_yet_may_be_tried_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppe_edge.model.detector.choose_providers", lambda requested, available: requested)
    with pytest.raises(NotReadyError, match=r"model\.providers: CUDAExecutionProvider is installed but cannot be used here: "):
        EdgeDetector(tiny_model, ["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_detector_without_threads_uses_available_cores(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppe_edge.model.detector.available_cores", lambda: 3)
    assert EdgeDetector(tiny_model).session.get_session_options().intra_op_num_threads == 3
