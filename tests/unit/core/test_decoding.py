"""Decoding of images with more than 8 bits, with orientation, and of files that are no images."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.decoding import decode_image

RAMP = np.dstack([np.tile(np.arange(0, 256, dtype=np.uint16), (8, 1))] * 3)
RAMP[..., 1] = RAMP[..., 1][:, ::-1]
RAMP[..., 2] //= 2


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_decode_image_scales_to_eight_bits(bits: int, suffix: str) -> None:
    image = RAMP << (bits - 8)
    assert np.array_equal(decode_image(encoded(image, suffix)), RAMP)
    grey = decode_image(encoded(image[..., 0], suffix))
    assert np.array_equal(grey, np.dstack([RAMP[..., 0]] * 3))


def test_decode_image_rotates_upright() -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(RAMP.astype(np.uint8)).save(file, "JPEG", exif=exif)
    assert decode_image(file.getvalue()).shape == (256, 8, 3)


def test_decode_image_without_known_range_gives_none() -> None:
    assert decode_image(encoded(RAMP.astype(np.float32) / 255, ".tiff")) is None
    assert decode_image(b"") is None
    assert decode_image(b"no image") is None
