"""The letterbox, and the way back to image coordinates."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox


def test_letterbox_of_wide_image_pads_above_and_below():
    # 200 wide, 100 high into 64 x 64: scale 0.32, 64 x 32 pixels of image, 16 rows of grey above and below
    image = np.full((100, 200, 3), 200, dtype=np.uint8)
    canvas, placement = letterbox(image, (64, 64), pad_value=7)
    assert (placement.scale_x, placement.scale_y, placement.left, placement.top) == (0.32, 0.32, 0, 16)
    assert (canvas[:16] == 7).all() and (canvas[48:] == 7).all() and (canvas[16:48] == 200).all()
    boxes = np.array([[50, 25, 100, 75]])
    np.testing.assert_allclose(placement.place(boxes), [[16, 24, 32, 40]])
    np.testing.assert_allclose(placement.restore(np.array([[16.0, 24, 32, 40]])), boxes, rtol=1e-6)


def test_letterbox_of_small_tall_image_enlarges_and_pads_at_the_sides():
    # 10 wide, 30 high into 96 high, 128 wide: scale 3.2, 32 x 96 pixels of image, 48 columns of grey on either side
    canvas, placement = letterbox(np.full((30, 10, 3), 9, dtype=np.uint8), (96, 128))
    assert (placement.scale_x, placement.scale_y, placement.left, placement.top) == (3.2, 3.2, 48, 0)
    assert (canvas[:, :48] == 114).all() and (canvas[:, 80:] == 114).all() and (canvas[:, 48:80] == 9).all()


def test_letterbox_with_odd_padding_puts_the_extra_row_below():
    canvas, placement = letterbox(np.zeros((31, 64, 3), dtype=np.uint8), (64, 64))
    assert placement.top == 16  # 33 grey rows: 16 above, 17 below
    assert (canvas[:16] == 114).all() and (canvas[16:47] == 0).all() and (canvas[47:] == 114).all()


def test_letterbox_of_image_with_input_size_copies_it():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    canvas, placement = letterbox(image, (64, 96))
    assert (canvas == image).all() and (placement.scale_x, placement.left, placement.top) == (1.0, 0, 0)
    assert not np.shares_memory(canvas, image)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (None, "None"),  # of cv2.imread, without the file
        ("site.jpg", "str"),
        (np.zeros((4, 6, 3), np.float32), "float32 [4, 6, 3]"),  # would be black
        (np.zeros((4, 6), np.uint8), "uint8 [4, 6]"),  # a row of an image that is not in a list, or grey
        (np.zeros((3, 4, 6), np.uint8), "uint8 [3, 4, 6]"),
        (np.zeros((0, 6, 3), np.uint8), "uint8 [0, 6, 3]"),
    ],
)
def test_letterbox_of_other_than_rgb_image_is_refused(image, got):
    with pytest.raises(
        UserError, match=rf"^expected an RGB image, uint8 \[height, width, 3\], got {re.escape(got)}: cv2.imread"
    ):
        letterbox(image, (64, 64))


def test_restore_clips_boxes_to_the_image():
    _, placement = letterbox(np.zeros((100, 200, 3), dtype=np.uint8), (64, 64))
    np.testing.assert_allclose(placement.restore(np.array([[-5.0, 0, 70, 64]])), [[0, 0, 200, 100]])
    assert placement.restore(np.zeros((0, 4), dtype=np.float32)).shape == (0, 4)


def test_restore_detections_drops_those_entirely_in_the_padding():
    # 100 x 200 into 64 x 64: the image covers rows 16 to 48
    _, placement = letterbox(np.zeros((100, 200, 3), np.uint8), (64, 64))
    boxes = np.array([[0, 0, 20, 16], [0, 10, 32, 32], [0, 48, 64, 64]], np.float32)
    restored = placement.restore_detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]))
    np.testing.assert_allclose(restored.boxes_xyxy, [[0, 0, 100, 50]], atol=1e-4)
    assert restored.scores.tolist() == [np.float32(0.8)] and restored.labels.tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 20), st.integers(1, 20), st.data())
def test_restore_inverts_place(height, width, rows, columns, data):
    image = np.broadcast_to(np.zeros((1, 1, 3), dtype=np.uint8), (height, width, 3))
    _, placement = letterbox(image, (32 * rows, 32 * columns))
    unit = hnp.arrays(np.float32, (2, 2), elements=st.floats(0, 1, width=32))
    corners = np.sort(data.draw(unit), axis=0) * np.array([width, height], dtype=np.float32)
    boxes = corners.reshape(1, 4)
    placed = placement.place(boxes)
    assert placed.dtype == np.float32
    assert (placed >= -0.01).all() and (placed <= np.array([32 * columns, 32 * rows] * 2) + 0.01).all()
    # float32 keeps about 7 digits of a coordinate in the input, where a pixel of the image may be tiny
    tolerance = 1e-5 * max(height, width) + 1e-4
    np.testing.assert_allclose(placement.restore(placed), boxes, atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_letterbox_into_reused_canvas_keeps_nothing_of_the_last_image(height, width, rows, columns, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = (32 * rows, 32 * columns)
    fresh, placement = letterbox(image, size)
    used = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    canvas, again = letterbox(image, size, out=used)
    assert canvas is used and again == placement
    assert (canvas == fresh).all()
