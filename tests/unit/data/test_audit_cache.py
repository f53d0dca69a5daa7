"""Image checks from the cache: never a stale one, whatever happens to the images or to the cache."""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import child_environment

from ppe_yolo.data.audit import engine
from ppe_yolo.data.audit.check_cache import CheckCache, KeptCheck, file_state, read_kept, write_kept
from ppe_yolo.data.audit.engine import check_images
from ppe_yolo.data.audit.image_check import VERSION, ImageCheck, check_image
from ppe_yolo.data.images import ImageError

OLD = 1_700_000_000_000_000_000  # nanoseconds since the epoch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "audit" / "checks-1.sqlite"


@pytest.fixture
def images(picture: Callable[..., np.ndarray], tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{name}.png") for name in "abcde"]
    for path in paths:
        cv2.imwrite(path, picture(path))
    return paths


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file changed a while ago."""
    now = time.time_ns
    monkeypatch.setattr("ppe_yolo.data.audit.check_cache.time.time_ns", lambda: now() + 10_000_000_000)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are decoded, in order."""
    names: list[str] = []

    def check(image: str, data: bytes) -> ImageCheck:
        names.append(image)
        return check_image(image, data)

    monkeypatch.setattr(engine, "check_image", check)
    return names


def checked(images: list[str], **options: object) -> dict[str, ImageCheck | ImageError]:
    return check_images(images, progress=False, **options)


def test_check_images_a_second_time_decodes_nothing(images: list[str], decoded: list[str], settled: None) -> None:
    first = checked(images)
    assert sorted(decoded) == images
    for image in images:
        Path(image).chmod(0o644)
    assert checked(images) == first == {image: check_image(image) for image in images}
    assert sorted(decoded) == images


def test_check_images_unchanged_files_are_not_even_read(
    images: list[str], settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checked(images)
    monkeypatch.setattr(engine, "read_file", None)
    assert checked(images) == first


def test_check_images_edit_of_same_size_with_restored_time_is_noticed(
    images: list[str], settled: None, picture: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    a, b = tmp_path / "a.bmp", tmp_path / "b.bmp"  # no compression: the files have the same size
    for path in (a, b):
        cv2.imwrite(str(path), picture(path.name))
    os.utime(a, ns=(OLD, OLD))
    before = checked([str(a)])[str(a)]
    a.write_bytes(b.read_bytes())
    os.utime(a, ns=(OLD, OLD))
    after = checked([str(a)])[str(a)]
    assert a.stat().st_mtime_ns == OLD
    assert after == check_image(str(b)) != before


def test_check_images_file_that_has_just_changed_is_read_again(
    images: list[str], monkeypatch: pytest.MonkeyPatch, decoded: list[str], picture: Callable[..., np.ndarray]
) -> None:
    first = checked(images)
    assert file_state(Path(images[0])) == ""  # it may change again within the same time stamp
    assert checked(images) == first
    assert sorted(decoded) == images  # read, but not decoded


def test_check_images_finds_moved_files_by_their_content(
    images: list[str], decoded: list[str], settled: None, tmp_path: Path
) -> None:
    first = checked(images)
    decoded.clear()
    moved = [shutil.move(image, tmp_path / f"moved_{Path(image).name}") for image in images]
    assert list(checked([str(path) for path in moved]).values()) == list(first.values())
    assert not decoded


def test_check_images_replaced_file_is_checked_again(images: list[str], settled: None) -> None:
    checked(images)
    Path(images[0]).write_bytes(b"no image")
    Path(images[1]).unlink()
    results = checked(images)
    assert "cannot be decoded" in str(results[images[0]])
    assert "no such image" in str(results[images[1]])
    assert isinstance(results[images[2]], ImageCheck)


@pytest.mark.parametrize("damage", ["header", "middle", "truncated", "empty", "text", "folder", "other-table"])
def test_check_images_damaged_cache_is_replaced(
    damage: str, images: list[str], cache: Path, settled: None, caplog: pytest.LogCaptureFixture
) -> None:
    first = checked(images)
    data = bytearray(cache.read_bytes())
    if damage in ("header", "middle"):
        start = 0 if damage == "header" else len(data) // 3
        data[start : start + 4096] = os.urandom(4096)
        cache.write_bytes(data)
    elif damage == "folder":
        cache.unlink()
        cache.mkdir()
    elif damage == "other-table":
        cache.unlink()
        subprocess.run(
            [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(cache)!r}).execute('create table checks (a)')"]
        )
    else:
        cache.write_bytes({"truncated": bytes(data[:5000]), "empty": b"", "text": b"hello " * 2000}[damage])
    with caplog.at_level(logging.WARNING):
        assert checked(images) == first
    assert damage in ("empty", "middle") or "cache of image checks" in caplog.text
    assert checked(images) == first


def test_cache_damaged_entry_is_no_result(
    images: list[str], cache: Path, settled: None, caplog: pytest.LogCaptureFixture
) -> None:
    checked(images)
    data = cache.read_bytes()
    assert b'"size":[48,64]' in data
    cache.write_bytes(data.replace(b'"size":[48,64]', b'"size":[84,64]'))
    results = checked(images)
    assert {r.size for r in results.values() if isinstance(r, ImageCheck)} == {(48, 64)}
    assert "5 damaged entries" in caplog.text


def test_check_images_without_a_writable_folder_works(
    images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "file"))
    assert checked(images) == {image: check_image(image) for image in images}
    assert "cannot be used" in caplog.text


def test_cache_is_bounded(images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppe_yolo.data.audit.check_cache.MAX_ROWS", 3)
    check = check_image(images[0])
    store = CheckCache(tmp_path / "small.sqlite")
    for day, names in enumerate(("ab", "cd", "e")):
        monkeypatch.setattr("ppe_yolo.data.audit.check_cache._today", lambda day=day: day)
        store.mark_used(["a"])
        store.store({name: KeptCheck("1", check) for name in names})
    left = store.find("abcde").keys()
    assert left >= {"a", "e"}  # "a" is old, but was used
    assert "b" not in left
    assert len(left) == 3
    store.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_check_images_result_does_not_depend_on_workers(
    images: list[str], workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "PROCESSES_FROM", 2)
    broken = str(tmp_path / "broken.jpg")
    Path(broken).write_bytes(b"no image")
    results = checked([*images, broken], workers=workers)
    assert list(results) == [*images, broken]
    assert [results[image] for image in images] == [check_image(image) for image in images]
    assert str(results[broken]).startswith(f"{broken}: cannot be decoded (unknown format)")


def test_check_images_script_without_main_guard_checks_in_its_own_process(images: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from ppe_yolo.data.audit import engine\n"
        "engine.PROCESSES_FROM = 2\n"
        "print(len(engine.check_images(sys.argv[1:], progress=False, workers=2)))\n"
    )
    command = [sys.executable, str(script), *images]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=child_environment())
    assert done.stdout == f"{len(images)}\n"
    assert "checking the remaining images in this one" in done.stderr


def test_check_images_second_process_waits_for_the_first(
    images: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, decoded: list[str]
) -> None:
    code = (
        "import sys\n"
        "from ppe_yolo.data.audit import engine\n"
        "check = engine.check_image\n"
        "def slow(image, data):\n"
        "    print('checking', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return check(image, data)\n"
        "engine.check_image = slow\n"
        "engine.check_images(sys.argv[1:], progress=False, workers=1)\n"
    )
    command = [sys.executable, "-c", code, *images]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == "checking\n"
        continue_first = first.stdin

        def waiting(message: str, *arguments: object) -> None:
            assert "waiting for another process" in message
            continue_first.write("\n" * len(images))
            continue_first.flush()

        monkeypatch.setattr(engine._log, "warning", waiting)
        results = checked(images)
    assert first.returncode == 0
    assert all(isinstance(result, ImageCheck) for result in results.values())
    assert not decoded


def test_kept_checks_are_read_back(images: list[str], tmp_path: Path, decoded: list[str]) -> None:
    checks = [check_image(image) for image in images]
    write_kept(tmp_path / "image_checks.json", checks)
    beside = read_kept(tmp_path / "image_checks.json")
    assert beside == {check.content_hash: check for check in checks}
    assert list(checked(images, supplied=beside).values()) == checks
    assert not decoded


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": "0", "checks": []}',
        '{"version": VERSION, "checks": [{}]}',
        '{"version": VERSION, "checks": [{"size": [1e9, 1e9]}]}',
        '{"version": VERSION, "checks": [{"size": [-1, 5], "stored_size": [5, 5], "unusual": [], "perceptual_hash": 1, '
        '"content_hash": "a"}]}',
        '{"version": VERSION, "checks": [{"size": [5, 5], "stored_size": [5, 5], "unusual": [], "perceptual_hash": -1, '
        '"content_hash": "a"}]}',
    ],
)
def test_kept_checks_that_are_damaged_are_ignored(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "image_checks.json").write_text(text.replace("VERSION", f'"{VERSION}"'))
    assert read_kept(tmp_path / "image_checks.json") == {}
    assert "the images are checked again" in caplog.text
    assert read_kept(tmp_path / "none.json") == {}
