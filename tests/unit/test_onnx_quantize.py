"""Quantisation: ranges, choices and refusals; the file itself is made by the command line's tests."""

from pathlib import Path

import pytest

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.export import quantize
from ppe_yolo.export.quantize import choose_photos, needs_reduced_range


@pytest.mark.parametrize(
    ("flags", "reduced", "reason"),
    [
        ("fpu avx2 avx512f", True, "this processor has no VNNI"),
        ("fpu avx2 avx_vnni", False, "this processor has avx_vnni"),
        ("avx512_vnni avx_vnni", False, "this processor has avx512_vnni, avx_vnni"),
    ],
)
def test_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, reduced: bool, reason: str) -> None:
    monkeypatch.setattr(quantize.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: some processor\nflags\t\t: {flags}\nbugs\t: none\n")
    assert needs_reduced_range(cpuinfo) == (reduced, reason)


def test_unknown_processor_keeps_to_the_safe_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.platform, "machine", lambda: "AMD64")
    reduced, reason = needs_reduced_range(tmp_path / "missing")
    assert reduced and "no " in reason and "amd64" in reason
    monkeypatch.setattr(quantize.platform, "machine", lambda: "aarch64")
    assert needs_reduced_range(tmp_path / "missing") == (False, "aarch64 adds in 32 bits")


def test_choice_of_photos_follows_from_the_seed() -> None:
    images = [AnnotatedImage(image=f"{i}.jpg", objects=(), source=None, image_id=str(i)) for i in range(50)]
    chosen = choose_photos(images, 10, seed=3)
    assert chosen == choose_photos(images, 10, seed=3) != choose_photos(images, 10, seed=4)
    assert len({c.image for c in chosen}) == 10 and set(chosen) <= set(images)
    assert choose_photos(images, 80, seed=0) == images
