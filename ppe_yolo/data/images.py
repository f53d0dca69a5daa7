"""Reads images from disk, or from a URL through a local cache. Images are untrusted input."""

import hashlib
import mimetypes
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.decoding import decode_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import refuse_lfs_pointer, write_bytes

MAX_PIXELS = 100_000_000  # more than any site camera has; larger files are decompression bombs
EXIF_ORIENTATION = 0x0112  # tag
SIDEWAYS = (5, 6, 7, 8)  # values of the tag that swap height and width
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


class ImageError(UserError):
    """An image that cannot be used. Its fields name the file."""


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
    cached = cached_path(image)
    if cached.is_file():
        return cached
    import fsspec

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
    write_bytes(cached, data)
    return cached


def cached_path(image: str) -> Path:
    """Where an image on this machine, or the copy of one behind a URL, is or will be."""
    if not is_url(image):
        return Path(image)
    cache = os.environ.get("PPE_YOLO_CACHE") or cache_folder() / "images"
    # not fsspec's filecache: it expires after a week, stores the secrets of URLs on disk, and loses entries between threads
    return Path(cache) / hashlib.sha256(image.encode()).hexdigest()


def cache_folder() -> Path:
    """The folder in the variable PPE_YOLO_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("PPE_YOLO_CACHE") or platformdirs.user_cache_dir("ppe_yolo"))


def read_image(image: str, reduce: int = 1) -> NDArray[np.uint8]:
    """Decodes an image and rotates it upright as its EXIF tag says.

    Args:
        image: Path or URL.
        reduce: See `decode_image`.

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
    return decode(image, data, reduce)


def decode(image: str, data: NDArray[np.uint8], reduce: int = 1) -> NDArray[np.uint8]:
    """Decodes the content of an image file, see `read_image`.

    Args:
        image: Path or URL, for messages.
        data: Content of the file [N].
        reduce: See `decode_image`.

    Raises:
        ImageError: It is not an image.
    """
    # OpenCV decodes twice as fast as Pillow, and converts grey and CMYK to colour
    pixels = decode_image(data, reduce)
    if pixels is None:
        refuse_lfs_pointer(shown(image), data[:64].tobytes(), ImageError)
        if (mimetypes.guess_type(shown(image))[0] or "").startswith("video/"):
            raise ImageError(
                file=shown(image), expected="an image", got="a video", hint="only ppe_edge, on the box, reads videos"
            )
        raise ImageError(
            file=shown(image), expected="an image", got=f"{len(data)} bytes that cannot be decoded", hint="replace the file"
        )
    return pixels
