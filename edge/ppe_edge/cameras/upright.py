"""Makes decoded frames upright and undistorted: interlacing, the shape of pixels, rotation."""

from fractions import Fraction

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Orientation = tuple[int, bool]  # quarters to turn counter-clockwise, and whether to mirror left to right before

MIN_ASPECT, MAX_ASPECT = 0.25, 4.0  # a mark beyond these is an error of the encoder
SQUARE_TOLERANCE = 0.02  # marks such as 847/848 come from rounding; the least anamorphic format in use is 12/11
COMB = 12  # grey levels by which a row must differ from both of its neighbours to count as another field


def upright(frame: VideoFrame, pixel_aspect: float, orientation: Orientation) -> Image:
    """Returns a frame as it is meant to be seen, uint8 [H, W, 3], RGB.

    Args:
        frame: The decoded frame.
        pixel_aspect: Width of its pixels divided by their height.
        orientation: See `orientation_of`.
    """
    image = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    if frame.interlaced_frame:
        deinterlace(image)
    image = with_square_pixels(image, pixel_aspect)
    turns, is_mirrored = orientation
    if is_mirrored:
        image = np.fliplr(image)
    return np.ascontiguousarray(np.rot90(image, turns))


def orientation_of(frame: VideoFrame) -> Orientation:
    """Returns how to turn and mirror a frame.

    Call it once for many frames: a frame whose side data were read refers to itself, and its memory is freed late.

    The display matrix maps stored pixels (x to the right, y down) to shown ones: (a x + c y, b x + d y). `frame.rotation` alone
    knows no mirror: it reports 180 degrees for one from left to right, and nothing for one from top to bottom.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    # a buffer, which the stubs do not say
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(np.float64)  # type: ignore[call-overload]
    is_mirrored = a * d - b * c < 0
    if is_mirrored:  # without the mirror, which comes first
        a, b = -a, -b
    clockwise = np.degrees(np.arctan2(b, a))
    return round(-clockwise / 90) % 4, bool(is_mirrored)


def usable_aspect(marked: Fraction | None) -> float:
    """Returns the pixel aspect of a stream; 1 if it is unmarked, practically square, or marked with an impossible one."""
    aspect = 1.0 if marked is None else float(marked)
    is_square = abs(aspect - 1.0) <= SQUARE_TOLERANCE
    return aspect if MIN_ASPECT <= aspect <= MAX_ASPECT and not is_square else 1.0


def with_square_pixels(image: Image, pixel_aspect: float) -> Image:
    """Stretches the side that is too short, so that no detail is lost."""
    height, width = image.shape[:2]
    size = (round(width * max(1.0, pixel_aspect)), round(height * max(1.0, 1.0 / pixel_aspect)))
    if size == (width, height):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def deinterlace(image: Image) -> None:
    """Limits each odd row to the range of its neighbours, in place.

    Where nothing moves, rows differ little from their neighbours and stay; where something moves, the rows of the other field
    form a comb and are replaced.
    """
    above, row, below = image[0:-2:2], image[1:-1:2], image[2::2]
    rows = min(len(above), len(row), len(below))
    if not rows:
        return
    above, row, below = above[:rows], row[:rows], below[:rows]
    tolerance = np.full(row.shape, COMB, np.uint8)  # cv2 saturates, numpy wraps around
    low = cv2.subtract(cv2.min(above, below), tolerance)
    high = cv2.add(cv2.max(above, below), tolerance)
    row[:] = cv2.max(low, cv2.min(high, row))
