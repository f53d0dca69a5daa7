"""Boxes drawn on images, pixel by pixel."""

import os

import cv2
import numpy as np
import pytest

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import (
    BARE_HEAD,
    HELMET,
    colour_of,
    draw_detections,
    draw_ground_truth,
    save_image,
    tile_images,
)

CONTRACT = ModelContract(("helmet", "none", "vest"), (64, 96), display_names={"none": "bare head"})


def detections(boxes, scores, labels):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64))


def grey(height, width):
    return np.full((height, width, 3), 114, dtype=np.uint8)


def test_draw_ground_truth_draws_outlines_only():
    image = grey(100, 200)
    drawn = draw_ground_truth(image, np.array([[20.4, 30, 59.6, 70]]))
    white = (drawn == 255).all(-1)
    expected = np.zeros((100, 200), dtype=bool)
    expected[30:71, 20:61] = True
    expected[31:70, 21:60] = False
    assert (white == expected).all() and (drawn[~white] == 114).all()
    assert (image == 114).all(), "the image itself does not change"


def test_draw_detections_uses_class_colour_and_writes_text():
    boxes = [[10, 60, 50, 90], [120, 60, 160, 90]]
    drawn = draw_detections(grey(100, 200), detections(boxes, [0.9, 0.5], [0, 1]), CONTRACT)
    assert (drawn[75, 10] == colour_of("helmet", 0)).all() and (drawn[75, 120] == colour_of("none", 1)).all()
    above = drawn[40:59]
    assert (above[:, 10:60] == colour_of("helmet", 0)).all(-1).sum() > 100, "the background of the text has the class's colour"
    assert (above[:, :60] > 200).all(-1).any(), "and the text is white"


def test_draw_detections_at_upper_right_corner_writes_text_below_and_inside():
    drawn = draw_detections(grey(60, 60), detections([50, 0, 59, 20], [0.25], [1]), CONTRACT)
    coloured = (drawn == colour_of("none", 1)).all(-1)
    assert coloured[22:30, :50].any() and not coloured[:20, :45].any()


def test_colour_of_gives_different_classes_different_colours():
    colours = [colour_of(n, i) for i, n in enumerate(("helmet", "none", "a", "b", "c", "d"))]
    assert len(set(colours)) == len(colours)
    # a bare head looks the same in every model
    assert colour_of("none", 0) == colour_of("none", 5) == BARE_HEAD
    assert colour_of("none", 0) != colour_of("helmet", 0) == HELMET


def test_drawing_without_boxes_returns_the_same_image():
    image = grey(10, 10)[:, ::-1]  # also with negative strides
    assert (draw_detections(image, detections([], [], []), CONTRACT) == image).all()
    assert (draw_ground_truth(image, np.zeros((0, 4))) == image).all()


def test_tile_images_fits_each_image_into_its_cell():
    images = [np.full((20, 40, 3), 10, np.uint8), np.full((40, 20, 3), 20, np.uint8), np.full((5, 5, 3), 30, np.uint8)]
    sheet = tile_images(images, columns=2, cell_size=(20, 20))
    assert sheet.shape == (40, 40, 3)
    assert (sheet[5:15, :20] == 10).all() and (sheet[:5, :20] == 114).all() and (sheet[15:20, :20] == 114).all()
    assert (sheet[:20, 25:35] == 20).all() and (sheet[:20, 20:25] == 114).all()
    assert (sheet[20:, :20] == 30).all() and (sheet[20:, 20:] == 114).all()


def test_save_image_keeps_rgb_order(tmp_path):
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[..., 0] = 255
    save_image(tmp_path / "red.png", image)
    assert (cv2.imread(str(tmp_path / "red.png"))[..., 2] == 255).all()
    save_image(
        os.fsdecode(os.fsencode(tmp_path / "red") + b"\xfc.png"), image
    )  # of a tool that writes Latin-1; imwrite ends the process
    with pytest.raises(FileNotFoundError):
        save_image(tmp_path / "missing" / "red.png", image)
    with pytest.raises(OSError, match=r"wide\.jpg cannot be written: the image is too large for \.jpg"):
        save_image(tmp_path / "wide.jpg", np.zeros((1, 65_501, 3), dtype=np.uint8))
    assert not (tmp_path / "wide.jpg").exists()
