"""Quantisation: the processor, the data sets and the choice of images; tests of the command line make files."""

from pathlib import Path

import pytest

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.evaluation.data_sets import DataSpec, parse_data
from ppe_yolo.export import quantize
from ppe_yolo.export.calibration import choose_images
from ppe_yolo.export.quantize import needs_reduced_range


@pytest.mark.parametrize(
    ("flags", "reduced", "reason"),
    [
        ("fpu avx2 avx512f", True, "this processor has no VNNI"),
        ("fpu avx2 avx_vnni", False, "this processor has avx_vnni"),
        ("avx512_vnni avx_vnni", False, "this processor has avx512_vnni, avx_vnni"),
    ],
)
def test_needs_reduced_range_depends_on_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, reduced: bool, reason: str
) -> None:
    monkeypatch.setattr(quantize.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: some processor\nflags\t\t: {flags}\nbugs\t: none\n")
    assert needs_reduced_range(cpuinfo) == (reduced, reason)


def test_needs_reduced_range_unknown_processor_is_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.platform, "machine", lambda: "AMD64")
    reduced, reason = needs_reduced_range(tmp_path / "missing")
    assert reduced and "without " in reason and "amd64" in reason
    monkeypatch.setattr(quantize.platform, "machine", lambda: "aarch64")
    assert needs_reduced_range(tmp_path / "missing") == (False, "aarch64 accumulates in 32 bits")


def test_choose_images_same_seed_same_images() -> None:
    images = [AnnotatedImage(image=f"{i}.jpg", objects=(), source=None, image_id=str(i)) for i in range(50)]
    chosen = choose_images(images, 10, seed=3)
    assert chosen == choose_images(images, 10, seed=3) != choose_images(images, 10, seed=4)
    assert len({c.image for c in chosen}) == 10 and set(chosen) <= set(images)
    assert choose_images(images, 80, seed=0) == images


def test_parse_data_pairs_data_sets_with_class_maps(tmp_path: Path) -> None:
    folder = tmp_path / "a=b"
    folder.mkdir()
    assert parse_data(["site", "other=shwd", str(folder), f"{folder}=gdut-hwd"], "default") == [
        DataSpec("site", "default"),
        DataSpec("other", "shwd"),
        DataSpec(str(folder), "default"),  # an existing folder, whatever its name
        DataSpec(str(folder), "gdut-hwd"),
    ]
