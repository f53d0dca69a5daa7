"""A drawn building site as a fixed camera sees it: by day and night, in rain, with people and lorries, and its faults."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (360, 640)
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


def draw_scene(seed: int) -> Image:
    """Returns a view uint8 [360, 640, 3] of houses, scaffolds and ground; another seed is another view."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    image = np.linspace(220, 120, height)[:, None, None] * np.ones((1, width, 3)) * (0.9, 0.95, 1.0)
    image[height // 2 :] = np.clip(rng.normal(125, 18, (height - height // 2, width, 1)), 0, 255) * (1.0, 0.95, 0.8)
    canvas = cv2.GaussianBlur(image, (0, 0), 0.7).astype(np.uint8)
    for _ in range(14):
        x, y = int(rng.integers(0, width)), int(rng.integers(40, height - 60))
        w, h = int(rng.integers(40, 130)), int(rng.integers(30, 110))
        colour = tuple(int(v) for v in rng.integers(40, 230, 3))
        cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, cv2.FILLED)
        for window in range(x + 8, x + w - 10, 18):
            cv2.rectangle(canvas, (window, y + 8), (window + 8, y + h - 8), (60, 60, 70), 1)
    for _ in range(25):
        start, end = rng.integers(0, (width, height)), rng.integers(0, (width, height))
        cv2.line(canvas, start.tolist(), end.tolist(), rng.integers(20, 200, 3).tolist(), 2, cv2.LINE_AA)
    return canvas


@cache
def _elsewhere() -> Image:
    return draw_scene(99)


class DrawnCamera:
    """Turns a scene into frames with the noise of a sensor.

    Args:
        scene: uint8 [360, 640, 3].
        seed: Of the noise, the rain and the people.
    """

    def __init__(self, scene: Image, seed: int = 0) -> None:
        self.scene = scene
        self._rng = np.random.default_rng(seed)
        grain = self._rng.normal(0, 1, (SIZE[0] + 40, SIZE[1] + 40, 3))
        self._drawn: dict[tuple[str, float], NDArray[np.generic]] = {}
        self._grain = {noise: np.rint(noise * grain).astype(np.int16) for noise in (4, 8)}

    def frame(self, image: NDArray[np.generic], noise: Literal[4, 8] = 4) -> Image:
        """Returns an image as the sensor delivers it, with noise of a standard deviation in grey levels."""
        y, x = self._rng.integers(0, 40, 2)
        grain = self._grain[noise][y : y + SIZE[0], x : x + SIZE[1]]
        return np.asarray(cv2.add(image.astype(np.int16), grain, dtype=cv2.CV_8U), dtype=np.uint8)

    def day(self, light: float = 1.0) -> Image:
        """The scene in colour; less light means more noise."""
        return self.frame(light * self.scene, 4 if light > 0.5 else 8)

    def infrared(self) -> Image:
        """Grey, in the light of the camera's own lamp; plants and clothes are brighter than by day."""
        return self.frame(self._in_infrared, 8)

    @cached_property
    def _in_infrared(self) -> Floats:
        red, blue = self.scene[..., 0].astype(np.float32), self.scene[..., 2].astype(np.float32)
        grey = 255 * ((0.8 * red + 0.2 * (255 - blue)) / 255) ** 0.8
        return np.repeat((grey * self._lamp((320, 200), 230))[..., None], 3, axis=2).astype(np.float32)

    def lamps(self) -> Image:
        """A dark night with a few lamps."""
        return self.frame(self._with_lamps, 8)

    @cached_property
    def _with_lamps(self) -> Floats:
        places = (90, 100), (330, 160), (560, 80)
        light = np.minimum(1.0, 0.1 + np.sum([0.9 * self._lamp(at, 55) for at in places], axis=0))
        image = np.asarray(self.scene * light[..., None], dtype=np.float32)
        for at in places:
            cv2.circle(image, at, 6, (255, 255, 255), cv2.FILLED)
        return image

    def rain(self) -> Image:
        """The scene behind streaks that are different in each frame."""
        image = 0.8 * self.scene.astype(np.float32) + 20
        for x, y in self._rng.integers(0, (SIZE[1], SIZE[0]), (250, 2)):
            cv2.line(image, (int(x), int(y)), (int(x) + 3, int(y) + 20), (215, 215, 215), 1)
        return self.frame(image)

    def with_people(self, count: int, size: int) -> Image:
        """The scene with people of a height in pixels at random places."""
        image = self.scene.copy()
        for _ in range(count):
            x, y = int(self._rng.integers(0, SIZE[1])), int(self._rng.integers(SIZE[0] // 3, SIZE[0]))
            cv2.ellipse(image, (x, y), (size // 5, size // 2), 0, 0, 360, (40, 60, 120), cv2.FILLED)
            cv2.circle(image, (x, y - size // 2), size // 8, (190, 160, 140), cv2.FILLED)
        return self.frame(image)

    def with_lorry(self, share: float) -> Image:
        """The scene behind a parked lorry that covers a share of the width."""
        return self.frame(self._once(self._lorry, share))

    def _lorry(self, share: float) -> Image:
        image, width = self.scene.copy(), int(share * SIZE[1])
        cv2.rectangle(image, (0, 60), (width, 320), (40, 90, 60), cv2.FILLED)
        cv2.rectangle(image, (width - 60, 90), (width - 15, 150), (170, 190, 200), cv2.FILLED)
        for x in (50, 130, width - 40):
            cv2.circle(image, (x, 320), 28, (20, 20, 20), cv2.FILLED)
        cv2.putText(image, "BUILDERS", (20, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (230, 230, 230), 4)
        return image

    def turned(self, share: float) -> Image:
        """The scene from a camera that was turned by a share of its width; what comes into view is another scene."""
        shift = int(share * SIZE[1])
        return self.frame(np.concatenate((self.scene[:, shift:], _elsewhere()[:, :shift]), axis=1))

    def turned_away(self) -> Image:
        """Another scene."""
        return self.frame(_elsewhere())

    def defocused(self, sigma: float) -> Image:
        """The scene out of focus."""
        return self.frame(self._once(self._defocused, sigma))

    def _defocused(self, sigma: float) -> Image:
        return np.asarray(cv2.GaussianBlur(self.scene, (0, 0), sigma), dtype=np.uint8)

    def sprayed(self, share: float) -> Image:
        """The scene behind paint on a share of the lens: too close to be in focus."""
        return self.frame(self._once(self._sprayed, share))

    def _sprayed(self, share: float) -> Floats:
        paint = np.zeros(SIZE, np.float32)
        paint[:, : int(share * SIZE[1])] = 1.0
        mask = np.asarray(cv2.GaussianBlur(paint, (0, 0), 12))[..., None]
        return np.asarray(self.scene * (1 - mask) + mask * (50, 60, 150), dtype=np.float32)

    def _once(self, draw: Callable[[float], NDArray[np.generic]], value: float) -> NDArray[np.generic]:
        key = draw.__name__, value
        if key not in self._drawn:
            self._drawn[key] = draw(value)
        return self._drawn[key]

    def plain(self, level: float) -> Image:
        """Nothing but a grey level: black for a cover, white for too much light."""
        return self.frame(np.full((*SIZE, 3), level, np.float32))

    @staticmethod
    def _lamp(at: tuple[int, int], radius: float) -> Floats:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
        return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * radius**2)).astype(np.float32)
