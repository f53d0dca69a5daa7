"""Reading photos, from disk or from a URL through a local cache. Photos are untrusted input."""

import hashlib
import mimetypes
import os
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path

MAX_PIXELS = 100_000_000  # beyond any site camera; a decompression bomb
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_ORIENTATION = 0x0112  # EXIF's tag; from 5 on, the photo is stored lying on its side


class ImageError(UserError):
    """A photo that cannot be used; names the file."""


def is_url(image: str) -> bool:
    """Whether a photo lies behind http(s), a blob store or the like."""
    return _URL.match(image) is not None


def shown(image: str) -> str:
    """The photo's path or URL for a message: without a query or password, which may be secret."""
    if not is_url(image):
        return image
    return re.split(r"[?#]", re.sub(r"(://)[^/]*@", r"\1", image))[0]


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

    cache = os.environ.get("PPE_YOLO_CACHE") or Path(platformdirs.user_cache_dir("ppe_yolo")) / "images"
    # not fsspec's own filecache: it forgets after a week, keeps the URL's secrets on disk, and threads lose its entries
    cached = Path(cache) / hashlib.sha256(image.encode()).hexdigest()
    if cached.is_file():
        return cached
    try:
        fsspec.get_filesystem_class(image.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise ImageError(
            f"{shown(image)}: cannot be fetched without the library for its protocol: "
            "pip install 'ppe-yolo[blob]' for Azure blobs (abfs://, az://)"
        ) from error
    try:
        filesystem, path = fsspec.url_to_fs(image)
        data = filesystem.cat_file(path)
    except Exception as error:  # every protocol has its own kinds; the message may hold the secret part of the URL
        raise ImageError(f"{shown(image)}: cannot be fetched ({type(error).__name__}): check address and access") from None
    with atomic_path(cached) as temporary:
        temporary.write_bytes(data)
    return cached


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
        if (mimetypes.guess_type(path)[0] or "").startswith("video/"):
            raise ImageError(f"{shown(image)}: expected a photo, got a video: ppe_edge (the box at the gate) reads those")
        raise ImageError(f"{shown(image)}: expected a photo, got {len(data)} bytes that cannot be decoded: replace it")
    return pixels.astype(np.uint8, copy=False)


def check_image(image: str) -> tuple[tuple[int, int], tuple[int, int], list[str], NDArray[np.uint8]]:
    """Decodes a photo fully and twice, so that training cannot fail on it later.

    Once strictly, as OpenCV does not (it fills the missing part of a truncated file with grey), once as training will.

    Returns:
        (height, width) as shown, (height, width) as stored, what is unusual about it, and a small grey copy [h, w].

    Raises:
        ImageError: No photo, truncated, or too large.
    """
    path = local_path(image)
    unusual = []
    try:
        with Image.open(path) as photo:
            if photo.width * photo.height > MAX_PIXELS:
                got = f"{photo.width}x{photo.height}"
                raise ImageError(f"{shown(image)}: expected at most {MAX_PIXELS} pixels, got {got}: make it smaller")
            orientation = photo.getexif().get(_ORIENTATION, 1)
            if photo.mode != "RGB":
                unusual.append(f"{photo.mode} instead of RGB, converted")
            photo.load()
            size = (photo.height, photo.width)
            # Pillow turns a TIFF upright by itself, and takes the mark away then
            size = size[::-1] if photo.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else size
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{shown(image)}: no such photo") from error
    except Exception as error:  # decoders raise what they like for broken files
        reason = " ".join(str(error).split())[:100]
        raise ImageError(f"{shown(image)}: cannot be decoded ({reason}): replace it, or remove its annotation") from error
    if orientation in range(2, 9):
        unusual.append(f"EXIF orientation {orientation}, turned upright: see that the boxes were drawn on it so")
    pixels = read_image(image)
    if pixels.shape[:2] != size:
        raise ImageError(f"{shown(image)}: two decoders see it as {size} and {pixels.shape[:2]}: save it again without EXIF")
    step = max(1, min(size) // 64)
    small = cv2.resize(pixels, (max(1, size[1] // step), max(1, size[0] // step)), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    return size, (size[::-1] if orientation in (5, 6, 7, 8) else size), unusual, grey
