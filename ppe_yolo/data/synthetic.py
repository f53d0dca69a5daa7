"""A drawn building site, as Pascal VOC: people with helmets and bare heads, and clutter of similar colours and shapes.

Every command runs on it, and a detector learns it in minutes. Results on it say nothing about real images.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.drawing import save_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_text
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedObject

HELMET, BARE = "helmet", "none"  # names of the class map `default`
_HELMETS = ((245, 200, 30), (240, 240, 240), (40, 90, 200), (205, 40, 40), (240, 120, 30), (40, 150, 80))
_SKINS = ((236, 188, 150), (198, 134, 94), (141, 85, 54), (90, 56, 37))
_HAIR = ((30, 24, 20), (80, 50, 30), (150, 110, 60), (120, 120, 120))
_VESTS = ((240, 130, 20), (200, 225, 40), (60, 70, 110), (110, 60, 60), (90, 90, 90))

Canvas = NDArray[np.uint8]
Box = tuple[float, float, float, float]


def draw_site_dataset(
    root: Path, *, trainval: int = 240, test: int = 60, size: tuple[int, int] = (360, 480), seed: int = 0
) -> None:
    """Draws a data set: JPEGImages, Annotations and ImageSets/Main/{trainval,test}.txt.

    Args:
        root: The folder to write, new or empty.
        trainval: Number of images in the split `trainval`.
        test: Number of images in the split `test`.
        size: (height, width) of each image, pixels.
        seed: The same seed gives the same bytes.

    Raises:
        UserError: The folder is not empty.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(file=root, expected="a new or empty folder to draw into", got="one with content")
    stems = [f"site_{i:05d}" for i in range(trainval + test)]
    for i, stem in enumerate(stems):
        image, objects = draw_site(np.random.default_rng([seed, i]), size)
        with atomic_path(root / "JPEGImages" / f"{stem}.jpg") as temporary:
            save_image(temporary, image)
        write_voc_annotation(
            root / "Annotations" / f"{stem}.xml", image_name=f"{stem}.jpg", image_size=(*size, 3), objects=objects
        )
    for split, part in (("trainval", stems[:trainval]), ("test", stems[trainval:])):
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{s}\n" for s in part))


