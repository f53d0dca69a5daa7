"""Augmentation keeps boxes on the pixels of their objects."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.data.loading.augment import AugmentConfig, LabeledImage, augment, crop, fit

STILL = AugmentConfig(mosaic=0, scale=(1, 1), translate=0, rotate=0, flip=0, color=0)
COLOURS = {0: (250, 20, 20), 1: (20, 250, 20), 2: (20, 20, 250), 3: (250, 250, 20)}


def test_mosaic_probability_fades_as_calculated_by_hand() -> None:
    config = AugmentConfig(mosaic=0.8, mosaic_fade=(0.5, 0.9))
    by_hand = [0.8] * 6 + [0.6, 0.4, 0.2, 0.0]  # 10 epochs: full until 5, then down to 0 at 9
    assert [config.mosaic_probability(epoch, 10) for epoch in range(10)] == pytest.approx(by_hand)
    at_once = AugmentConfig(mosaic=0.8, mosaic_fade=(0.5, 0.5))
    assert [at_once.mosaic_probability(epoch, 4) for epoch in range(4)] == [0.8, 0.8, 0.0, 0.0]


def coloured(size: tuple[int, int], label: int) -> LabeledImage:
    """A grey image with one box in the colour of its label."""
    height, width = size
    image = np.full((height, width, 3), 114, dtype=np.uint8)
    x1, y1, x2, y2 = width // 4, height // 4, width * 3 // 4, height * 3 // 4
    image[y1:y2, x1:x2] = COLOURS[label]
    return image, np.array([(x1, y1, x2, y2)], dtype=np.float32), np.array([label])


def assert_boxes_on_colours(sample: LabeledImage, input_size: tuple[int, int]) -> None:
    """Each box contains the colour of its label, and this colour is nowhere else."""
    image, boxes_xyxy, labels = sample
    assert image.shape == (*input_size, 3)
    height, width = input_size
    assert (boxes_xyxy >= 0).all()
    assert (boxes_xyxy <= np.array([width, height, width, height])).all()
    for label, colour in COLOURS.items():
        inside = np.zeros(input_size, dtype=bool)
        for x1, y1, x2, y2 in boxes_xyxy[labels == label]:
            inside[max(0, int(y1) - 2) : int(np.ceil(y2)) + 2, max(0, int(x1) - 2) : int(np.ceil(x2)) + 2] = True
        is_colour = (np.abs(image.astype(int) - colour) < 60).all(-1)
        assert not (is_colour & ~inside).any()
        for x1, y1, x2, y2 in boxes_xyxy[labels == label]:
            part = is_colour[round(y1) : round(y2), round(x1) : round(x2)]
            assert part.mean() > 0.8


def test_augment_mosaic_keeps_boxes_on_their_pixels() -> None:
    # without zoom and shift, a mosaic of these images shows more than a quarter of each object
    config = replace(STILL, flip=0.5)
    sizes = [(90, 120), (120, 90), (60, 60), (64, 200)]
    images = [coloured(size, label) for label, size in enumerate(sizes)]
    seen: set[int] = set()
    for seed in range(30):
        sample = augment(images[0], images[1:], (128, 160), config, np.random.default_rng(seed))
        keep = sample[2]
        seen |= set(keep.tolist())
        hidden = [label for label in COLOURS if label not in keep]
        image = sample[0].copy()
        for label in hidden:  # its visible part is too small for a box
            image[(np.abs(image.astype(int) - COLOURS[label]) < 60).all(-1)] = 114
        assert_boxes_on_colours((image, *sample[1:]), (128, 160))
    assert seen == set(COLOURS)


@pytest.mark.parametrize("config", [STILL, replace(STILL, flip=1), replace(STILL, scale=(0.6, 0.9), translate=0.1, flip=0.5)])
def test_augment_keeps_box_on_its_pixels(config: AugmentConfig) -> None:
    for seed in range(10):
        sample = augment(coloured((90, 150), 2), [], (96, 128), config, np.random.default_rng(seed))
        assert sample[2].tolist() == [2]
        assert_boxes_on_colours(sample, (96, 128))


def test_augment_flip_matches_hand_calculation() -> None:
    image = np.full((64, 64, 3), 114, dtype=np.uint8)
    sample = (image, np.array([(4, 10, 20, 30)], dtype=np.float32), np.array([1]))
    flipped = augment(sample, [], (64, 64), replace(STILL, flip=1), np.random.default_rng(0))
    assert flipped[1] == pytest.approx(np.array([(44, 10, 60, 30)]), abs=1e-3)


def test_augment_degrade_corrupts_pixels_but_not_boxes() -> None:
    rows, columns = np.indices((96, 128))
    squares = np.where((rows // 8 + columns // 8) % 2, 220, 60) + columns // 4
    sample = (
        np.repeat(squares[..., None], 3, 2).astype(np.uint8),
        np.array([(10, 20, 60, 70)], dtype=np.float32),
        np.array([1]),
    )
    plain, *targets = augment(sample, [], (96, 128), STILL, np.random.default_rng(0))
    config = replace(STILL, degrade=0.5)
    samples = [augment(sample, [], (96, 128), config, np.random.default_rng(seed)) for seed in range(60)]
    changed = [image for image, *_ in samples if not np.array_equal(image, plain)]
    assert 20 <= len(changed) <= 40  # half of 60, within 2.6 standard deviations
    for image, boxes_xyxy, labels in samples:
        assert (image.shape, image.dtype) == (plain.shape, np.uint8)
        assert np.array_equal(boxes_xyxy, targets[0])
        assert np.array_equal(labels, targets[1])
    # blur removes detail and darkness lowers the mean: both occur, and the scene is still the same
    detail = [cv2.Laplacian(image, cv2.CV_64F).std() / cv2.Laplacian(plain, cv2.CV_64F).std() for image in changed]
    assert min(detail) < 0.7
    assert any((image.mean() < 0.8 * plain.mean()) for image in changed)
    assert all(np.corrcoef(cv2.blur(image, (5, 5)).ravel(), cv2.blur(plain, (5, 5)).ravel())[0, 1] > 0.5 for image in changed)


def test_augment_boxes_stay_inside() -> None:
    rng = np.random.default_rng(5)
    images = [coloured((90, 120), i) for i in range(4)]
    for others in ([], images[1:]):
        for _ in range(40):
            image, boxes_xyxy, labels = augment(images[0], others, (96, 160), AugmentConfig(degrade=0.5), rng)
            assert (image.shape, image.dtype) == ((96, 160, 3), np.uint8)
            assert len(boxes_xyxy) == len(labels)
            assert (boxes_xyxy >= 0).all()
            assert (boxes_xyxy <= np.array([160, 96, 160, 96])).all()
            assert ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) >= 2).all()


def test_fit_letterboxes_image_and_boxes(picture: Callable[..., np.ndarray]) -> None:
    pixels = picture("fit", (50, 100))
    image, boxes_xyxy, labels = fit((pixels, np.array([(10, 10, 30, 50)], dtype=np.float32), np.array([1])), (96, 128))
    assert np.array_equal(image, letterbox(pixels, (96, 128))[0])
    # 100x50 becomes 128x64 (times 1.28), 16 rows of grey above and below
    assert boxes_xyxy == pytest.approx(np.array([(12.8, 28.8, 38.4, 80.0)]))
    assert labels.tolist() == [1]
    assert (image[:16] == 114).all()
    assert (image[80:] == 114).all()


def gradient(height: int, width: int) -> np.ndarray:
    """An image whose pixels hold their own (row, column)."""
    rows, columns = np.indices((height, width))
    return np.stack((rows, columns, np.zeros_like(rows)), axis=-1).astype(np.uint8)


def labeled(image: np.ndarray, *boxes_xyxy: tuple[float, ...]) -> LabeledImage:
    return image, np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4), np.arange(len(boxes_xyxy))


def test_crop_keeps_boxes_on_their_pixels() -> None:
    corners = set()
    for seed in range(20):
        image, boxes_xyxy, labels = crop(labeled(gradient(100, 120), (50, 45, 60, 55)), 2, np.random.default_rng(seed))
        assert image.shape == (50, 60, 3)
        top, left = image[0, 0, :2].tolist()
        assert np.array_equal(image, gradient(100, 120)[top : top + 50, left : left + 60])
        if len(labels):
            whole = np.clip(np.array([50 - left, 45 - top, 60 - left, 55 - top]), 0, [60, 50, 60, 50])
            assert boxes_xyxy.tolist() == [whole.tolist()]
        corners.add((top, left))
    assert len(corners) > 15


def test_crop_never_cuts_through_an_object() -> None:
    boxes = [(10, 10, 22, 22), (60, 50, 70, 70), (100, 5, 112, 15)]
    kept = set()
    for seed in range(200):
        image, boxes_xyxy, labels = crop(labeled(gradient(100, 120), *boxes), 1.6, np.random.default_rng(seed))
        if image.shape == (100, 120, 3):
            continue
        for label, (x1, y1, x2, y2) in enumerate(boxes):
            rows, columns = image[..., 0], image[..., 1]
            visible = ((rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)).sum() / ((x2 - x1) * (y2 - y1))
            assert visible >= 0.75 if label in labels else visible <= 0.05
        assert len(boxes_xyxy) == len(labels)
        kept.add(tuple(labels.tolist()))
    assert kept == {(0, 1), (1,), (1, 2)}  # objects are both kept and dropped


def test_crop_clips_box_at_the_border() -> None:
    # a window of 9x9 in 10x10: at the left, 9/10 of the box are visible; one pixel further right, 36/50
    for seed in range(10):
        image, boxes_xyxy, _ = crop(labeled(gradient(10, 10), (0, 0, 5, 10)), 10 / 9, np.random.default_rng(seed))
        assert image[0, 0, 1] == 0
        assert boxes_xyxy.tolist() == [[0, 0, 5, 9]]


def test_crop_tries_again_after_a_position_that_cuts() -> None:
    # a window of 1x9 in 1x10, over a box at the right end: left = 1 shows it whole, left = 0 cuts it in half
    box = (8, 0, 10, 1)
    first = [int(rng.integers(1)) + int(rng.integers(2)) for rng in map(np.random.default_rng, range(20))]
    assert first.count(0) > 3
    for seed in range(20):
        image, boxes_xyxy, _ = crop(labeled(gradient(1, 10), box), 10 / 9, np.random.default_rng(seed))
        assert image.shape == (1, 9, 3)
        assert boxes_xyxy.tolist() == [[7, 0, 9, 1]]


def test_crop_returns_whole_image_if_every_position_cuts() -> None:
    # any window of 50x60 shows 3000 of 8000 pixels of the object
    sample = labeled(gradient(100, 120), (10, 10, 110, 90))
    assert crop(sample, 2, np.random.default_rng(0)) is sample
