"""Reads training images no larger than a training can use."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.decoding import decode_image
from ppe_yolo.core.files import write_bytes
from ppe_yolo.data.audit.image_check import ImageCheck
from ppe_yolo.data.images import read_image

OVERSAMPLING = 2  # images are at least this many times as large as the network's input: a crop enlarges them up to 1.5 times
QUALITY = 95  # of the copies, as JPEG
BYTES_PER_PIXEL = 0.5  # of a copy, at most: noisy images take half of it


class ImageReader:
    """Reads images that are much larger than the network's input at a reduced size.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, with a smaller inverse DCT: this is faster, and has less aliasing than the
    resize of the full image. With a folder for copies, each large image is decoded once, and its copy is read in later epochs.

    Args:
        max_side: Longer side beyond which more pixels are of no use; None: images are read as they are.
        checks: Image -> result of its check, which has its size; images that are missing here are read as they are.
        copies: Folder for copies with at most `max_side` pixels, named after the content of the image; None: no copies.
    """

    def __init__(
        self, max_side: int | None = None, checks: Mapping[str, ImageCheck] | None = None, copies: Path | None = None
    ) -> None:
        self.max_side, self.copies = max_side, copies
        self._checks = checks or {}

    def read(self, image: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Returns an image, uint8 [H, W, 3] RGB, and the factors [4] for its boxes_xyxy."""
        check = self._checks.get(image)
        if check is None or self.max_side is None or max(check.size) <= self.max_side:
            return read_image(image), np.ones(4, dtype=np.float32)
        # a side that is no multiple would be rounded up, and the boxes would be off by a fraction of a pixel
        exact = (r for r in (8, 4, 2) if max(check.size) >= r * self.max_side and not any(side % r for side in check.size))
        reduce = next(exact, 1)
        pixels = read_image(image, reduce) if self.copies is None else self._copy(self.copies, image, check, reduce)
        factors = [pixels.shape[1] / check.size[1], pixels.shape[0] / check.size[0]]
        return pixels, np.array(factors * 2, dtype=np.float32)

    def missing_copies(self) -> tuple[int, int]:
        """Number of copies that are still to be written, and the room that they take at most, bytes."""
        if self.copies is None or self.max_side is None:
            return 0, 0
        large = {c.content_hash: c.size for c in self._checks.values() if max(c.size) > self.max_side}
        sizes = [size for content, size in large.items() if not self._path(self.copies, content).is_file()]
        pixels = sum(self.max_side**2 * min(size) / max(size) for size in sizes)
        return len(sizes), round(BYTES_PER_PIXEL * pixels)

    def _path(self, folder: Path, content: str) -> Path:
        return folder / f"{content}-{self.max_side}.jpg"

    def _copy(self, folder: Path, image: str, check: ImageCheck, reduce: int) -> NDArray[np.uint8]:
        path = self._path(folder, check.content_hash)
        if path.is_file():
            return read_image(str(path))
        pixels = read_image(image, reduce)
        scale = (self.max_side or 0) / max(pixels.shape[:2])
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        write_bytes(path, data)
        copy = decode_image(data)  # not `small`: the first epoch sees the same pixels as the others
        if copy is None:
            raise RuntimeError(f"{path}: the copy cannot be decoded")
        return copy
