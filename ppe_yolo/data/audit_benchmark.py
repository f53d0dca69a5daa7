"""`ppe-yolo benchmark audit`: a first audit, the same again, and the search for images that look alike."""

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.audit.engine import check_images
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.splits import group_alike
from ppe_yolo.data.synthetic import draw_site

SIZE = (360, 480)  # (height, width) of the images
ALIKE = 0.15  # fraction of the images that are frames of one fixed camera
_DRAWN = 500  # different drawings; the other images are copies with another comment, so that each must be decoded
_SAMPLE_EVERY = 0.5  # seconds between two samples of the memory
_NOISE_BITS = 6  # bits of a hash that vary between the frames of a fixed camera


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the benchmark.

    Attributes:
        name: What was timed.
        seconds: Wall-clock time.
        cpu_seconds: Processor time of this process and of its workers.
        peak_bytes: Largest memory of this process and its workers: their proportional set size, which counts a page that
            several of them share once. None where it cannot be measured (only Linux reports it).
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class AuditBenchmark:
    """The result.

    Attributes:
        images: Number of images.
        cores: Number of cores that were available.
        stages: First audit, second audit, its image checks alone, search for images that look alike.
    """

    images: int
    cores: int
    stages: tuple[Stage, ...]


def benchmark_audit(images: int, folder: Path | None = None) -> AuditBenchmark:
    """Draws small images as Pascal VOC and times their audit with an empty cache, and again.

    Args:
        images: Number of images; each takes about 35 kB of disk.
        folder: Where to draw them; None: a temporary folder.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name, _cache(Path(name) / "cache"):
        root = Path(name) / "data"
        draw_many(root, images)
        stages: list[Stage] = []
        _time(stages, "first audit", lambda: AnnotatedDataset.open(root, on_error="skip"))
        _time(stages, "second audit", lambda: AnnotatedDataset.open(root, on_error="skip"))
        paths = [str(path) for path in sorted((root / "JPEGImages").iterdir())]
        _time(stages, "its image checks alone", lambda: check_images(paths))
        hashes = _hashes(images)
        _time(stages, "images that look alike", lambda: group_alike(hashes))
    return AuditBenchmark(images=images, cores=available_cores(), stages=tuple(stages))


def print_benchmark(result: AuditBenchmark, console: Console) -> None:
    """Prints the figures as a table."""
    title = f"{result.images:,} images of {SIZE[1]}x{SIZE[0]} pixels, {result.cores} cores, {ALIKE:.0%} of one camera"
    table = Table("", "time", "CPU", "images/s", "peak memory", title=title, title_justify="left")
    for stage in result.stages:
        table.add_row(
            stage.name,
            f"{stage.seconds:.1f} s",
            f"{stage.cpu_seconds:.1f} s",
            f"{result.images / stage.seconds:,.0f}",
            "unknown" if stage.peak_bytes is None else f"{stage.peak_bytes / 1e6:,.0f} MB",
        )
    console.print(table)
    console.print(f"first / second audit: {result.stages[0].seconds / result.stages[1].seconds:.1f}")


def draw_many(root: Path, count: int) -> None:
    """Draws a Pascal VOC folder quickly: few drawings, and copies of them with different contents.

    The first drawing makes `ALIKE` of the images.
    """
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    drawings: list[tuple[bytes, str]] = []
    for i in range(min(_DRAWN, count)):
        image, objects = draw_site(np.random.default_rng(i), SIZE)
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        annotation = root / "Annotations" / f"{i:07d}.xml"
        write_voc_annotation(annotation, image_name=annotation.with_suffix(".jpg").name, image_size=(*SIZE, 3), objects=objects)
        drawings.append((data, annotation.read_text(encoding="utf-8")))
    for i in range(count):
        first = 0 if i < ALIKE * count else i % len(drawings)
        data, text = drawings[first]
        comment = f"{i}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (root / "JPEGImages" / f"{i:07d}.jpg").write_bytes(data[:2] + segment + data[2:])
        text = text.replace(f"{first:07d}.jpg", f"{i:07d}.jpg")
        (root / "Annotations" / f"{i:07d}.xml").write_text(text, encoding="utf-8")


def _hashes(count: int) -> NDArray[np.uint64]:
    rng = np.random.default_rng(0)
    hashes = rng.integers(2**64, size=count, dtype=np.uint64)
    alike = int(ALIKE * count)
    noise = np.zeros(alike, dtype=np.uint64)
    for _ in range(_NOISE_BITS):
        noise |= rng.integers(2, size=alike, dtype=np.uint64) << rng.integers(64, size=alike, dtype=np.uint64)
    hashes[:alike] = hashes[0] ^ noise
    return hashes


def _time(stages: list[Stage], name: str, work: Callable[[], object]) -> None:
    start, cpu = time.perf_counter(), _cpu_seconds()
    with _memory() as sizes:
        work()
        seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - cpu
    peak = max(sizes) if all(sizes) else None
    stages.append(Stage(name=name, seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak))


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Collects the memory of this process and its children, bytes, until the block ends."""
    sizes, is_done = [], threading.Event()

    def collect() -> None:
        while not is_done.wait(_SAMPLE_EVERY):
            sizes.append(_proportional_set_size())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield sizes
    finally:
        is_done.set()
        thread.join()
        sizes.append(_proportional_set_size())


def _proportional_set_size() -> int:
    """Proportional set size of this process and its children in bytes; 0 where the system does not report it."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    size = 0
    for process in ("self", *children):
        with suppress(OSError):  # it has ended
            text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
            found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            size += int(found[1]) * 1024 if found else 0
    return size


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("PPE_YOLO_CACHE")
    os.environ["PPE_YOLO_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PPE_YOLO_CACHE"]
        else:
            os.environ["PPE_YOLO_CACHE"] = before
