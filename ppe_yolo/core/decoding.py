"""Decodes images, in the same way in the library and on the box."""

import cv2
import numpy as np
from numpy.typing import NDArray

_REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
_JPEG = b"\xff\xd8"  # its first bytes


def decode_image(data: bytes | NDArray[np.uint8], reduce: int = 1) -> NDArray[np.uint8] | None:
    """Decodes an image and rotates it upright as its EXIF tag says.

    Images with more than 8 bits per channel are scaled. A file of 16 bits often holds fewer: an image has 8, 10, 12 or 14 bits
    if its largest value fits into them. OpenCV itself would make such an image black.

    Args:
        data: Content of the file.
        reduce: 2, 4 or 8 decodes a JPEG at this fraction of its height and width, rounded up, in less time. Other formats are
            decoded in full.

    Returns:
        uint8 [H, W, 3], RGB. None if it cannot be decoded, or holds floating-point numbers, whose range is unknown.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    if not len(buffer):
        return None
    try:
        smaller = _REDUCED[reduce] if buffer[:2].tobytes() == _JPEG else 0
        pixels = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | smaller)
    except cv2.error:  # more pixels than OpenCV accepts
        return None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    if pixels.dtype == np.uint16:
        # OpenCV garbles TIFF files of 16 bits when it converts them to RGB itself
        deep = np.asarray(cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), dtype=np.uint16)[..., ::-1]
        used = int(deep.max()).bit_length()
        return np.ascontiguousarray(deep >> max(0, used + used % 2 - 8), dtype=np.uint8)
    return pixels.astype(np.uint8, copy=False)
