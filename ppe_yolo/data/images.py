"""Reading photos, from disk or from a URL through a local cache. Photos are untrusted input."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ppe_yolo.data.annotation_list import is_url
from ppe_yolo.errors import UserError

MAX_PIXELS = 100_000_000  # beyond any site camera; a decompression bomb


class ImageError(UserError):
    """A photo that cannot be used; names the file."""


def shown(image: str) -> str:
    """The photo's path or URL for a message: without a query or password, which may be secret."""
    if not is_url(image):
        return image
    return re.sub(r"(://)[^/@]*@", r"\1", image).split("?")[0]


def local_path(image: str) -> Path:
    """Where the photo lies on this machine; one behind a URL is fetched once and kept in the cache.

    The cache is the folder of the variable PPE_YOLO_CACHE, else the user's own cache folder.

    Raises:
        ImageError: It cannot be fetched, or the library for its protocol is not installed.
    """
    if not is_url(image):
        return Path(image)
    import fsspec
    import platformdirs

    cache = os.environ.get("PPE_YOLO_CACHE") or str(Path(platformdirs.user_cache_dir("ppe_yolo")) / "images")
    try:
        with fsspec.open(f"filecache::{image}", "rb", filecache={"cache_storage": cache}) as file:
            return Path(file.name)
    except (ImportError, ValueError) as error:
        raise ImageError(
            f"{shown(image)}: cannot be fetched without the library for its protocol: "
            "pip install 'ppe-yolo[blob]' for Azure blobs (abfs://, az://)"
        ) from error
    except Exception as error:  # every protocol has its own kinds; the message may hold the secret part of the URL
        raise ImageError(f"{shown(image)}: cannot be fetched ({type(error).__name__}): check address and access") from None


def read_image(image: str) -> NDArray[np.uint8]:
    """Decodes a photo, turned as its EXIF mark says.

    Returns:
        uint8 [H, W, 3], RGB, whatever the file's own kind (grey, CMYK, 16 bits, with alpha).

    Raises:
        ImageError: No such file, or not a photo.
    """
    path = local_path(image)
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"{shown(image)}: cannot be read ({error.strerror})") from error
    # OpenCV decodes twice as fast as Pillow; it reduces grey, CMYK and 16 bits to 8-bit colour by itself
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if pixels is None:
        raise ImageError(f"{shown(image)}: expected a photo, got {len(data)} bytes that cannot be decoded")
    return pixels.astype(np.uint8, copy=False)


def check_image(image: str) -> tuple[tuple[int, int], tuple[int, int], list[str], Image.Image]:
    """Decodes a photo fully and strictly, as OpenCV does not: it fills the missing part of a truncated file with grey.

    Returns:
        (height, width) as shown, (height, width) as stored, what is unusual about it, and a small grey copy.

    Raises:
        ImageError: No photo, truncated, or too large.
    """
    path = local_path(image)
    unusual = []
    try:
        with Image.open(path) as photo:
            if photo.width * photo.height > MAX_PIXELS:
                raise ImageError(f"{shown(image)}: expected at most {MAX_PIXELS} pixels, got {photo.size}")
            stored = (photo.height, photo.width)
            orientation = photo.getexif().get(0x0112, 1)
            if photo.mode != "RGB":
                unusual.append(f"{photo.mode} instead of RGB")
            photo.load()
            small = ImageOps.exif_transpose(photo.reduce(max(1, min(stored) // 64))).convert("L")
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{shown(image)}: no such photo") from error
    except Exception as error:  # decoders raise what they like for broken files
        raise ImageError(f"{shown(image)}: cannot be decoded ({' '.join(str(error).split())[:100]})") from error
    turned = orientation in (5, 6, 7, 8)
    if orientation != 1:
        unusual.append(f"EXIF orientation {orientation}")
    return (stored[::-1] if turned else stored), stored, unusual, small