def draw_site(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Canvas, list[AnnotatedObject]]:
    """Draws one image, uint8 [H, W, 3] RGB, and returns it with its heads."""
    height, width = size
    canvas = _background(rng, size)
    for _ in range(int(rng.integers(3, 9))):
        _clutter(canvas, rng)
    objects: list[AnnotatedObject] = []
    taken: list[Box] = []
    # small, distant people first, so that nearer ones are drawn over them
    for head in sorted(rng.uniform(0.05, 0.14, size=int(rng.integers(1, 6))) * height):
        for _ in range(20):
            x, y = rng.uniform(head, width - head), rng.uniform(head, height * 0.7)
            body = (x - 1.5 * head, y - head, x + 1.5 * head, y + 6 * head)
            if not any(_overlap(body, other) for other in taken):
                taken.append(body)
                objects.append(_person(canvas, rng, x, y, head))
                break
    blurred = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.4, 1.0)))
    noisy = blurred.astype(np.float32) * rng.uniform(0.75, 1.15) + rng.normal(0, rng.uniform(2, 7), canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), objects


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _colour(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
    base = np.array(palette[int(rng.integers(len(palette)))]) + rng.integers(-15, 16, 3)
    r, g, b = base.clip(0, 255).tolist()
    return r, g, b


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    height, width = size
    horizon = int(height * rng.uniform(0.25, 0.5))
    sky, ground = rng.integers((120, 140, 160), (220, 230, 255)), rng.integers((90, 80, 60), (180, 165, 140))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:horizon], canvas[horizon:] = sky, ground
    # soft stains, so that areas are not uniform
    stains = cv2.resize(rng.normal(0, 18, (9, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    canvas = (canvas + stains[..., None]).clip(0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(1, 4))):  # buildings with windows
        x, w = int(rng.integers(0, width)), int(rng.integers(width // 8, width // 3))
        top = int(rng.integers(0, horizon))
        cv2.rectangle(canvas, (x, top), (x + w, horizon), rng.integers(80, 200, 3).tolist(), cv2.FILLED)
        for wx in range(x + 6, x + w - 8, 18):
            for wy in range(top + 6, horizon - 10, 20):
                cv2.rectangle(canvas, (wx, wy), (wx + 8, wy + 10), rng.integers(40, 120, 3).tolist(), cv2.FILLED)
    for x in range(int(rng.integers(0, 60)), width, int(rng.integers(50, 120))):  # scaffold
        cv2.line(canvas, (x, 0), (x, height * 2 // 3), (110, 105, 100), 2, cv2.LINE_AA)
    return canvas


def _clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws an object in the colours of helmets and skin, so that colour alone does not identify a head."""
    height, width = canvas.shape[:2]
    x, y, s = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(6, 26))
    colour = _colour(rng, _HELMETS + _SKINS)
    kind = rng.integers(5)
    if kind == 0:  # ball or lamp
        cv2.circle(canvas, (x, y), s // 2 + 2, colour, cv2.FILLED, cv2.LINE_AA)
    elif kind == 1:  # traffic cone
        cv2.fillPoly(canvas, [np.array([(x, y - 2 * s), (x - s, y), (x + s, y)])], (235, 90, 30), cv2.LINE_AA)
        cv2.line(canvas, (x - s // 2, y - s), (x + s // 2, y - s), (245, 245, 245), max(2, s // 4), cv2.LINE_AA)
    elif kind == 2:  # barrel
        cv2.rectangle(canvas, (x, y), (x + s, y + 2 * s), colour, cv2.FILLED)
        cv2.ellipse(canvas, (x + s // 2, y), (s // 2, s // 5), 0, 0, 360, (60, 60, 60), cv2.FILLED, cv2.LINE_AA)
    elif kind == 3:  # bucket: the dome of a helmet upside down
        cv2.ellipse(canvas, (x, y), (s, s), 0, 0, 180, colour, cv2.FILLED, cv2.LINE_AA)
    else:  # stack of planks
        for i in range(3):
            cv2.rectangle(canvas, (x, y + 7 * i), (x + 3 * s, y + 7 * i + 5), (160, 120, 70), cv2.FILLED)


def _person(canvas: Canvas, rng: np.random.Generator, x: float, y: float, head: float) -> AnnotatedObject:
    """Draws a person with a head of height `head` centred at (x, y), and returns the head as an object."""
    height, width = canvas.shape[:2]
    skin, vest = _colour(rng, _SKINS), _colour(rng, _VESTS)
    trousers = rng.integers(30, 110, 3).tolist()
    half = head / 2

    def at(dx: float, dy: float) -> tuple[int, int]:
        return round(x + dx * head), round(y + dy * head)

    thick = max(2, round(0.45 * head))
    lean = float(rng.uniform(-0.3, 0.3))
    for side in (-1, 1):
        cv2.line(canvas, at(0.35 * side, 3.2), at(0.45 * side + lean, 5.8), trousers, thick, cv2.LINE_AA)
        elbow = at(1.1 * side, float(rng.uniform(1.2, 2.4)))
        cv2.line(canvas, at(0.8 * side, 0.9), elbow, vest, max(2, thick * 3 // 4), cv2.LINE_AA)
        cv2.circle(canvas, elbow, max(1, thick // 3), skin, cv2.FILLED, cv2.LINE_AA)
    cv2.rectangle(canvas, at(-0.85, 0.65), at(0.85, 3.3), vest, cv2.FILLED)
    for dy in (1.5, 2.2):  # reflective stripes
        cv2.line(canvas, at(-0.85, dy), at(0.85, dy), (225, 225, 215), max(1, thick // 3))
    cv2.line(canvas, at(0, 0.3), at(0, 0.75), skin, thick)
    cv2.ellipse(canvas, at(0, 0), (round(0.38 * head), round(half)), 0, 0, 360, skin, cv2.FILLED, cv2.LINE_AA)
    facing = int(rng.integers(-1, 2))
    if facing or rng.random() < 0.7:  # else seen from behind
        for eye in (-0.15, 0.15):
            cv2.circle(canvas, at(eye + 0.12 * facing, 0.05), max(1, round(0.05 * head)), (30, 30, 30), cv2.FILLED)
    if rng.random() < 0.5:
        colour = _colour(rng, _HELMETS)
        cv2.ellipse(canvas, at(0, -0.1), (round(0.48 * head), round(0.55 * head)), 0, 180, 360, colour, cv2.FILLED, cv2.LINE_AA)
        brim = [at(-0.55 + 0.15 * facing, -0.12), at(0.55 + 0.15 * facing, -0.12)]
        shade = [max(0, c - 40) for c in colour]
        cv2.line(canvas, brim[0], brim[1], shade, max(2, round(0.1 * head)), cv2.LINE_AA)
        name, box = HELMET, (x - 0.58 * head, y - 0.66 * head, x + 0.58 * head, y + half)
    else:
        if rng.random() < 0.8:
            hair = _colour(rng, _HAIR)
            cv2.ellipse(
                canvas, at(0, -0.15), (round(0.4 * head), round(0.4 * head)), 0, 170, 370, hair, cv2.FILLED, cv2.LINE_AA
            )
        name, box = BARE, (x - 0.42 * head, y - 0.55 * head, x + 0.42 * head, y + half)
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    return AnnotatedObject(name, (max(1, x1), max(1, y1), min(width, x2), min(height, y2)))
