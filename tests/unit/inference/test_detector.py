"""From a checkpoint to detections. Every file that is not written by ppe-yolo gives an error of one line."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from box_logits import encode_cxcywh

from ppe_yolo.core.contract import ContractError, ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, build_network, read_checkpoint
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.inference.torch_detector import TorchDetector, choose_device, detect_batch
from ppe_yolo.model.yolov3 import YoloV3

CONTRACT = ModelContract(("helmet", "none"), (64, 96), score_floor=0.3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return YoloV3("yolov3-tiny", 2).eval()


@pytest.fixture
def checkpoint(network):
    return {
        CHECKPOINT_KEY: {
            "contract": CONTRACT.to_json(),
            "architecture": "yolov3-tiny",
            "anchors_wh": network.anchors_wh.reshape(-1, 2).tolist(),
            "box_coding": "bounded",
        },
        "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()},
    }


def error_of(call, *arguments, **options):
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message and "\x1b" not in message and len(message) < 600
    return message


def test_load_detector_of_checkpoint_restores_network_and_contract(tmp_path, network, checkpoint):
    path = tmp_path / "best.ckpt"
    torch.save(checkpoint, path)
    detector = load_detector(path, device="cpu")
    assert detector.contract == CONTRACT
    rebuilt = detector.network.state_dict()
    assert all(torch.equal(rebuilt[k], v) for k, v in network.state_dict().items())


class RunsCode:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore")
def test_read_checkpoint_of_other_file_raises_user_error(tmp_path):
    (tmp_path / "garbage.ckpt").write_bytes(b"no checkpoint" * 100)
    (tmp_path / "empty.ckpt").touch()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({CHECKPOINT_KEY: {}}, tmp_path / "weightless.ckpt")
    whole = (tmp_path / "other.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name, message_part in {
        "missing.ckpt": "expected a checkpoint, got no such file",
        ".": "expected a checkpoint, got a folder",
        "garbage.ckpt": "cannot be read as one (damaged, or it holds more than tensors and plain values)",
        "empty.ckpt": "cannot be read as one (damaged",
        "cut.ckpt": "cannot be read as one (damaged",
        "other.ckpt": "expected a checkpoint written by `ppe-yolo fit`, got one without a model contract",
        "list.ckpt": "got one without a model contract",
        "weightless.ckpt": "got one without a model contract",
    }.items():
        message = error_of(read_checkpoint, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}: ") and message_part in message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_load_detector_does_not_run_code_in_checkpoint(tmp_path, checkpoint, save):
    trace = tmp_path / "trace"
    save({**checkpoint, "extra": RunsCode(trace)}, tmp_path / "evil.ckpt")
    assert "cannot be read as one" in error_of(load_detector, tmp_path / "evil.ckpt", device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message_part"),
    [
        ({"architecture": "yolov9"}, "architecture: expected one of"),
        ({"architecture": "yolov3"}, "anchors: yolov3 takes 9 pairs"),
        ({"architecture": ["yolov3"]}, "the checkpoint contradicts itself"),
        ({"anchors_wh": [[1.0, 1.0]]}, "anchors: yolov3-tiny takes 6 pairs"),
        ({"anchors_wh": [[1.0, 1.0], [1.0]]}, "the checkpoint contradicts itself"),
        ({"anchors_wh": "wide"}, "the checkpoint contradicts itself"),
        ({"box_coding": "linear"}, "box_coding: expected one of ['bounded', 'darknet'], got 'linear'"),
        ({"contract": None}, "the checkpoint contradicts itself"),
        ({"contract": "{"}, "model contract: expected JSON"),
        ({"contract": '{"schema_version": 9}'}, "model contract: expected schema_version 1, got 9"),
        ({"contract": ModelContract(("person",), (64, 64)).to_json()}, "the checkpoint contradicts itself"),
    ],
    ids=str,
)
def test_build_network_of_contradictory_checkpoint_raises_user_error(checkpoint, change, message_part):
    checkpoint[CHECKPOINT_KEY].update(change)
    message = error_of(build_network, checkpoint, "best.ckpt")
    assert message.startswith("best.ckpt: ") and message_part in message


def test_build_network_of_incomplete_checkpoint_raises_user_error(checkpoint):
    del checkpoint["state_dict"]["network.body.heads.0.1.bias"]
    assert "body.heads.0.1.bias" in error_of(build_network, checkpoint, "best.ckpt")
    assert "contradicts itself" in error_of(build_network, {**checkpoint, "state_dict": [1]}, "best.ckpt")
    assert "contradicts itself" in error_of(build_network, {**checkpoint, CHECKPOINT_KEY: []}, "best.ckpt")
    del checkpoint[CHECKPOINT_KEY]["anchors_wh"]
    assert "anchors_wh" in error_of(build_network, checkpoint, "best.ckpt")


def test_build_network_with_unknown_contract_version_raises_contract_error(checkpoint):
    values = json.loads(CONTRACT.to_json())
    checkpoint[CHECKPOINT_KEY]["contract"] = json.dumps({**values, "schema_version": 2})
    with pytest.raises(ContractError, match=r"^best\.ckpt: model contract: expected schema_version 1, got 2"):
        build_network(checkpoint, "best.ckpt")


def test_choose_device_accepts_available_devices_only():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nonsense", "", "cuda:99", "meta", "hpu"):
        message = error_of(choose_device, name)
        assert message.startswith(f"device: {name!r} cannot be used here (") and message.endswith("): try auto or cpu")


def planted(network, location, box_cxcywh, input_size, scores_logit=(8.0, -8.0)):
    """A network that predicts the same for every image: one object at one grid location."""

    def raw_maps(images):
        maps = [torch.full((len(images), 3, input_size[0] // s, input_size[1] // s, 7), -8.0) for s in network.strides]
        level, anchor, row, column = location
        at = (torch.tensor([column, row]), network.anchors_wh[level, anchor], torch.tensor([network.strides[level]]))
        logits = encode_cxcywh(torch.tensor(box_cxcywh), *at, "bounded")
        maps[level][:, anchor, row, column] = torch.cat((logits, torch.tensor([8.0, *scores_logit])))
        return maps

    planted_network = copy.deepcopy(network)
    planted_network.forward = raw_maps
    return planted_network


def test_torch_detector_returns_boxes_in_image_pixels(network):
    # an image of 192 x 64 is scaled to half its size in 96 x 64, with 16 rows of padding above
    image = np.zeros((64, 192, 3), dtype=np.uint8)
    fake = planted(network, (0, 2, 2, 3), [50.0, 36.0, 20.0, 30.0], (64, 96))
    (detections,) = TorchDetector(fake, CONTRACT, torch.device("cpu")).detect([image])
    # (40, 21, 60, 51) in the input; minus 16 rows, times two; the lower end is in the padding, and is clipped
    np.testing.assert_allclose(detections.boxes_xyxy, [[80, 10, 120, 64]], atol=1e-3)
    assert detections.labels.tolist() == [0] and detections.labels.dtype == np.int64
    np.testing.assert_allclose(detections.scores, [(1 / (1 + np.exp(-8))) ** 2], rtol=1e-5)
    assert detections.boxes_xyxy.dtype == detections.scores.dtype == np.float32


def test_torch_detector_batch_of_several_sizes_equals_single_images(network):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 96), (200, 50), (33, 77))]
    contract = ModelContract(("helmet", "none"), (64, 96), score_floor=0.0, max_detections=5)
    detector = TorchDetector(network, contract, torch.device("cpu"))
    together = detector.detect(images)
    assert len(together) == 3 and detector.detect([]) == []
    for image, detections in zip(images, together, strict=True):
        (alone,) = detector.detect([image])
        np.testing.assert_allclose(detections.scores, alone.scores, rtol=1e-4)
        # the network returns five; those in the padding are dropped
        assert 1 <= len(detections.scores) <= 5 and (np.diff(detections.scores) <= 0).all()
        height, width = image.shape[:2]
        assert (detections.boxes_xyxy >= 0).all() and (detections.boxes_xyxy <= [width, height, width, height]).all()


def test_torch_detector_feeds_letterboxed_image_scaled_to_one(network):
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    seen = []

    recorder = copy.deepcopy(network)
    recorder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    TorchDetector(recorder, CONTRACT, torch.device("cpu")).detect([image])
    canvas, _ = letterbox(image, (64, 96))
    torch.testing.assert_close(seen[0], torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255)


def test_torch_detector_equals_detect_batch_on_the_same_image(network):
    contract = ModelContract(("helmet", "none"), (64, 64), score_floor=0.0, max_detections=3)
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (detections,) = TorchDetector(network, contract, torch.device("cpu")).detect([image])
    with torch.no_grad():
        (direct,) = detect_batch(network, torch.from_numpy(image).permute(2, 0, 1)[None] / 255, contract)
    np.testing.assert_allclose(detections.boxes_xyxy, direct["boxes_xyxy"], atol=1e-3)
