"""A drawn building site in motion: workers with helmets and, again and again, a visitor without one."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (540, 960)  # height and width, pixels
ROUND_S = 20.0  # seconds; a visitor comes once per round
VISIT_S = 13.0  # seconds that a visitor takes to cross the site
_SHIFT = 4  # OpenCV draws with 4 fractional bits, so that slow people do not jump from pixel to pixel

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]


class Person(NamedTuple):
    """How a person looks, RGB; `helmet` is None for a bare head."""

    skin: Colour
    hair: Colour
    vest: Colour
    trousers: Colour
    helmet: Colour | None = None


_YELLOW, _WHITE, _BLUE = (245, 200, 30), (240, 240, 240), (40, 90, 200)
_MASON = Person((198, 134, 94), (30, 24, 20), (200, 225, 40), (50, 60, 90), _YELLOW)
_SCAFFOLDER = Person((236, 188, 150), (80, 50, 30), (240, 130, 20), (70, 70, 75), _WHITE)
_FOREMAN = Person((141, 85, 54), (30, 24, 20), (240, 130, 20), (40, 45, 60), _BLUE)
_VISITORS = (
    Person((236, 188, 150), (30, 24, 20), (60, 70, 110), (50, 60, 90)),
    Person((198, 134, 94), (60, 45, 40), (60, 70, 110), (90, 80, 70)),
)


class DrawnSite:
    """Draws the site at any time; the same time gives the same frame."""

    def __init__(self) -> None:
        self._scene = _draw_scene()
        rng = np.random.default_rng(0)
        self._grain = np.repeat(rng.normal(0, 4, (SIZE[0] + 32, SIZE[1] + 32, 1)), 3, axis=2).astype(np.int16)

    def frame(self, seconds: float) -> Image:
        """Returns the site as a camera shows it, uint8 [H, W, 3], RGB.

        Args:
            seconds: Time since the start. The first visitor enters at once, and another one every `ROUND_S`.
        """
        image = self._scene.copy()
        # from the farthest to the nearest
        _draw_person(image, _SCAFFOLDER, 690 + 60 * math.sin(seconds / 3), 88, 34, 2 * seconds)
        _draw_person(image, _MASON, 800 + 25 * math.sin(seconds / 2), 215, 42, seconds)
        _draw_person(image, _FOREMAN, 420 + 90 * math.sin(seconds / 4), 180, 38, 1.5 * seconds)
        number, since = divmod(seconds, ROUND_S)
        if since < VISIT_S:
            x = -60 + (SIZE[1] + 120) * since / VISIT_S
            _draw_person(image, _VISITORS[int(number) % len(_VISITORS)], x, 230, 52, 4.5 * since)
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), 0.7), dtype=np.uint8)
        dy, dx = np.random.default_rng(int(seconds * 1000)).integers(0, 32, 2)
        grain = np.ascontiguousarray(self._grain[dy : dy + SIZE[0], dx : dx + SIZE[1]])
        return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), dtype=np.uint8)


def _draw_scene() -> Image:
    """Returns the site without people."""
    height, width = SIZE
    horizon = 300
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:horizon] = np.linspace((150, 190, 225), (215, 228, 238), horizon)[:, None]
    image[horizon:] = np.linspace((150, 135, 112), (112, 98, 80), height - horizon)[:, None]
    stains = np.random.default_rng(1).normal(0, 14, (12, 20)).astype(np.float32)
    ground = image[horizon:] + np.asarray(cv2.resize(stains, (width, height - horizon)))[..., None]
    image[horizon:] = ground.clip(0, 255).astype(np.uint8)
    cv2.rectangle(image, (60, 70), (330, horizon), (172, 150, 136), cv2.FILLED)  # a house, and a shell
    cv2.rectangle(image, (560, 40), (930, horizon), (150, 152, 156), cv2.FILLED)
    for left, top in ((x, y) for x in range(85, 310, 60) for y in (95, 165, 235)):
        cv2.rectangle(image, (left, top), (left + 32, top + 40), (88, 104, 122), cv2.FILLED)
    for left in range(590, 920, 85):
        cv2.rectangle(image, (left, 70), (left + 48, 150), (70, 72, 78), cv2.FILLED)
    for x in range(550, 950, 78):  # a scaffold
        cv2.line(image, (x, 20), (x, horizon + 12), (120, 116, 110), 5, cv2.LINE_AA)
    for y in (160, 282):
        cv2.rectangle(image, (540, y), (950, y + 8), (150, 116, 70), cv2.FILLED)
    for x, y, size in ((250, 360, 26), (480, 345, 20), (905, 400, 32)):  # cones
        cv2.fillPoly(image, [np.array([(x, y - 2 * size), (x - size, y), (x + size, y)])], (235, 90, 30), cv2.LINE_AA)
        cv2.line(image, (x - size // 2, y - size), (x + size // 2, y - size), (245, 245, 245), size // 4, cv2.LINE_AA)
    for i in range(4):  # planks
        cv2.rectangle(image, (40, 330 + 12 * i), (180, 338 + 12 * i), (168, 128, 76), cv2.FILLED)
    return image


def _draw_person(image: Image, person: Person, x: float, y: float, head: float, step: float) -> None:
    """Draws a person who walks.

    Args:
        image: Drawn on in place.
        person: The looks.
        x: Centre of the head, pixels.
        y: Centre of the head, pixels.
        head: Height of the head, pixels; the person is six times as tall.
        step: Phase of the steps, radians.
    """

    def at(dx: float, dy: float) -> tuple[int, int]:
        return round((x + dx * head) * 2**_SHIFT), round((y + dy * head) * 2**_SHIFT)

    def line(start: tuple[float, float], end: tuple[float, float], colour: Colour, thickness: float) -> None:
        cv2.line(image, at(*start), at(*end), colour, max(1, round(thickness * head)), cv2.LINE_AA, _SHIFT)

    def oval(dx: float, dy: float, width: float, height: float, colour: Colour, arc: tuple[int, int] = (0, 360)) -> None:
        axes = round(width * head * 2**_SHIFT), round(height * head * 2**_SHIFT)
        cv2.ellipse(image, at(dx, dy), axes, 0, *arc, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    skin, hair, vest, trousers, helmet = person
    swing = 0.35 * math.sin(step)
    for side in (-1, 1):
        knee, foot = (0.3 * side + side * swing, 4.4), (0.3 * side + 1.2 * side * swing, 5.6)
        line((0.28 * side, 3.1), knee, trousers, 0.5)
        line(knee, foot, trousers, 0.45)
        line(foot, (foot[0] + 0.2, 5.7), (40, 35, 30), 0.3)
        elbow, hand = (0.9 * side - 0.5 * side * swing, 2.0), (0.95 * side - side * swing, 2.9)
        line((0.75 * side, 1.0), elbow, vest, 0.36)
        line(elbow, hand, vest, 0.32)
        oval(*hand, 0.16, 0.18, skin)
    corners = ((-0.75, 0.75), (0.75, 0.75), (0.85, 1.1), (0.7, 3.2), (-0.7, 3.2), (-0.85, 1.1))
    cv2.fillPoly(image, [np.array([at(*corner) for corner in corners], dtype=np.int32)], vest, cv2.LINE_AA, _SHIFT)
    for stripe in (1.7, 2.4):
        line((-0.72, stripe), (0.72, stripe), (225, 225, 215), 0.14)
    line((0, 0.3), (0, 0.8), _shade(skin, 0.85), 0.34)
    oval(0, 0, 0.38, 0.5, skin)
    for side in (-1, 1):  # ears, eyes and brows
        oval(0.39 * side, 0.03, 0.07, 0.12, skin)
        oval(0.15 * side, -0.02, 0.05, 0.03, (35, 30, 30))
        line((0.07 * side, -0.11), (0.23 * side, -0.12), hair, 0.05)
    line((0, 0), (0.03, 0.14), _shade(skin, 0.6), 0.04)
    line((-0.12, 0.28), (0.12, 0.28), (140, 70, 70), 0.05)
    if helmet is not None:
        oval(0, -0.12, 0.48, 0.5, helmet, (180, 360))
        line((-0.52, -0.13), (0.52, -0.13), _shade(helmet, 0.8), 0.1)
        return
    oval(0, -0.18, 0.42, 0.36, hair, (175, 365))
    for side in (-1, 1):
        line((0.36 * side, -0.2), (0.37 * side, 0.02), hair, 0.07)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(factor * value) for value in colour)
    return red, green, blue
