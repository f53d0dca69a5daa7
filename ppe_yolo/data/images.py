"""Reads images from disk, or from a URL through a local cache. Images are untrusted input."""

import hashlib
import mimetypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppe_yolo.core.decoding import decode_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path

MAX_PIXELS = 100_000_000  # more than any site camera has; larger files are decompression bombs
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations with height and width swapped


class ImageError(UserError):
    """An image that cannot be used. Its fields name the file."""


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """Result of `check_image`.

    Attributes:
        size: (height, width) of the upright image, pixels.
        stored_size: (height, width) before the EXIF rotation, pixels.
        unusual: Messages about properties that are supported but worth a look.
        thumbnail: Small grey copy, uint8 [h, w].
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    unusual: list[str]
    thumbnail: NDArray[np.uint8]


def is_url(image: str) -> bool:
    """Whether an image is behind http(s), in a blob store or the like."""
    return _URL.match(image) is not None


def shown(image: str) -> str:
    """The path or URL of an image for messages, without query and password, which may be secret."""
    if not is_url(image):
        return image
    return re.split(r"[?#]", re.sub(r"(://)[^/]*@", r"\1", image))[0]


def local_path(image: str) -> Path:
    """Path of the image on this machine. An image behind a URL is downloaded once and cached.

    The cache is the folder in the variable PPE_YOLO_CACHE, by default the user's cache folder.

    Raises:
        ImageError: The image cannot be downloaded, or the library for its protocol is not installed.
    """
    if not is_url(image):
        return Path(image)
    import fsspec
    import platformdirs

    cache = os.environ.get("PPE_YOLO_CACHE") or Path(platformdirs.user_cache_dir("ppe_yolo")) / "images"
    # not fsspec's filecache: it expires after a week, stores the secrets of URLs on disk, and loses entries between threads
    cached = Path(cache) / hashlib.sha256(image.encode()).hexdigest()
    if cached.is_file():
        return cached
    try:
        fsspec.get_filesystem_class(image.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise ImageError(
            "cannot be downloaded, the library for its protocol is not installed",
            file=shown(image),
            hint="pip install 'ppe-yolo[blob]' for Azure blobs (abfs://, az://)",
        ) from error
    try:
        filesystem, path = fsspec.url_to_fs(image)
        data = filesystem.cat_file(path)
    except Exception as error:  # each protocol raises its own types; the message may contain the secrets of the URL
        raise ImageError(
            f"cannot be downloaded ({type(error).__name__})", file=shown(image), hint="check the address and your access"
        ) from None
    with atomic_path(cached) as temporary:
        temporary.write_bytes(data)
    return cached


def read_image(image: str) -> NDArray[np.uint8]:
    """Decodes an image and rotates it upright as its EXIF tag says.

    Returns:
        uint8 [H, W, 3], RGB, whatever the file contains (grey, CMYK, 16 bits, alpha).

    Raises:
        ImageError: There is no such file, or it is not an image.
    """
    path = local_path(image)
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", file=shown(image)) from error
    # OpenCV decodes twice as fast as Pillow, and converts grey and CMYK to colour
    pixels = decode_image(data)
    if pixels is None:
        if (mimetypes.guess_type(path)[0] or "").startswith("video/"):
            raise ImageError(
                file=shown(image), expected="an image", got="a video", hint="only ppe_edge, on the box, reads videos"
            )
        raise ImageError(
            file=shown(image),
            expected="an image",
            got=f"{len(data)} bytes that cannot be decoded",
            hint="replace the file",
        )
    return pixels


def check_image(image: str) -> ImageCheck:
    """Decodes an image with two decoders, so that training cannot fail on it later.

    Pillow is strict; OpenCV, which training uses, fills the missing part of a truncated file with grey.

    Raises:
        ImageError: Not an image, truncated, or too large.
    """
    path = local_path(image)
    unusual = []
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageError(
                    file=shown(image),
                    expected=f"at most {MAX_PIXELS} pixels",
                    got=f"{opened.width}x{opened.height}",
                    hint="make the image smaller",
                )
            orientation = opened.getexif().get(_ORIENTATION, 1)
            if opened.mode != "RGB":
                unusual.append(f"{opened.mode} instead of RGB: converted")
            opened.load()
            size = (opened.height, opened.width)
            # Pillow rotates a TIFF upright itself and removes the tag
            size = size[::-1] if opened.getexif().get(_ORIENTATION, 1) in _SIDEWAYS else size
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such image", file=shown(image)) from error
    except Exception as error:  # decoders raise all kinds of errors for broken files
        reason = " ".join(str(error).split())[:100]
        raise ImageError(
            f"cannot be decoded ({reason})", file=shown(image), hint="replace the image, or remove its annotation"
        ) from error
    if orientation in range(2, 9):
        unusual.append(
            f"EXIF orientation {orientation}: rotated upright; check that the boxes were annotated on the upright image"
        )
    pixels = read_image(image)
    if pixels.shape[:2] != size:
        raise ImageError(
            f"two decoders disagree on its size ({size} and {pixels.shape[:2]})",
            file=shown(image),
            hint="save the image again without EXIF",
        )
    step = max(1, min(size) // 64)
    small = cv2.resize(pixels, (max(1, size[1] // step), max(1, size[0] // step)), interpolation=cv2.INTER_AREA)
    return ImageCheck(
        size=size,
        stored_size=size[::-1] if orientation in _SIDEWAYS else size,
        unusual=unusual,
        thumbnail=cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False),
    )
