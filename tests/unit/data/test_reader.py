"""Large training images: read at a reduced size, with their boxes, and from small copies."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.decoding import decode_image
from ppe_yolo.data.audit.image_check import check_image
from ppe_yolo.data.loading import reader as reader_module
from ppe_yolo.data.loading.reader import ImageReader

Picture = Callable[..., np.ndarray]


def write(path: Path, pixels: np.ndarray, **options: object) -> str:
    Image.fromarray(pixels).save(path, quality=95, **options)
    return str(path)


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
@pytest.mark.parametrize(("suffix", "is_reduced"), [("jpg", True), ("png", False)])
def test_decode_image_reduces_jpeg_alone(picture: Picture, tmp_path: Path, reduce: int, suffix: str, is_reduced: bool) -> None:
    path = write(tmp_path / f"a.{suffix}", picture("a", (240, 328)))
    pixels = decode_image(Path(path).read_bytes(), reduce)
    assert pixels is not None
    factor = reduce if is_reduced else 1
    size = (240 // factor, 328 // factor)
    assert pixels.shape == (*size, 3)
    expected = cv2.resize(picture("a", (240, 328)), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(pixels.astype(float) - expected).mean() < 6


@pytest.mark.parametrize(
    ("max_side", "longer"), [(640, 640), (639, 640), (321, 640), (320, 320), (161, 320), (160, 160), (80, 80), (30, 80)]
)
def test_reader_keeps_at_least_the_side_that_is_of_use(picture: Picture, tmp_path: Path, max_side: int, longer: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone that is held upright
    image = write(tmp_path / "a.jpg", picture("a", (480, 640)), exif=exif)
    pixels, factors = ImageReader(max_side, {image: check_image(image)}).read(image)
    assert pixels.shape == (longer, longer * 3 // 4, 3)
    assert factors.tolist() == [longer / 640] * 4


@pytest.mark.parametrize(("width", "longer"), [(800, 100), (804, 201), (802, 401), (801, 801)])
def test_reader_scales_boxes_with_the_pixels(tmp_path: Path, width: int, longer: int) -> None:
    pixels = np.zeros((600, width, 3), dtype=np.uint8)
    pixels[200:400, 160:480] = 255
    image = write(tmp_path / "a.jpg", pixels)
    small, factors = ImageReader(100, {image: check_image(image)}).read(image)
    assert small.shape[1] == longer
    ys, xs = np.nonzero(small[..., 0] > 127)
    box = np.array([160, 200, 480, 400]) * factors
    np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.01)


@pytest.mark.parametrize("checks", [True, False])
def test_reader_reads_small_and_unknown_images_as_they_are(picture: Picture, tmp_path: Path, checks: bool) -> None:
    image = write(tmp_path / "a.png", picture("a"))
    pixels, factors = ImageReader(64 if checks else 8, {image: check_image(image)} if checks else {}).read(image)
    assert np.array_equal(pixels, picture("a"))
    assert factors.tolist() == [1, 1, 1, 1]


def test_reader_with_copies_decodes_a_large_image_once(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "a.png", picture("a", (480, 640)))
    small = write(tmp_path / "b.png", picture("b"))
    reader = ImageReader(100, {path: check_image(path) for path in (image, small)}, tmp_path / "copies")
    first, factors = reader.read(image)
    assert first.shape == (75, 100, 3)
    assert factors.tolist() == [np.float32(0.15625)] * 4
    expected = cv2.resize(picture("a", (480, 640)), (100, 75), interpolation=cv2.INTER_AREA)
    assert np.abs(first.astype(float) - expected).mean() < 4
    reader.read(small)
    (copy,) = (tmp_path / "copies").iterdir()
    read = reader_module.read_image
    monkeypatch.setattr(reader_module, "read_image", lambda path, reduce=1: read(path) if path == str(copy) else None)
    assert np.array_equal(reader.read(image)[0], first)
