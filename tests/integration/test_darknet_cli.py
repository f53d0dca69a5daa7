"""`import-darknet` and `export-darknet` against OpenCV's reader of Darknet networks.

This file builds the networks and draws their weights on its own, after the published cfg files and without the library's code:
where it and OpenCV agree, the library must agree too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.export.darknet import read_class_names
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, build_network, describe_network, read_checkpoint
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.inference.torch_detector import TorchDetector
from ppe_yolo.model.yolov3 import YoloV3

HEIGHT, WIDTH = 64, 96
SCORE_FLOOR = 0.01  # of a contract, when nothing else is said
RunCli = Callable[..., int]
YOLOV3_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
HEAD_ANCHORS = "8,10, 11,14, 15,19, 20,25, 28,34, 38,46, 54,65, 90,108, 180,216"
TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """In networks this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Published:
    """A network as Darknet's own cfg has it: sections, numbers of its head layers from the finest on, bytes with 80 classes."""

    architecture: str
    sections: Callable[[int], list[dict[str, Any]]]
    heads: tuple[int, ...]
    size: int


def _conv(filters: int, size: int, stride: int = 1) -> dict[str, Any]:
    return {
        "name": "convolutional",
        "batch_normalize": 1,
        "filters": filters,
        "size": size,
        "stride": stride,
        "pad": 1,
        "activation": "leaky",
    }


def _head(classes: int, mask: str, anchors: str) -> list[dict[str, Any]]:
    last = {"name": "convolutional", "size": 1, "stride": 1, "pad": 1, "filters": 3 * (5 + classes), "activation": "linear"}
    count = len(anchors.split(",")) // 2
    # thresh is for OpenCV, which else leaves out scores below 0.2
    yolo = {"name": "yolo", "mask": mask, "anchors": anchors, "classes": classes, "num": count, "thresh": SCORE_FLOOR}
    return [last, yolo]


