"""Darknet files: size, order, errors. tests/integration/test_darknet_cli.py compares the meaning of the numbers with OpenCV."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ppe_yolo.core.errors import UserError
from ppe_yolo.export.darknet import parse_anchors, published_anchors_wh, read_class_names
from ppe_yolo.model.darknet_weights import file_size, layout, load_weights, read_weights, write_weights
from ppe_yolo.model.yolov3 import Architecture, YoloV3

CLASSES = 2  # of yolov3-tiny; 35_434_956 bytes with 80, and 9,240 fewer for each class that is missing
TINY_SIZE = 35_434_956 - 78 * 9_240


def write_file(path: Path, numbers: np.ndarray, header: bytes = struct.pack("<iiiq", 0, 2, 0, 640)) -> Path:
    path.write_bytes(header + numbers.astype("<f4", copy=False).tobytes())
    return path


def tiny_numbers() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, (TINY_SIZE - 20) // 4)


@pytest.mark.parametrize(
    ("kind", "classes", "version", "size"),
    [
        ("yolov3", 80, 2, 248_007_048),  # as published
        ("yolov3-tiny", 80, 2, 35_434_956),
        ("darknet53", 80, 2, 162_482_580),
        ("darknet53", 2, 1, 162_482_576),  # the number of images has 4 bytes instead of 8; no classes
        # one more class: 3 anchors times a row of kernels and a bias, 4 bytes each
        ("yolov3", 81, 2, 248_007_048 + 4 * 3 * (1024 + 1 + 512 + 1 + 256 + 1)),
        ("yolov3-tiny", 2, 2, TINY_SIZE),
        # half the width, a quarter of the depth: 7_260_143 parameters with 2 classes, and 26 running means and variances
        ("yolov3-small", 80, 2, 29_929_672),
    ],
)
def test_file_size_equals_published_files(kind, classes, version, size) -> None:
    assert file_size(kind, classes, version) == size


def test_read_weights_puts_each_number_into_its_tensor(tmp_path: Path) -> None:
    # each number is its own position in the file; float32 holds whole numbers up to 2**24
    count = (35_434_956 - 20) // 4
    assert count < 2**24
    path = write_file(tmp_path / "a.weights", np.arange(count))
    network = YoloV3("yolov3-tiny", 80)
    read = read_weights(path, "yolov3-tiny", 80)
    assert (read.version, read.images_seen, read.num_classes) == ("0.2", 640, 80)
    assert load_weights(network, read) == []
    state = network.state_dict()

    def offset(name: str) -> int:
        tensor = state[f"body.{name}"]
        first = int(tensor.flatten()[0])
        assert tensor.flatten().tolist() == list(range(first, first + tensor.numel()))  # contiguous, columns fastest
        return first

    # 16 shifts, scales, means, variances, then kernels; a convolution of n channels takes 4 n numbers and its kernels
    assert [offset(f"backbone16.0.1.{k}") for k in ("bias", "weight", "running_mean", "running_var")] == [0, 16, 32, 48]
    assert offset("backbone16.0.0.weight") == 64
    after_stem = 64 + 16 * 3 * 9
    assert offset("backbone16.1.1.bias") == after_stem
    # (kernel area, channels in, channels out) of the layers up to the first head
    layers = [
        (9, 16, 32),
        (9, 32, 64),
        (9, 64, 128),
        (9, 128, 256),
        (9, 256, 512),
        (9, 512, 1024),
        (1, 1024, 256),
        (9, 256, 512),
    ]
    coarse = after_stem + sum(4 * n + area * before * n for area, before, n in layers)
    assert offset("heads.1.1.bias") == coarse
    assert offset("heads.1.1.weight") == coarse + 255
    assert offset("lateral32.1.bias") == coarse + 255 + 255 * 512
    assert offset("heads.0.1.weight") == count - 255 * 256  # the finest head ends the file
    assert offset("heads.0.1.bias") == count - 255 * 256 - 255


def test_layout_of_yolov3_starts_with_its_backbone() -> None:
    whole, backbone = list(layout("yolov3", 2)), list(layout("darknet53", 2))
    assert whole[: len(backbone)] == backbone and len(backbone) == 52 * 5
    order = list(dict.fromkeys(".".join(n.split(".")[1:3]) if "heads" in n else n.split(".")[1] for n in whole))
    expected = "backbone neck32 heads.2 lateral32 neck16 heads.1 lateral16 neck8 heads.0"
    assert order == expected.split()
    assert set(whole) == {
        n for n in YoloV3("yolov3", 2).to("meta").state_dict() if n != "anchors_wh" and "num_batches_tracked" not in n
    }


def test_read_weights_accepts_header_0_1(tmp_path: Path) -> None:
    numbers = tiny_numbers()
    path = write_file(tmp_path / "a.weights", numbers, struct.pack("<iiii", 0, 1, 0, 77))
    read = read_weights(path, "yolov3-tiny", CLASSES)
    assert (read.version, read.images_seen, read.num_classes) == ("0.1", 77, CLASSES)
    row = torch.cat([t.flatten() for t in read.tensors.values()])
    assert torch.equal(row, torch.from_numpy(numbers.astype(np.float32)))


@pytest.mark.parametrize("architecture", ["yolov3-tiny", "yolov3-small"])
def test_write_then_read_weights_is_exact_to_the_bit(architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = YoloV3(architecture, 3)
    weight = network.body.heads[0][1].weight.data.view(-1)
    weight[:4] = torch.tensor([-0.0, 1e-45, -3e-39, 3.4e38])
    write_weights(tmp_path / "a.weights", network, images_seen=2**40)
    read = read_weights(tmp_path / "a.weights", architecture, 3)
    assert (read.images_seen, read.num_classes) == (2**40, 3)
    for name, tensor in read.tensors.items():
        assert tensor.numpy().tobytes() == network.state_dict()[name].contiguous().numpy().tobytes(), name


def test_load_weights_keeps_heads_with_another_number_of_classes(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.weights", tiny_numbers())
    network = YoloV3("yolov3-tiny", 5)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    at_random = load_weights(network, read_weights(path, "yolov3-tiny", 5))
    heads = [f"body.heads.{i}.1.{k}" for i in (0, 1) for k in ("weight", "bias")]
    assert at_random == heads
    for name, tensor in network.state_dict().items():
        kept = name in heads or name == "anchors_wh" or name.endswith("num_batches_tracked")
        assert torch.equal(tensor, before[name]) == kept, name


def test_load_weights_of_backbone_reports_the_rest_as_random(tmp_path: Path) -> None:
    numbers = np.full((162_482_580 - 20) // 4, 0.5, dtype=np.float32)
    read = read_weights(write_file(tmp_path / "darknet53.conv.74", numbers), "darknet53", 2)
    assert read.num_classes is None
    network = YoloV3("yolov3", 2)
    at_random = load_weights(network, read)
    assert {n.split(".")[1] for n in at_random} == {"neck32", "lateral32", "neck16", "lateral16", "neck8", "heads"}
    filled = [t for n, t in network.body.backbone.state_dict().items() if not n.endswith("num_batches_tracked")]
    assert all((t == 0.5).all() for t in filled)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes"),
        (b"[net]\nwidth=416\nheight=416\n", "no Darknet .weights file"),
        (struct.pack("<iiiq", 0, 3, 0, 0), "got version 0.3"),
        (struct.pack("<iiiq", 1, 2, 0, 0), "got version 1.2"),
        (struct.pack("<iiiq", 0, 2, -1, 0), "revision -1"),
        (struct.pack(">iiiq", 0, 2, 0, 0), "got version 0.33554432"),  # the other byte order
        (struct.pack("<iiiq", 0, 2, 0, -5), "-5 images"),
        (struct.pack("<iiiq", 0, 2, 0, 0), f"expected {TINY_SIZE:,} bytes"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + bytes(TINY_SIZE - 21), f"got {TINY_SIZE - 1:,} bytes: it is truncated"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + bytes(TINY_SIZE - 16), f"got {TINY_SIZE + 4:,} bytes: it is truncated, too long"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + bytes(162_482_560), "the size of darknet53: choose that --architecture"),
    ],
)
def test_read_weights_of_wrong_file_raises_user_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        read_weights(path, "yolov3-tiny", CLASSES)
    assert message in str(refusal.value) and str(path) in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_read_and_write_weights_reject_nan_and_infinity(tmp_path: Path, value: float) -> None:
    numbers = tiny_numbers()
    numbers[16 + 3] = value  # among the scales of the first layer
    with pytest.raises(UserError, match=r"body\.backbone16\.0\.1\.weight: contains NaN or infinity"):
        read_weights(write_file(tmp_path / "a.weights", numbers), "yolov3-tiny", CLASSES)
    network = YoloV3("yolov3-tiny", CLASSES)
    network.body.heads[0][1].bias.data[0] = value
    with pytest.raises(UserError, match="NaN or infinity"):
        write_weights(tmp_path / "b.weights", network, 0)
    assert not (tmp_path / "b.weights").exists()


def test_read_weights_of_file_cut_by_one_class_raises_user_error(tmp_path: Path) -> None:
    # its size is right for 2 classes, but everything after the first head has moved
    network = YoloV3("yolov3-tiny", CLASSES + 1)
    write_weights(tmp_path / "a.weights", network, 0)
    whole = (tmp_path / "a.weights").read_bytes()
    (tmp_path / "a.weights").write_bytes(whole[:TINY_SIZE])
    with pytest.raises(UserError, match=r"body\.\w+.*: expected variances, got"):
        read_weights(tmp_path / "a.weights", "yolov3-tiny", CLASSES)


def test_coco_names_and_published_anchors_match_darknet() -> None:
    names = read_class_names("coco")
    assert len(set(names)) == 80 and names[0] == "person" and names[-1] == "toothbrush"
    # positions in Darknet's data/coco.names, which has older names for some of them
    assert [names.index(n) for n in ("bicycle", "traffic light", "dog", "cell phone", "book")] == [1, 9, 16, 67, 73]
    assert published_anchors_wh("yolov3-tiny")[:3] == [[23, 27], [37, 58], [81, 82]]  # mask = 1,2,3
    assert published_anchors_wh("yolov3")[0] == [10, 13]


@pytest.mark.parametrize("text", ["", "5", "[[1]]", "[[1,2,3]]", "[[1,NaN]]", '{"a": 1}', "[[1,null]]", "[1,2]"])
def test_parse_anchors_of_invalid_text_raises_user_error(text: str) -> None:
    with pytest.raises(UserError, match=r"anchors: expected \[\[width,height\],\.\.\.\]"):
        parse_anchors(text)
