"""All architectures: their size, shapes, initial weights and errors."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ppe_yolo.core.errors import UserError
from ppe_yolo.model.blocks import ConvBlock, SamePool, upsample_and_join
from ppe_yolo.model.names import Architecture
from ppe_yolo.model.yolov3 import OBJECTNESS_PRIOR, YoloV3, default_anchors_wh

OUT = 3 * (5 + 2)  # channels of a raw map: three anchors, two classes
# (kernel, channels in, channels out, side of the output at 416, how often), copied from the published layouts;
# rows with OUT are the last convolutions, which have a bias and no batch norm
TINY = [
    (3, 3, 16, 416, 1),
    (3, 16, 32, 208, 1),
    (3, 32, 64, 104, 1),
    (3, 64, 128, 52, 1),
    (3, 128, 256, 26, 1),
    (3, 256, 512, 13, 1),
    (3, 512, 1024, 13, 1),
    (1, 1024, 256, 13, 1),
    (3, 256, 512, 13, 1),
    (1, 512, OUT, 13, 1),
    (1, 256, 128, 13, 1),
    (3, 128 + 256, 256, 26, 1),
    (1, 256, OUT, 26, 1),
]


def darknet53_layers(width, blocks, pairs):
    """Rows for `width` times 64, 128, 256, 512, 1024 channels, the residual blocks of each stage, and pairs in each neck."""
    c64, c128, c256, c512, c1024 = (int(width * channels) for channels in (64, 128, 256, 512, 1024))
    layers = [(3, 3, c64 // 2, 416, 1)]
    for channels, side, count in zip((c64, c128, c256, c512, c1024), (208, 104, 52, 26, 13), blocks, strict=True):
        half = channels // 2
        layers += [(3, half, channels, side, 1), (1, channels, half, side, count), (3, half, channels, side, count)]
    # neck and head at each stride; the first convolution sees the backbone's features and, but at stride 32, the upsampled ones
    for channels, before, side in ((c512, c1024, 13), (c256, c256 + c512, 26), (c128, c128 + c256, 52)):
        layers += [
            (1, before, channels, side, 1),
            (3, channels, 2 * channels, side, pairs + 1),
            (1, 2 * channels, channels, side, pairs),
            (1, 2 * channels, OUT, side, 1),
        ]
    return [*layers, (1, c512, c256, 13, 1), (1, c256, c128, 26, 1)]  # laterals


FULL = darknet53_layers(1, (1, 2, 8, 8, 4), pairs=2)
SMALL = darknet53_layers(0.5, (1, 1, 2, 2, 1), pairs=1)


def parameters_of(layers):
    # weights, and a scale and a shift per channel from the batch norm, or one bias
    return sum(n * (k * k * before * after + (after if after == OUT else 2 * after)) for k, before, after, _, n in layers)


def operations_of(layers):
    # two per multiplication with addition
    return sum(n * 2 * k * k * before * after * side * side for k, before, after, side, n in layers)


@pytest.fixture(scope="module")
def networks():
    """All architectures, on the device `meta`, which computes shapes but no numbers."""
    return {name: YoloV3(name, 2).to("meta") for name in get_args(Architecture)}


@pytest.mark.parametrize(
    ("name", "layers", "parameters", "giga_operations"),
    [
        ("yolov3", FULL, 61_529_119, 65.3),  # as published
        ("yolov3-tiny", TINY, 8_672_186, 5.4),
        ("yolov3-small", SMALL, 7_260_143, 8.0),
    ],
)
def test_network_size_equals_layer_table(networks, name, layers, parameters, giga_operations):
    assert parameters_of(layers) == parameters
    assert sum(p.numel() for p in networks[name].parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        networks[name].eval()(torch.zeros(1, 3, 416, 416, device="meta"))
    assert counter.get_total_flops() == operations_of(layers)
    assert round(operations_of(layers) / 1e9, 1) == giga_operations


@pytest.mark.parametrize(
    ("name", "strides"), [("yolov3", (8, 16, 32)), ("yolov3-small", (8, 16, 32)), ("yolov3-tiny", (16, 32))]
)
def test_raw_maps_have_the_shape_of_the_grid(networks, name, strides):
    network = networks[name]
    maps = network(torch.zeros(2, 3, 96, 160, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(2, 3, 96 // s, 160 // s, 7) for s in strides]
    grid = network.grid(maps)
    assert [(level.height, level.width, level.stride) for level in grid.levels] == [(96 // s, 160 // s, s) for s in strides]
    assert grid.cells_xy.shape == (sum(3 * (96 // s) * (160 // s) for s in strides), 2)


def test_raw_map_channels_are_unfolded_anchor_by_anchor():
    network = YoloV3("yolov3-tiny", 2).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    flat, maps = network.body(images), network(images)
    for level in range(2):
        for anchor in range(3):
            assert torch.equal(maps[level][:, anchor, :, :, 6], flat[level][:, 7 * anchor + 6])


def test_default_anchors_start_with_the_finest_stride():
    assert default_anchors_wh("yolov3").tolist()[0] == [10, 13] and default_anchors_wh("yolov3").tolist()[-1] == [373, 326]
    assert default_anchors_wh("yolov3-small").tolist()[0] == [8, 10]
    tiny = YoloV3("yolov3-tiny", 1)
    assert tiny.anchors_wh.shape == (2, 3, 2)
    assert tiny.anchors_wh[0, 0].tolist() == [10, 14] and tiny.anchors_wh[1, 2].tolist() == [344, 319]


def test_new_network_predicts_background_almost_everywhere():
    torch.manual_seed(0)
    network = YoloV3("yolov3-tiny", 2).train()
    for head in network.body.heads:
        bias = head[-1].bias.view(3, 7)
        torch.testing.assert_close(torch.sigmoid(bias[:, 4]), torch.full((3,), OBJECTNESS_PRIOR))
        assert (bias[:, [0, 1, 2, 3, 5, 6]] == 0).all()
    with torch.no_grad():
        for raw_map in network(torch.rand(2, 3, 64, 64)):
            assert 0.005 < torch.sigmoid(raw_map[..., 4]).mean() < 0.02


@pytest.mark.parametrize("training", [True, False])
def test_conv_block_pooling_before_relu_equals_pooling_after(training):
    torch.manual_seed(0)
    pooled, plain = ConvBlock(3, 8, 3, pool=True).train(training), ConvBlock(3, 8, 3).train(training)
    torch.nn.init.normal_(pooled[1].weight)  # including negative scales
    plain.load_state_dict(pooled.state_dict())
    images = torch.randn(2, 3, 10, 14)
    assert torch.equal(pooled(images), F.max_pool2d(plain(images), 2))


def test_conv_block_has_leaky_slope_of_the_paper():
    block = ConvBlock(1, 1, 1).eval()
    torch.nn.init.ones_(block[0].weight)
    torch.testing.assert_close(block(torch.tensor([[[[-10.0, 10.0]]]])), torch.tensor([[[[-1.0, 10.0]]]]), rtol=1e-4, atol=0)


def test_same_pool_equals_padding_with_minus_infinity():
    for images in (torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0)), -torch.ones(1, 1, 1, 1)):
        padded = F.pad(images, (0, 1, 0, 1), value=float("-inf"))
        assert torch.equal(SamePool()(images), F.max_pool2d(padded, 2, stride=1))
    assert SamePool()(torch.tensor([[[[1.0, 2], [3, 0]]]])).tolist() == [[[[3, 2], [3, 0]]]]


def test_upsample_and_join_puts_upsampled_channels_first():
    joined = upsample_and_join(torch.tensor([[[[1.0, 2]]]]), torch.zeros(1, 1, 2, 4))
    assert joined.tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]], [[0] * 4] * 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "yolov5"}, "architecture: expected one of ['yolov3', 'yolov3-small', 'yolov3-tiny'], got 'yolov5'"),
        ({"box_coding": "linear"}, "box_coding: expected one of ['bounded', 'darknet'], got 'linear'"),
        ({"anchors_wh": [(1, 1)] * 9}, "anchors: yolov3-tiny takes 6 pairs"),
        ({"anchors_wh": [(1, 1)] * 5 + [(0, 1)]}, "6 pairs of a positive width and height"),
        ({"anchors_wh": []}, "run `ppe-yolo anchors` with --architecture yolov3-tiny"),
    ],
)
def test_network_with_wrong_arguments_raises_user_error(arguments, message):
    with pytest.raises(UserError) as error:
        YoloV3(**{"architecture": "yolov3-tiny", "num_classes": 2, **arguments})
    assert message in str(error.value)
