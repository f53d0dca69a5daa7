import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.cameras.sources import SourceConfig, open_source
from ppe_edge.cameras.timeline import Timeline
from videos import corner, join, write_video


def positions(*timestamps: float | None, interval: float = 0.1) -> tuple[list[float], list[bool]]:
    timeline = Timeline(interval)
    placed = [(timeline.position(t), timeline.is_certain) for t in timestamps]
    return [p for p, _ in placed], [c for _, c in placed]


def read(path: Path) -> tuple[list[float | None], list[bool]]:
    frames = list(open_source(SourceConfig.model_validate({"source": str(path)}), lambda reason: None))
    return [f.seconds for f in frames], [f.certain for f in frames]


def test_intact_timestamps_are_kept() -> None:
    assert positions(7.0, 7.1, 7.3, 27.3) == (pytest.approx([0.0, 0.1, 0.3, 20.3]), [True] * 4)
    rare = positions(0.0, 120.0, 240.0, 500.0, interval=120.0)
    assert rare == ([0.0, 120.0, 240.0, 500.0], [True] * 4)


@pytest.mark.parametrize("jump", [-5.0, -0.25, 95443.7])
def test_jump_continues_one_interval_later(jump: float) -> None:
    times, certain = positions(5.0, 5.1, 5.2, 5.3 + jump, 5.4 + jump)
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert certain == [True, True, True, False, False]


def test_missing_and_repeated_timestamps_are_spread() -> None:
    assert positions(None, None, None)[0] == pytest.approx([0.0, 0.1, 0.2])
    assert positions(3.0, 3.0, 3.0)[0] == pytest.approx([0.0, 0.1, 0.2])
    assert positions(0.0, 0.1, None, 0.3)[0] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert positions(0.0, 0.1, None, 0.3)[1] == [True, True, False, False]


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40))
def test_positions_always_increase(timestamps: list[float | None]) -> None:
    times, _ = positions(*timestamps)
    assert all(a < b for a, b in itertools.pairwise(times))


def test_joined_video_files_have_increasing_positions(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.ts", [corner(64, 96)] * 6)
    times, certain = read(join(tmp_path / "joined.ts", part, part))
    assert times == pytest.approx(np.arange(12) / 10)
    assert certain == [True] * 6 + [False] * 6


@pytest.mark.parametrize("jump", [1_000_000, 4])
def test_video_file_with_jump_ahead_has_increasing_positions(tmp_path: Path, jump: int) -> None:
    stamps = [0, 1, 2, 3 + jump, 4 + jump]
    times, certain = read(write_video(tmp_path / "a.mkv", [corner(64, 96)] * 5, timestamps=stamps))
    expected = [0.0, 0.1, 0.2, 0.3, 0.4] if jump > 600 else [s / 10 for s in stamps]
    assert times == pytest.approx(expected, abs=2e-3) and all(certain) == (jump < 600)


def test_video_file_without_timestamps_has_positions(tmp_path: Path) -> None:
    times, _ = read(write_video(tmp_path / "a.h264", [corner(64, 96)] * 6))
    assert len(times) == 6 and np.diff(np.array(times, float)).min() > 0.01
