"""`ppe-yolo benchmark loading`: what reduced decoding and small copies save on the images of a phone."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from ppe_yolo.data.audit.image_check import check_image
from ppe_yolo.data.images import read_image
from ppe_yolo.data.loading.reader import OVERSAMPLING, ImageReader
from ppe_yolo.data.synthetic import draw_site

SIZE = (3024, 4032)  # (height, width), 12 megapixels
NOISE = 6.0  # standard deviation, of 255: a phone in the shade; noise makes a JPEG large and slow to decode
_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One way to read the images.

    Attributes:
        name: What was timed.
        cpu_seconds: Processor time per image.
        stored_bytes: Size per image on disk.
    """

    name: str
    cpu_seconds: float
    stored_bytes: float


def benchmark_loading(
    images: int, input_side: int, size: tuple[int, int] = SIZE, folder: Path | None = None
) -> tuple[Stage, ...]:
    """Draws noisy images and times how long reading one takes.

    Args:
        images: Number of images; each takes about 7 MB of disk.
        input_side: Longer side of the network's input, pixels.
        size: (height, width) of the images, pixels.
        folder: Where to draw them; None: a temporary folder.
    """
    cv2.setNumThreads(1)  # as in a loader process
    with tempfile.TemporaryDirectory(dir=folder) as name:
        paths = [_draw(Path(name) / f"{i}.jpg", size, i) for i in range(images)]
        checks = {path: check_image(path) for path in paths}
        reduced = ImageReader(OVERSAMPLING * input_side, checks)
        copying = ImageReader(OVERSAMPLING * input_side, checks, Path(name) / "copies")
        full_bytes = sum(Path(path).stat().st_size for path in paths) / images

        def measure(what: str, read: Callable[[str], object]) -> Stage:
            start = time.process_time()
            for path in paths:
                read(path)
            return Stage(name=what, cpu_seconds=(time.process_time() - start) / images, stored_bytes=full_bytes)

        stages = [measure("full size", read_image), measure("reduced size (the default)", reduced.read)]
        first = measure("copies, first epoch", copying.read)
        later = measure("copies, later epochs", copying.read)
        copy_bytes = sum(path.stat().st_size for path in (Path(name) / "copies").iterdir()) / images
        stages += [Stage(name=s.name, cpu_seconds=s.cpu_seconds, stored_bytes=copy_bytes) for s in (first, later)]
    return tuple(stages)


def print_benchmark(stages: tuple[Stage, ...], title: str, console: Console) -> None:
    """Prints the figures as a table."""
    table = Table("images are read at", "CPU per image", "images/s and core", "size on disk", title=title, title_justify="left")
    for stage in stages:
        seconds = max(stage.cpu_seconds, 1e-9)
        table.add_row(stage.name, f"{1000 * seconds:.1f} ms", f"{1 / seconds:.0f}", f"{stage.stored_bytes / 1e6:.2f} MB")
    console.print(table)


def _draw(path: Path, size: tuple[int, int], seed: int) -> str:
    rng = np.random.default_rng(seed)
    small = draw_site(rng, (size[0] // 4, size[1] // 4))[0]
    pixels = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    pixels += np.asarray(rng.normal(0, NOISE, pixels.shape), np.float32)
    data = cv2.imencode(".jpg", np.clip(pixels, 0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    path.write_bytes(data.tobytes())
    return str(path)
