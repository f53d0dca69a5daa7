import gc
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import SideDataContainer
from ppe_edge.cameras.sources import SourceConfig, open_source
from ppe_edge.cameras.upright import deinterlace, usable_aspect
from videos import corner, join, set_display_matrix, write_video


def read(path: Path, **settings: float) -> list[np.ndarray]:
    config = SourceConfig.model_validate({"source": str(path), **settings})
    return [frame.convert() for frame in open_source(config, lambda reason: None)]


def is_upright(image: np.ndarray) -> bool:
    """Whether the red quarter of `corner` is where it belongs."""
    return bool(np.abs(image.astype(int) - corner(*image.shape[:2])).mean() < 12)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_video_file_with_rotation_flag_is_upright(tmp_path: Path, turns: int) -> None:
    stored = np.ascontiguousarray(np.rot90(corner(64, 96), -turns))  # turned clockwise, to be turned back
    [image] = read(write_video(tmp_path / "video.mp4", [stored], rotation=90 * turns))
    assert image.shape == (64, 96, 3) and is_upright(image) and image.flags.c_contiguous


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_video_file_with_display_matrix_is_turned_and_mirrored(tmp_path: Path, turns: int, mirror: bool) -> None:
    """As front cameras of telephones and cameras in a mirror mark their videos."""
    stored = np.rot90(corner(64, 96), turns)  # counter-clockwise, to be turned back
    stored = np.ascontiguousarray(np.fliplr(stored) if mirror else stored)
    video = set_display_matrix(write_video(tmp_path / "video.mp4", [stored]), turns, mirror)
    [image] = read(video)
    assert image.shape == (64, 96, 3) and is_upright(image) and image.flags.c_contiguous


def test_frames_of_video_file_are_freed_without_garbage_collection(tmp_path: Path) -> None:
    """A frame that refers to itself stays until the collector runs: 100 MB of a camera's frames."""
    video = write_video(tmp_path / "video.mp4", [corner(64, 96)] * 20)
    read(video)
    gc.collect()
    gc.disable()
    try:
        read(video)
        assert sum(isinstance(o, SideDataContainer) for o in gc.get_objects()) <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(2), (64, 96, 3)), (Fraction(1, 2), (128, 48, 3))])
def test_video_file_with_marked_pixel_aspect_is_undistorted(
    tmp_path: Path, suffix: str, aspect: Fraction, shape: tuple[int, ...]
) -> None:
    [image] = read(write_video(tmp_path / f"video.{suffix}", [corner(64, 48)], pixel_aspect=aspect))
    assert image.shape == shape and is_upright(image)


def test_turned_video_file_with_pixel_aspect_is_stretched_first(tmp_path: Path) -> None:
    stored = cv2.rotate(corner(96, 64), cv2.ROTATE_90_CLOCKWISE)[:, ::2]  # half-width, then to be turned back
    [image] = read(write_video(tmp_path / "video.mp4", [np.ascontiguousarray(stored)], rotation=90, pixel_aspect=Fraction(2)))
    assert image.shape == (96, 64, 3) and is_upright(image)


def test_pixel_aspect_setting_overrides_mark_of_video_files_and_applies_to_folders(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", [corner(64, 48)])
    assert [i.shape for i in read(video, pixel_aspect=2.0)] == [(64, 96, 3)]
    marked = write_video(tmp_path / "marked.mp4", [corner(64, 48)], pixel_aspect=Fraction(2))
    assert [i.shape for i in read(marked, pixel_aspect=1.0)] == [(64, 48, 3)]
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), corner(64, 48))
    assert [i.shape for i in read(tmp_path / "images", pixel_aspect=2.0)] == [(64, 96, 3)]


@pytest.mark.parametrize(
    ("marked", "used"),
    [
        (None, 1.0),
        (Fraction(0), 1.0),
        (Fraction(16, 11), 16 / 11),
        (Fraction(10, 11), 10 / 11),
        (Fraction(847, 848), 1.0),  # 848x480 as 16:9, rounded
        (Fraction(255), 1.0),
    ],
)
def test_usable_aspect_ignores_impossible_and_rounded_marks(marked: Fraction | None, used: float) -> None:
    assert usable_aspect(marked) == used


def test_stream_with_changed_size_and_aspect_yields_each_frame_upright(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", [corner(64, 96)] * 3)
    second = write_video(tmp_path / "b.ts", [corner(128, 80)] * 3, pixel_aspect=Fraction(2))
    images = read(join(tmp_path / "joined.ts", first, second))
    assert [i.shape for i in images] == [(64, 96, 3)] * 3 + [(128, 160, 3)] * 3
    assert all(map(is_upright, images))


def test_video_file_with_odd_sides_keeps_every_pixel(tmp_path: Path) -> None:
    [image] = read(write_video(tmp_path / "video.avi", [corner(63, 97)], codec="mjpeg"))
    assert image.shape == (63, 97, 3) and is_upright(image)


def test_interlaced_video_file_shows_no_comb(tmp_path: Path) -> None:
    """A bar that moves by 16 pixels between the two fields of the frame."""
    image = np.full((64, 96, 3), 40, np.uint8)
    image[0::2, 20:40] = image[1::2, 36:56] = 220
    video = write_video(tmp_path / "video.ts", [image], options={"x264-params": "interlaced=1", "crf": "5"})
    [shown] = read(video)
    assert np.abs(np.diff(shown[2:-2].astype(int), axis=0)).max() < 60  # 180 in the frame as it is stored


def test_deinterlace_keeps_still_image() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], 3, axis=2).repeat(96, axis=1)
    image = ramp.copy()
    image[20:40, 30:50] = 255
    kept = image.copy()
    deinterlace(kept)
    assert (kept == image).all()
    for height in (1, 2, 3):
        deinterlace(np.zeros((height, 4, 3), np.uint8))