def _darknet53(
    classes: int, stages: tuple[tuple[int, int], ...], repeats: int, routes: tuple[int, int], anchors: str
) -> list[dict[str, Any]]:
    """Layers as in cfg/yolov3.cfg.

    Args:
        classes: Number of classes.
        stages: (filters, residual blocks) of the backbone's stages.
        repeats: Pairs of a 1x1 and a 3x3 convolution before each head.
        routes: Last layers of the fourth and the third stage.
        anchors: Nine pairs.
    """
    layers = [_conv(stages[0][0] // 2, 3)]
    for filters, count in stages:
        layers.append(_conv(filters, 3, 2))
        shortcut = {"name": "shortcut", "from": -3, "activation": "linear"}
        layers += [_conv(filters // 2, 1), _conv(filters, 3), shortcut] * count
    filters = stages[-1][0] // 2
    layers += [_conv(filters, 1), _conv(2 * filters, 3)] * repeats + _head(classes, "6,7,8", anchors)
    for route, mask in zip(routes, ("3,4,5", "0,1,2"), strict=True):
        filters //= 2
        layers += [{"name": "route", "layers": "-4"}, _conv(filters, 1), {"name": "upsample", "stride": 2}]
        layers += [{"name": "route", "layers": f"-1, {route}"}, *[_conv(filters, 1), _conv(2 * filters, 3)] * repeats]
        layers += _head(classes, mask, anchors)
    return layers


def _yolov3(classes: int) -> list[dict[str, Any]]:
    """cfg/yolov3.cfg."""
    stages = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
    return _darknet53(classes, stages, repeats=3, routes=(61, 36), anchors=YOLOV3_ANCHORS)


def _small(classes: int) -> list[dict[str, Any]]:
    """Half the width of cfg/yolov3.cfg, and a quarter of its depth."""
    stages = ((32, 1), (64, 1), (128, 2), (256, 2), (512, 1))
    return _darknet53(classes, stages, repeats=2, routes=(22, 15), anchors=HEAD_ANCHORS)


def _tiny(classes: int) -> list[dict[str, Any]]:
    """cfg/yolov3-tiny.cfg, with the mask 1,2,3 that the published weights were trained with."""
    layers: list[dict[str, Any]] = []
    for filters in (16, 32, 64, 128, 256):
        layers += [_conv(filters, 3), {"name": "maxpool", "size": 2, "stride": 2}]
    layers += [_conv(512, 3), {"name": "maxpool", "size": 2, "stride": 1}, _conv(1024, 3), _conv(256, 1), _conv(512, 3)]
    layers += [*_head(classes, "3,4,5", TINY_ANCHORS), {"name": "route", "layers": "-4"}, _conv(128, 1)]
    layers += [{"name": "upsample", "stride": 2}, {"name": "route", "layers": "-1, 8"}, _conv(256, 3)]
    return layers + _head(classes, "1,2,3", TINY_ANCHORS)


YOLOV3 = Published("yolov3", _yolov3, (105, 93, 81), 248_007_048)
SMALL = Published("yolov3-small", _small, (51, 41, 31), 29_929_672)
TINY = Published("yolov3-tiny", _tiny, (22, 15), 35_434_956)


def _write_network(folder: Path, published: Published, classes: int, seed: int) -> tuple[Path, Path]:
    """Writes net.cfg and net.weights, version 0.2, numbers drawn so that activations stay near 1."""
    rng = np.random.default_rng(seed)
    layers = published.sections(classes)
    net = {"name": "net", "height": HEIGHT, "width": WIDTH, "channels": 3}
    text = "\n\n".join(
        "\n".join([f"[{layer['name']}]", *(f"{k}={v}" for k, v in layer.items() if k != "name")]) for layer in [net, *layers]
    )
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(text + "\n")
    widths: list[int] = []
    with weights.open("wb") as file:
        np.array([0, 2, 0], "<i4").tofile(file)
        np.array([32_013_312], "<i8").tofile(file)
        for i, layer in enumerate(layers):
            before = widths[-1] if widths else 3
            if layer["name"] == "convolutional":
                is_added = i + 1 < len(layers) and layers[i + 1]["name"] == "shortcut"
                _draw_convolution(rng, layer, before, 0.3 if is_added else 1.0).tofile(file)
                widths.append(layer["filters"])
            elif layer["name"] == "route":
                numbers = [int(n) for n in layer["layers"].split(",")]
                widths.append(sum(widths[n] for n in numbers))
            else:
                widths.append(before)
    return cfg, weights


def _draw_convolution(rng: np.random.Generator, layer: dict[str, Any], before: int, scale: float) -> NDArray[np.float32]:
    filters, fan_in = layer["filters"], before * layer["size"] ** 2
    kernels = rng.normal(0, np.sqrt(1 / fan_in), (filters, fan_in))
    if "batch_normalize" not in layer:
        return np.concatenate([rng.normal(0, 1, filters), kernels.ravel()]).astype("<f4")
    # some channels are all but dead, as in trained networks: there, what is added to the variance shows
    dim = np.where(rng.random(filters) < 0.1, 0.01, 1.0)
    variance = rng.uniform(0.5, 2, filters) * dim**2
    numbers = [rng.normal(0, 0.2, filters), scale * rng.uniform(0.7, 1.5, filters), rng.normal(0, 0.2, filters) * dim, variance]
    return np.concatenate([*numbers, (kernels * dim[:, None]).ravel()]).astype("<f4")


def _image(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def _run_opencv(
    cfg: Path, weights: Path, image: NDArray[np.uint8], layers: list[str] | None = None
) -> list[NDArray[np.float32]]:
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (image.shape[1], image.shape[0]), swapRB=False))
    return list(net.forward(layers or net.getUnconnectedOutLayersNames()))


def _raw_maps(network: YoloV3, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Returns raw maps in Darknet's layout: [1, A * (5 + C), H, W] each."""
    with torch.inference_mode():
        maps = network.eval()(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    return [m.permute(0, 1, 4, 2, 3).flatten(1, 2).numpy() for m in maps]


def _load(path: Path) -> tuple[YoloV3, ModelContract]:
    return build_network(read_checkpoint(path), path)


def _iou(a: list[float], b: list[float]) -> float:
    meet = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - meet
    return meet / union if union > 0 else 0.0  # OpenCV's own suppression merges two empty boxes


def _opencv_detections(cfg: Path, weights: Path, image: NDArray[np.uint8]) -> list[tuple[int, float, list[float]]]:
    """Returns labels, scores and boxes_xyxy by descending score, decoded by OpenCV."""
    size = np.array([WIDTH, HEIGHT] * 2)
    rows = np.concatenate(_run_opencv(cfg, weights, image))  # centre and size relative to the input, objectness, scores
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    boxes_xyxy = (np.concatenate([centre - half, centre + half], axis=1) * size).clip(0, size)
    rows_above_floor, labels = np.nonzero(rows[:, 5:] >= SCORE_FLOOR)
    found: list[tuple[int, float, list[float]]] = []
    for score, label, row in sorted(
        zip(rows[rows_above_floor, 5 + labels].tolist(), labels.tolist(), rows_above_floor, strict=True), reverse=True
    ):
        box = boxes_xyxy[row].tolist()
        if not any(label == other and _iou(box, kept) > 0.5 for other, _, kept in found):
            found.append((label, score, box))
    # boxes outside the image take part in the suppression, but are no detections
    return [(label, score, box) for label, score, box in found if box[2] > box[0] and box[3] > box[1]]


def _assert_same_detections(network: YoloV3, contract: ModelContract, expected: list, image: NDArray[np.uint8]) -> None:
    found = TorchDetector(network, replace(contract, max_detections=10_000), torch.device("cpu")).detect([image])[0]
    assert len(found.scores) == len(expected) > 20
    assert found.labels.tolist() == [label for label, _, _ in expected]
    np.testing.assert_allclose(found.scores, [score for _, score, _ in expected], atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, [box for _, _, box in expected], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("published", [YOLOV3, SMALL, TINY], ids=lambda p: p.architecture)
def test_import_and_export_of_coco_weights_matches_opencv(
    published: Published, tmp_path: Path, run_cli: RunCli, capsys
) -> None:
    cfg, weights = _write_network(tmp_path, published, classes=80, seed=1)
    assert weights.stat().st_size == published.size
    image, head_layers = _image(3), [f"conv_{n}" for n in published.heads]
    checkpoint, exported = tmp_path / "imported.ckpt", tmp_path / "exported.weights"
    size = ("--input-size", HEIGHT, WIDTH)
    assert run_cli("import-darknet", weights, "--architecture", published.architecture, "--out", checkpoint, *size) == 0
    said = capsys.readouterr().out
    assert "80 classes, 32,013,312 images seen" in said and "at random" not in said

    network, contract = _load(checkpoint)
    assert contract.class_names == read_class_names("coco") and contract.input_size == (HEIGHT, WIDTH)
    expected = _run_opencv(cfg, weights, image, head_layers)
    for ours, theirs in zip(_raw_maps(network, image), expected, strict=True):
        assert 0.5 < theirs.std() < 3  # of order 1, so that the tolerance is meaningful
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)

    assert run_cli("export-darknet", checkpoint, "--out", exported) == 0
    assert exported.read_bytes() == weights.read_bytes()
    for ours, theirs in zip(_run_opencv(exported.with_suffix(".cfg"), exported, image, head_layers), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def few_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """cfg, weights and names of a tiny network with four classes."""
    folder = tmp_path_factory.mktemp("darknet")
    cfg, weights = _write_network(folder, TINY, classes=4, seed=2)
    names = folder / "site.names"
    names.write_text("helmet\nnone\nvest\ncrane\n\n")
    return cfg, weights, names


def _import(few_classes: tuple[Path, Path, Path], out: Path, *more: object) -> list[object]:
    _, weights, names = few_classes
    size = ("--input-size", HEIGHT, WIDTH)
    return ["import-darknet", weights, "--architecture", "yolov3-tiny", "--out", out, *size, "--class-names", names, *more]


def test_imported_network_detects_like_opencv(few_classes: tuple[Path, Path, Path], tmp_path: Path, run_cli: RunCli) -> None:
    cfg, weights, _ = few_classes
    assert run_cli(*_import(few_classes, tmp_path / "a.ckpt")) == 0
    network, contract = _load(tmp_path / "a.ckpt")
    assert contract.class_names == ("helmet", "none", "vest", "crane")
    _assert_same_detections(network, contract, _opencv_detections(cfg, weights, _image(4)), _image(4))


@pytest.mark.parametrize("box_coding", ["bounded", "darknet"])
def test_exported_network_runs_in_opencv_and_imports_again(box_coding: str, tmp_path: Path, run_cli: RunCli) -> None:
    torch.manual_seed(0)
    anchors = [[9.25, 12], [13, 16], [17, 21], [23, 28], [33, 40], [54, 63]]
    network = YoloV3("yolov3-tiny", 2, anchors, box_coding)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.01, 2)
        for head in network.body.heads:
            head[-1].weight.normal_(0, 0.05)
            head[-1].bias.normal_(0, 1)
    contract = ModelContract(class_names=("helmet", "none"), input_size=(HEIGHT, WIDTH))
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, CHECKPOINT_KEY: describe_network(network, contract)}, tmp_path / "ours.ckpt")
    exported = tmp_path / "ours.weights"
    assert run_cli("export-darknet", tmp_path / "ours.ckpt", "--out", exported) == 0
    assert exported.with_suffix(".names").read_text() == "helmet\nnone\n"

    cfg = exported.with_suffix(".cfg")
    cfg.write_text(cfg.read_text().replace("[yolo]\n", f"[yolo]\nthresh={SCORE_FLOOR}\n"))
    _assert_same_detections(network, contract, _opencv_detections(cfg, exported, _image(5)), _image(5))

    # facts that the weights lack are read from the cfg and names next to them
    again = ["import-darknet", exported, "--architecture", "yolov3-tiny", "--out"]
    assert run_cli(*again, tmp_path / "again.ckpt") == 0
    back, promised = _load(tmp_path / "again.ckpt")
    assert back.box_coding == box_coding
    assert (promised.class_names, promised.input_size) == (contract.class_names, contract.input_size)
    for name, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize(("classes", "first"), [(80, [23, 27]), (2, [10, 14])])
def test_import_of_published_tiny_uses_anchors_of_its_training(
    classes: int, first: list[int], tmp_path: Path, run_cli: RunCli
) -> None:
    cfg, weights = _write_network(tmp_path, TINY, classes=classes, seed=6)
    cfg.write_text(cfg.read_text().replace("mask=1,2,3", "mask=0,1,2"))
    if classes == 2:
        weights.with_suffix(".names").write_text("helmet\nnone\n")
    out = tmp_path / "a.ckpt"
    assert run_cli("import-darknet", weights, "--architecture", "yolov3-tiny", "--out", out) == 0
    network, contract = _load(out)
    assert network.anchors_wh.reshape(-1, 2).tolist()[0] == first  # a network of the user's own was trained as its cfg says
    assert network.anchors_wh.reshape(-1, 2).tolist()[3] == [81, 82]
    assert contract.input_size == (HEIGHT, WIDTH)


def _fit(site: Path, checkpoint: Path, run_dir: Path, *more: str) -> list[object]:
    return [
        *("fit", "--config", "yolov3-tiny", "--data.root", site, "--run_dir", run_dir, "--model.weights", checkpoint),
        *("--data.input_size", f"[{HEIGHT},{WIDTH}]", "--data.batch_size", "4", "--data.num_workers", "0"),
        *("--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true", *more),
    ]


def test_fine_tuning_logs_tensors_that_start_at_random(
    few_classes: tuple[Path, Path, Path], tiny_site: Path, tmp_path: Path, run_cli: RunCli, caplog, capsys
) -> None:
    caplog.set_level("INFO")
    assert run_cli(*_import(few_classes, tmp_path / "a.ckpt")) == 0
    assert run_cli(*_fit(tiny_site, tmp_path / "a.ckpt", tmp_path / "run")) == 0
    line = next(m for m in caplog.messages if "tensors from" in m)
    heads = "body.heads.0.1.bias, body.heads.0.1.weight, body.heads.1.1.bias, body.heads.1.1.weight"
    assert line.endswith(f"at random: {heads}")
    assert not any("box_coding" in m for m in caplog.messages)  # new heads had no box coding before

    # an import without the heads reports that, cannot detect, and can be trained
    caplog.clear()
    two = tmp_path / "two.names"
    two.write_text("helmet\nnone\n")
    assert run_cli(*_import(few_classes, tmp_path / "b.ckpt", "--class-names", two)) == 0
    assert "at random, to be trained: body.heads.0.1.weight, body.heads.0.1.bias, " in capsys.readouterr().out
    with pytest.raises(Exception, match=r"4 of its tensors .* hold random numbers .* fit --model.weights"):
        load_detector(tmp_path / "b.ckpt", device="cpu")
    assert run_cli("export-darknet", tmp_path / "b.ckpt", "--out", tmp_path / "b.weights") == 2
    assert run_cli(*_fit(tiny_site, tmp_path / "b.ckpt", tmp_path / "run2")) == 0
    assert next(m for m in caplog.messages if "tensors from" in m).endswith(f"at random: {heads}")


def test_fine_tuning_logs_heads_with_another_box_coding(
    few_classes: tuple[Path, Path, Path], tiny_site: Path, tmp_path: Path, run_cli: RunCli, caplog
) -> None:
    caplog.set_level("INFO")
    _, weights = _write_network(tmp_path, TINY, classes=2, seed=5)
    two = tmp_path / "two.names"
    two.write_text("helmet\nnone\n")
    assert run_cli(*_import((tmp_path, weights, two), tmp_path / "a.ckpt")) == 0
    assert run_cli(*_fit(tiny_site, tmp_path / "a.ckpt", tmp_path / "run")) == 0
    assert any("use box_coding darknet" in m and "learned again" in m for m in caplog.messages)
    assert next(m for m in caplog.messages if "tensors from" in m).endswith("a.ckpt")  # none at random


def test_darknet_commands_report_user_errors_in_one_line(
    few_classes: tuple[Path, Path, Path], tmp_path: Path, run_cli: RunCli, capsys
) -> None:
    _, weights, names = few_classes
    out = tmp_path / "a.ckpt"
    cut = tmp_path / "cut.weights"
    cut.write_bytes(weights.read_bytes()[:-1])
    plain = ["import-darknet", weights, "--architecture", "yolov3-tiny", "--out"]
    for arguments, expected in (
        ([*plain, out], "expected the 80 classes of COCO, got 4: name them with --class-names"),
        ([*plain, weights, "--class-names", names], "expected a name that ends in .ckpt, got '.weights': add .ckpt"),
        (_import((names, cut, names), out), f"expected {weights.stat().st_size:,} bytes"),
        (_import(few_classes, out, "--anchors", "[[1,2]]"), "6 pairs"),
        (_import(few_classes, out, "--anchors", "[1,2]"), "expected [[width,height],...]"),
        (_import(few_classes, out, "--input-size", 60, 96), "multiples of 32"),
        (_import(few_classes, out, "--class-names", tmp_path / "no.names"), "no.names"),
    ):
        assert run_cli(*arguments) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    bad = tmp_path / "bad.weights"
    bad.write_bytes(weights.read_bytes())
    text = weights.with_suffix(".cfg").read_text()
    for cfg, expected in (
        (text.replace("[yolo]", "[yolo]\nscale_x_y=1.05"), "[(1.05, 0)]: other box codings cannot be imported"),
        (text.replace("mask=3,4,5", "mask=3,4,9"), "bad.cfg: expected the cfg of a YOLOv3"),
        ("", "bad.cfg: expected the cfg of a YOLOv3"),
    ):
        bad.with_suffix(".cfg").write_text(cfg)
        arguments = ["import-darknet", bad, "--architecture", "yolov3-tiny", "--out", out, "--class-names", names]
        assert run_cli(*arguments) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    assert not out.exists()

    assert run_cli(*_import(few_classes, out)) == 0
    before = names.read_bytes(), names.with_suffix(".cfg")
    assert run_cli("export-darknet", out, "--out", names.with_suffix(".weights")) == 2
    assert "already exists" in capsys.readouterr().err
    assert names.read_bytes() == before[0] and not before[1].exists()
    assert run_cli("export-darknet", out, "--out", tmp_path / "a.bin") == 2
    assert "ends in .weights" in capsys.readouterr().err


def test_import_small_without_cfg_is_refused_in_one_line(tmp_path: Path, run_cli: RunCli, capsys) -> None:
    torch.manual_seed(0)
    network = YoloV3("yolov3-small", 2)
    contract = ModelContract(class_names=("helmet", "none"), input_size=(HEIGHT, WIDTH))
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, CHECKPOINT_KEY: describe_network(network, contract)}, tmp_path / "small.ckpt")
    weights = tmp_path / "small.weights"
    assert run_cli("export-darknet", tmp_path / "small.ckpt", "--out", weights) == 0
    command = ["import-darknet", weights, "--architecture", "yolov3-small", "--out", tmp_path / "again.ckpt"]
    assert run_cli(*command) == 0
    again, _ = _load(tmp_path / "again.ckpt")
    assert torch.equal(again.anchors_wh, network.anchors_wh) and again.box_coding == "bounded"

    weights.with_suffix(".cfg").unlink()
    (tmp_path / "again.ckpt").unlink()
    capsys.readouterr()
    assert run_cli(*command) == 2
    error = capsys.readouterr().err
    assert "small.weights: expected its cfg next to it, small.cfg, got no such file" in error and error.count("\n") == 1
    assert not (tmp_path / "again.ckpt").exists()
    anchors = "[" + ",".join(f"[{8 + 4 * i},{10 + 5 * i}]" for i in range(9)) + "]"
    assert run_cli(*command, "--anchors", anchors, "--box-coding", "bounded") == 0
