"""The order of the grid, and decoding and encoding of boxes."""

import math

import pytest
import torch
from box_logits import encode_cxcywh
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.model.coding import Level, decode, decode_cxcywh, flatten_maps, make_grid

CODINGS = ("bounded", "darknet")
LEVELS = (
    Level(height=2, width=3, stride=16, anchors_wh=torch.tensor([[10.0, 20], [30, 40]])),
    Level(height=1, width=2, stride=32, anchors_wh=torch.tensor([[50.0, 60], [70, 80]])),
)


def test_make_grid_orders_by_level_anchor_row_column():
    grid = make_grid(LEVELS)
    location = 0
    for level in LEVELS:
        for anchor in level.anchors_wh.tolist():
            for row in range(level.height):
                for column in range(level.width):
                    assert grid.cells_xy[location].tolist() == [column, row]
                    assert grid.anchors_wh[location].tolist() == anchor
                    assert grid.strides[location].tolist() == [level.stride]
                    location += 1
    assert location == len(grid.cells_xy) == len(grid.anchors_wh) == len(grid.strides) == 16


def test_flatten_maps_uses_the_order_of_the_grid():
    # each number in a map encodes its position: level, anchor, row, column
    maps = []
    for number, level in enumerate(LEVELS):
        shape = (1, 2, level.height, level.width, 6)
        a, r, c = (i.view(1, *i.shape, 1).expand(shape) for i in torch.meshgrid(*map(torch.arange, shape[1:4]), indexing="ij"))
        maps.append(1000 * number + 100 * a + 10 * r + c)
    flat = flatten_maps(maps)
    assert flat.shape == (1, 16, 6)
    expected = [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112, 1000, 1001, 1100, 1101]
    assert flat[0, :, 0].tolist() == flat[0, :, 5].tolist() == expected


def test_decode_of_zero_logits_gives_anchors_at_cell_centres():
    # sigmoid(0) = 1/2: both codings put the centre in the middle of the cell; exp(0) = (2 / 2)^2 = 1
    grid = make_grid(LEVELS)
    zeros = torch.zeros(1, 16, 7)
    for coding in CODINGS:
        boxes_xyxy, scores = decode(zeros, grid, coding)
        # grid location 11: second anchor 30x40 of the first level, row 1, column 2: centre (2.5 * 16, 1.5 * 16)
        assert boxes_xyxy[0, 11].tolist() == [40 - 15, 24 - 20, 40 + 15, 24 + 20]
        assert scores.shape == (1, 16, 2) and (scores == 0.25).all()


def test_decode_cxcywh_matches_hand_calculation():
    location = (torch.tensor([[3.0, 5.0]]), torch.tensor([[10.0, 20.0]]), torch.tensor([[8.0]]))
    logit_of_3_4 = math.log(3.0)
    logits = torch.tensor([[logit_of_3_4, -logit_of_3_4, math.log(2.0), logit_of_3_4]])
    # darknet: x = (3 + 3/4) * 8, y = (5 + 1/4) * 8, w = 10 * 2, h = 20 * 3
    torch.testing.assert_close(decode_cxcywh(logits, *location, "darknet"), torch.tensor([[30.0, 42, 20, 60]]))
    # bounded: x = (3 + 1.5 - 0.5) * 8, y = (5 + 0.5 - 0.5) * 8, w = 10 * (2 * 2/3)^2, h = 20 * (2 * 3/4)^2
    torch.testing.assert_close(decode_cxcywh(logits, *location, "bounded"), torch.tensor([[32.0, 40, 160 / 9, 45]]))


def test_decode_score_is_objectness_times_class():
    grid = make_grid((Level(height=1, width=1, stride=32, anchors_wh=torch.tensor([[10.0, 10]])),))
    logits = torch.tensor([[[0, 0, 0, 0, math.log(4.0), math.log(1 / 3), 50.0]]])
    torch.testing.assert_close(decode(logits, grid, "bounded")[1], torch.tensor([[[0.8 * 0.25, 0.8]]]))


@pytest.mark.parametrize("coding", CODINGS)
@settings(max_examples=50, deadline=None)
@given(
    offset=st.tuples(*[st.floats(0.02, 0.98)] * 2),
    ratio=st.tuples(*[st.floats(0.05, 3.9)] * 2),
    cell=st.tuples(*[st.integers(0, 50)] * 2),
    anchor=st.tuples(*[st.floats(2, 400)] * 2),
    stride=st.sampled_from([8, 16, 32]),
)
def test_encode_and_decode_cxcywh_are_inverse(coding, offset, ratio, cell, anchor, stride):
    location = (torch.tensor([cell], dtype=torch.float64), torch.tensor([anchor]).double(), torch.tensor([[stride]]).double())
    spread = torch.tensor([offset], dtype=torch.float64)
    if coding == "bounded":
        spread = spread * 2 - 0.5  # the centre may lie half a cell further out on each side
    box_cxcywh = torch.cat(((location[0] + spread) * stride, location[1] * torch.tensor([ratio], dtype=torch.float64)), dim=-1)
    logits = encode_cxcywh(box_cxcywh, *location, coding)
    assert logits.isfinite().all()
    torch.testing.assert_close(decode_cxcywh(logits, *location, coding), box_cxcywh)
    torch.testing.assert_close(encode_cxcywh(decode_cxcywh(logits, *location, coding), *location, coding), logits)


@pytest.mark.parametrize("coding", CODINGS)
def test_decode_of_extreme_logits_is_finite(coding):
    grid = make_grid(LEVELS)
    for value in (-1e4, 1e4):
        boxes_xyxy, scores = decode(torch.full((1, 16, 6), value), grid, coding)
        assert boxes_xyxy.isfinite().all() and scores.isfinite().all()


def test_decode_bounded_is_limited_to_four_anchors_and_neighbour_cells():
    location = (torch.tensor([[3.0, 5.0]]), torch.tensor([[10.0, 20.0]]), torch.tensor([[8.0]]))
    assert decode_cxcywh(torch.full((1, 4), 1e4), *location, "bounded").tolist() == [[4.5 * 8, 6.5 * 8, 40, 80]]
    assert decode_cxcywh(torch.full((1, 4), -1e4), *location, "bounded").tolist() == [[2.5 * 8, 4.5 * 8, 0, 0]]


def test_encode_bounded_of_inexpressible_box_is_infinite():
    location = (torch.tensor([[3.0, 5.0]]), torch.tensor([[10.0, 20.0]]), torch.tensor([[8.0]]))
    logits = encode_cxcywh(torch.tensor([[4.5 * 8, 5.5 * 8, 40.0, 20]]), *location, "bounded")
    assert logits[0, 0] == math.inf and logits[0, 2] == math.inf and logits[0, [1, 3]].isfinite().all()
