"""The bundled models: their names, their packed checkpoints, and training that starts from them."""

import io

import pytest
import torch

from ppe_yolo import weights
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.onnx_session import read_model
from ppe_yolo.data.audit.image_check import check_image
from ppe_yolo.data.images import ImageError, read_image
from ppe_yolo.export.pack import pack_checkpoint
from ppe_yolo.inference.checkpoint import build_network, describe_network, read_checkpoint
from ppe_yolo.model.darknet_weights import read_weights
from ppe_yolo.model.yolov3 import YoloV3, default_anchors_wh
from ppe_yolo.training.task import DetectorTask
from ppe_yolo.weights import find_model, model_names

ANCHORS = [[12.0, 15.0], [17.0, 21.0], [22.0, 27.0], [30.0, 37.0], [43.0, 52.0], [70.0, 82.0]]
CONTRACT = ModelContract(("helmet", "none"), (64, 96), alarm_thresholds={"helmet": 0.4, "none": 0.3})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("helmet-small.ckpt", "helmet-small.int8.onnx", "vest.ckpt", "vest.int8.onnx", "README.md"):
        (own / name).touch()
    monkeypatch.setattr(weights, "FOLDER", own)
    monkeypatch.chdir(tmp_path)
    return own


def test_find_model_by_name_returns_file_of_requested_kind(folder):
    assert model_names() == ["helmet-small", "vest"]
    assert find_model("helmet-small", "checkpoint") == folder / "helmet-small.ckpt"
    assert find_model("helmet-small", "onnx") == folder / "helmet-small.int8.onnx"
    assert find_model("helmet-small.ckpt", "onnx") == folder / "helmet-small.ckpt"


def test_find_model_prefers_files_of_the_user(folder, tmp_path):
    (tmp_path / "vest").touch()
    (tmp_path / "helmet-small.ckpt").touch()
    for name in ("vest", "helmet-small.ckpt"):
        assert find_model(name, "onnx").resolve() == tmp_path / name
    for name in (
        "other/helmet-small",
        "../own/README.md",
        "nowhere.ckpt",
        "README.onnx",
    ):  # their readers report them
        assert str(find_model(name, "onnx")) == name


@pytest.mark.parametrize("name", ["helmet-smal", "helmet-small.int8", "README.md"])
def test_find_model_of_unknown_name_lists_bundled_models(folder, name):
    with pytest.raises(UserError, match=f"^{name}: expected a model file or one of the names helmet-small, vest, got no such"):
        find_model(name, "onnx")


def test_find_model_of_folder_names_the_best_checkpoint_in_it(folder, tmp_path):
    (tmp_path / "vest").mkdir()  # results of an evaluation, for example: they hide no bundled model
    assert find_model("vest", "onnx") == folder / "vest.int8.onnx"
    (tmp_path / "runs/a-1/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/a-1/checkpoints/best.ckpt").touch()
    for name, hint in (("runs/a-1", ": give runs/a-1/checkpoints/best.ckpt"), ("runs", "")):
        with pytest.raises(UserError, match=f"^{name}: expected a model file, got a folder{hint}$"):
            find_model(name, "checkpoint")


def test_git_lfs_pointer_instead_of_image_or_weights_is_named(tmp_path):
    pointer = tmp_path / "a.jpg"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    message = f"^{pointer}: expected the file itself, got a Git LFS pointer, .*: download it with `git lfs pull`$"
    for read in (read_checkpoint, read_model, lambda path: read_weights(path, "yolov3", 2)):
        with pytest.raises(UserError, match=message):
            read(pointer)
    for read in (read_image, check_image):
        with pytest.raises(ImageError, match=message):
            read(str(pointer))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return YoloV3("yolov3-tiny", 2, ANCHORS)


@pytest.fixture(scope="module")
def packed(network):
    return pack_checkpoint(network, describe_network(network, CONTRACT))


def test_packed_checkpoint_is_small_and_reads_like_any_other(network, packed, tmp_path):
    whole = io.BytesIO()
    torch.save({"state_dict": network.state_dict()}, whole)
    assert len(packed) < 0.45 * len(whole.getvalue())
    (tmp_path / "small.ckpt").write_bytes(packed)
    again, contract = build_network(read_checkpoint(tmp_path / "small.ckpt"), "small.ckpt")
    assert contract == CONTRACT and torch.equal(again.anchors_wh, network.anchors_wh)
    for (key, was), (_, now) in zip(network.state_dict().items(), again.state_dict().items(), strict=True):
        assert now.dtype == was.dtype, key
        if was.ndim == 4:  # eight significant bits: an error of at most half of 1/128
            assert ((now - was).abs() <= was.abs() / 256).all() and not torch.equal(now, was), key
        else:
            assert torch.equal(now, was), key


def test_pack_checkpoint_is_deterministic(network, packed):
    assert pack_checkpoint(network, describe_network(network, CONTRACT)) == packed


def test_detector_task_takes_anchors_of_its_weights(packed, tmp_path, caplog):
    path = tmp_path / "small.ckpt"
    path.write_bytes(packed)
    with caplog.at_level("INFO"):
        task = DetectorTask(weights=str(path))
        task.configure_model()
    assert task.network.anchors_wh.reshape(-1, 2).tolist() == ANCHORS
    assert "start off wrong" not in caplog.text
    kept, _ = build_network(read_checkpoint(path), path)
    assert all(torch.equal(v, kept.state_dict()[k]) for k, v in task.network.state_dict().items())

    own = default_anchors_wh("yolov3-tiny").tolist()
    with caplog.at_level("INFO"):
        task = DetectorTask(weights=str(path), anchors_wh=[(w, h) for w, h in own], class_names=("none", "helmet"))
        task.configure_model()
    assert task.network.anchors_wh.reshape(-1, 2).tolist() == own
    assert "the boxes start off wrong" in caplog.text
    assert "their classes were helmet, none; here they are none, helmet" in caplog.text
    with pytest.raises(UserError, match="expected weights of yolov3, got yolov3-tiny"):
        DetectorTask("yolov3", weights=str(path)).configure_model()
