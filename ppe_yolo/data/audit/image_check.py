"""The check of one image file. Its result depends on the content of the file alone, so it can be kept and reused."""

import hashlib
import io
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ppe_yolo.core.files import refuse_lfs_pointer
from ppe_yolo.core.words import one_line
from ppe_yolo.data.images import EXIF_ORIENTATION, MAX_PIXELS, SIDEWAYS, ImageError, decode, local_path, shown

VERSION = f"2 {cv2.__version__} {PIL.__version__}"  # results of other versions are not reused: change it with the checks
MAX_BYTES = 1 << 30  # of a file; more than MAX_PIXELS need in any format
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")  # brands of iPhones and others
_DEEP = ("I", "F")  # Pillow's modes of integers and floating-point numbers with 32 bits
_DRAFT = 8  # a JPEG is decoded at an eighth of its size by the strict decoder: it reads the same data, in half the time


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCheck:
    """Result of `check_image`.

    Attributes:
        size: (height, width) of the upright image, pixels.
        stored_size: (height, width) before the EXIF rotation, pixels.
        unusual: Messages about properties that are supported but worth a look.
        perceptual_hash: 64 bits, see `group_alike`.
        content_hash: Hash of the file; equal for identical files.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    unusual: tuple[str, ...]
    perceptual_hash: int
    content_hash: str

    def to_dict(self) -> dict[str, Any]:
        """The result in plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "ImageCheck":
        """Reads what `to_dict` returned.

        Raises:
            ValueError: Something else; results that were kept are untrusted input.
        """
        try:
            check = cls(
                size=(values["size"][0], values["size"][1]),
                stored_size=(values["stored_size"][0], values["stored_size"][1]),
                unusual=tuple(values["unusual"]),
                perceptual_hash=values["perceptual_hash"],
                content_hash=values["content_hash"],
            )
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"no image check ({error!r})") from None
        sides = (*check.size, *check.stored_size)
        is_valid = all(type(side) is int and side > 0 for side in sides) and sides[0] * sides[1] <= MAX_PIXELS
        is_valid &= type(check.perceptual_hash) is int and 0 <= check.perceptual_hash < 1 << 64
        if not (is_valid and type(check.content_hash) is str and all(type(text) is str for text in check.unusual)):
            raise ValueError("no image check (a value is out of range)")
        return check


def read_file(image: str) -> bytes:
    """Content of an image file; an image behind a URL is downloaded first.

    Raises:
        ImageError: There is no such file, it is too large, or it cannot be read or downloaded.
    """
    path = local_path(image)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageError(file=shown(image), expected=f"at most {MAX_BYTES:,} bytes", got=f"{size:,}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("no such image", file=shown(image)) from error
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", file=shown(image)) from error
    refuse_lfs_pointer(shown(image), data, ImageError)
    return data


def hash_content(data: bytes) -> str:
    """Hash of a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def check_image(image: str, data: bytes | None = None) -> ImageCheck:
    """Decodes an image with two decoders, so that training cannot fail on it later.

    Pillow is strict; OpenCV, which training uses, fills the missing part of a truncated file with grey.

    Args:
        image: Path or URL.
        data: Content of the file, if it was read before.

    Raises:
        ImageError: Not an image, truncated, or too large.
    """
    data = read_file(image) if data is None else data
    try:
        with Image.open(io.BytesIO(data)) as opened:
            size, mode, orientation = _decode_strictly(opened, image)
    except ImageError:
        raise
    except Exception as error:  # decoders raise all kinds of errors for broken files
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
            expected = "an image as JPEG, PNG, BMP, WebP or TIFF"
            raise ImageError(file=shown(image), expected=expected, got="HEIC or AVIF", hint="convert it to JPEG") from error
        # Pillow's own message has the address of a buffer, which differs in each run
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else one_line(error, 100)
        raise ImageError(
            f"cannot be decoded ({reason})", file=shown(image), hint="replace the image, or remove its annotation"
        ) from error
    unusual = [f"{mode} instead of RGB: converted"] if mode != "RGB" else []
    if orientation in range(2, 9):
        unusual.append(
            f"EXIF orientation {orientation}: rotated upright; check that the boxes were annotated on the upright image"
        )
    pixels = decode(image, np.frombuffer(data, dtype=np.uint8))
    if pixels.shape[:2] != size:
        raise ImageError(
            f"two decoders disagree on its size ({size} and {pixels.shape[:2]})",
            file=shown(image),
            hint="save the image again without EXIF",
        )
    return ImageCheck(
        size=size,
        stored_size=size[::-1] if orientation in SIDEWAYS else size,
        unusual=tuple(unusual),
        perceptual_hash=_perceptual_hash(pixels),
        content_hash=hash_content(data),
    )


def _decode_strictly(opened: Image.Image, image: str) -> tuple[tuple[int, int], str, int]:
    """Decodes an opened image with Pillow; returns (height, width) of the upright image, Pillow's mode and EXIF orientation."""
    if opened.width * opened.height > MAX_PIXELS:
        raise ImageError(
            file=shown(image),
            expected=f"at most {MAX_PIXELS} pixels",
            got=f"{opened.width}x{opened.height}",
            hint="make the image smaller",
        )
    orientation, mode = opened.getexif().get(EXIF_ORIENTATION, 1), opened.mode  # reading the EXIF of a PNG decodes it
    if mode in _DEEP:
        raise ImageError(
            file=shown(image),
            expected="8 or 16 bits per channel",
            got=f"32 bits (mode {mode})",
            hint="convert it, since its range is unknown",
        )
    stored = (opened.height, opened.width)
    opened.draft(None, (max(1, opened.width // _DRAFT), max(1, opened.height // _DRAFT)))
    is_draft = (opened.height, opened.width) != stored
    opened.load()
    size = stored if is_draft else (opened.height, opened.width)
    # Pillow rotates a TIFF upright itself and removes the tag
    is_sideways = opened.getexif().get(EXIF_ORIENTATION, 1) in SIDEWAYS
    return size[::-1] if is_sideways else size, mode, orientation


def _perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    height, width = pixels.shape[:2]
    step = max(1, min(height, width) // 64)
    small = cv2.resize(pixels, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    grey = Image.fromarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    return int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes(), "big")
