"""What one camera's view looks like, in a few numbers per part of the frame that light and noise hardly change.

The frame is reduced to a small grey image. Each cell of a 9x16 grid then has a brightness, a contrast, a sharpness and the
directions of its edges. Directions are doubled angles (Bigun and Granlund 1987, "Optimal orientation detection of linear
symmetry"): an edge that changes from dark-bright to bright-dark, as many do when a camera switches to infrared, keeps its
direction.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = (9, 16)
FINE = (180, 320)  # sharpness is measured at this size (height, width) ...
COARSE = (45, 80)  # ... against this one
FAR = 3  # pixels of `COARSE`
_EDGE = 0.5  # grey levels per pixel; weaker edges hardly count

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """The look of a view.

    Attributes:
        level: Mean brightness of each cell, grey levels 0..255 [9, 16].
        contrast: Standard deviation of the brightness within each cell, grey levels [9, 16].
        sharpness: Energy of the fine edges divided by that of the coarse ones [9, 16].
        edges: Directions and strengths of the edges as doubled angles [45, 80, 2].
    """

    level: Floats
    contrast: Floats
    sharpness: Floats
    edges: Floats


def reduce(image: NDArray[np.uint8]) -> Floats:
    """Returns the green channel of an image uint8 [H, W, 3] at the size `FINE`. Large images are sampled: that is fast."""
    height, width = FINE
    step = max(1, min(image.shape[0] // (2 * height), image.shape[1] // (2 * width)))
    green = np.ascontiguousarray(image[::step, ::step, 1])
    double = cv2.resize(green, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(double, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def look_at(grey: Floats, noise: float = 0.0) -> Look:
    """Measures a reduced image.

    Args:
        grey: Result of `reduce`, or a mean of several.
        noise: Variance of the noise in it, which is no sharpness.
    """
    coarse = _mean(grey, COARSE)
    level = _mean(coarse, GRID)
    contrast = np.sqrt(np.maximum(0.0, _mean(coarse * coarse, GRID) - level * level))
    x, y = cv2.Sobel(coarse, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(coarse, cv2.CV_32F, 0, 1, scale=0.125)
    energy = x * x + y * y
    strength = np.sqrt(energy + _EDGE**2)
    edges = cv2.blur(np.stack(((x * x - y * y) / strength, 2 * x * y / strength), axis=2), (3, 3))
    fine = _energy(grey) - 4 * noise
    return Look(
        level=level,
        contrast=contrast,
        sharpness=np.maximum(0.0, _mean(fine, GRID)) / (_mean(_energy(coarse), GRID) + _EDGE**2),
        edges=np.asarray(edges, dtype=np.float32),
    )


def unit_cells(edges: Floats) -> Floats:
    """Returns the edges of each cell as a vector of length 1, so that products are similarities -1..1 [9 * 16, 50]."""
    rows, columns = COARSE[0] // GRID[0], COARSE[1] // GRID[1]
    cells = edges.reshape(GRID[0], rows, GRID[1], columns, 2).transpose(0, 2, 1, 3, 4).reshape(GRID[0] * GRID[1], -1)
    return np.asarray(cells / (np.linalg.norm(cells, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


def displaced(edges: Floats, others: Floats) -> tuple[float, float]:
    """Returns the cosine similarity of the edges with others as they are, and the best one with the others displaced.

    Displaced means by at least `FAR` pixels of `COARSE`, about 4 % of the width, circularly.
    """
    mine, other = edges[..., 0] + 1j * edges[..., 1], others[..., 0] + 1j * others[..., 1]
    products = np.fft.ifft2(np.fft.fft2(mine) * np.fft.fft2(other).conj()).real  # by displacement down and to the right
    products /= np.linalg.norm(mine) * np.linalg.norm(other) + 1e-6
    here = float(products[0, 0])
    near = np.r_[0:FAR, 1 - FAR : 0]
    products[np.ix_(near, near)] = -1
    return here, float(products.max())


def _mean(values: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)


def _energy(grey: Floats) -> Floats:
    """Squared differences of neighbours, in both directions."""
    x, y = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    return x * x + y * y
