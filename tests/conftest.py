"""Drawn data sets for all tests; the repository contains no images of people."""

import gc
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# before torch is imported: test processes with one thread per core each would slow each other down
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from ppe_yolo.cli import main
from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.synthetic import draw_site_dataset

hypothesis.settings.register_profile("ppe_yolo", deadline=None)  # a slow machine is no failure
hypothesis.settings.load_profile("ppe_yolo")

Objects = Sequence[tuple[str, tuple[float, float, float, float]]]  # names and boxes_xyxy
ONE_HELMET: Objects = (("helmet", (8, 8, 30, 30)),)


def _picture(name: str, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """Blurred spots that depend on the name; images of different names do not look alike."""
    spots = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(spots, size[::-1], interpolation=cv2.INTER_CUBIC)


def _make_voc(
    root: Path,
    images: Sequence[str] | Mapping[str, Objects],
    splits: Mapping[str, Sequence[str]] | None = None,
    size: tuple[int, int] = (48, 64),
) -> Path:
    objects_of = images if isinstance(images, Mapping) else dict.fromkeys(images, ONE_HELMET)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, objects in objects_of.items():
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}.jpg"), _picture(stem, size)[..., ::-1])
        write_voc_annotation(
            root / "Annotations" / f"{stem}.xml",
            image_name=f"{stem}.jpg",
            image_size=(*size, 3),
            objects=[AnnotatedObject(name, box) for name, box in objects],
        )
    for split, stems in (splits or {}).items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{s}\n" for s in stems))
    return root


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests neither use nor fill the cache folder of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPE_YOLO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., int]:
    """`run_cli("audit", root)` runs the command line in this process and returns its exit code."""

    def run(*arguments: object) -> int:
        try:
            main([str(a) for a in arguments])
        except SystemExit as stopped:
            return int(stopped.code or 0)
        finally:
            if arguments[:1] != ("azureml",):  # those commands load no network
                gc.collect()  # a trainer and its network form a reference cycle of hundreds of megabytes
        return 0

    return run


@pytest.fixture(scope="session")
def picture() -> Callable[..., NDArray[np.uint8]]:
    """`picture(name, size=(48, 64))` draws an image, uint8 [H, W, 3] RGB, that depends on the name."""
    return _picture


@pytest.fixture(scope="session")
def make_voc() -> Callable[..., Path]:
    """`make_voc(root, images, splits=None, size=(48, 64))` draws a Pascal VOC folder and returns it.

    `images` are stems, for images with one helmet each, or a mapping of stem to [(name, box_xyxy), ...].
    """
    return _make_voc


@pytest.fixture(scope="session")
def tiny_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn site with 16 images in trainval and 4 in test, 96x128 pixels. Tests must not write to it."""
    root = tmp_path_factory.mktemp("tiny_site") / "data"
    draw_site_dataset(root, trainval=16, test=4, size=(96, 128), seed=11)
    return root


@pytest.fixture(scope="session")
def empty_registry_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sqlite file with MLflow's tables, which take seconds to create. Tests work on a copy of it."""
    from ppe_yolo.gate.registry import Registry

    file = tmp_path_factory.mktemp("registry") / "registry.db"
    assert Registry(f"sqlite:///{file}", "helmet").versions() == []
    return file
