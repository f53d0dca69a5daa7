"""The benchmark runs the box in processes of its own."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RED
from helpers import child_environment
from ppe_edge.benchmark import __main__ as benchmark
from ppe_edge.benchmark.cameras import percentiles


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measured processes inherit the environment of this one."""
    monkeypatch.setenv("PYTHONPATH", child_environment()["PYTHONPATH"])


def test_benchmark_prints_whole_path_and_bare_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "STARTS", 1)
    assert benchmark.main([str(tiny_model), "--rounds", "2"]) == 0
    text = capsys.readouterr().out
    for line in (
        r"bare session\.run +\d+\.\d+ ms",
        r"whole path of a frame +\d+\.\d+ ms +\d+\.\d+ x the bare run, 2 rounds",
        r"  kept for clips +\d+\.\d+ ms +\d+\.\d+ x the bare run",
        r"  every third kept +\d+\.\d+ ms +\d+\.\d+ x the bare run, as at 25 frames per second",
        r"  detect +\d+\.\d+ ms",
        r"first detection after +\d+\.\d+ s",
        r"resident memory +[1-9]\d+ MB +\(at most \d+ MB\), with clips",
        r"  with a second camera +[1-9]\d+ MB",
        r"frames 1280x720",
    ):
        assert re.search(line, text), text


def test_benchmark_with_missing_model_prints_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["none.onnx", "--clip", __file__]) == 2
    assert re.fullmatch(r"error: \S+none\.onnx: expected an ONNX model, got no such file\n", capsys.readouterr().err)


def test_benchmark_with_clip_that_is_no_video_prints_error(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, arguments = tmp_path / "clip.mp4", [str(tiny_model), "--cameras", "1", "--clip", str(tmp_path / "clip.mp4")]
    assert benchmark.main(arguments) == 2
    assert f"got no such file: {clip}" in capsys.readouterr().err
    clip.write_text("no video")
    assert benchmark.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {clip}: expected a video, got ended Invalid data")
    assert benchmark.main([str(tiny_model), "--clip", str(clip)]) == 2
    assert capsys.readouterr().err == "error: --clip: expected a video, got no frame\n"


def test_benchmark_with_cameras_tells_latency_of_alerts_and_what_machine_serves(
    tiny_model: Path,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The clip is longer than the measurement; the cool-down of 1 s sets the pace of the alerts."""
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 600)])
    arguments = [str(tiny_model), "--clip", str(clip), "--cameras", "2", "--fps", "5", "--seconds", "4"]
    assert benchmark.main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"from frame to decision +\d+\.\d+ ms \(p50\) +\d+\.\d+ ms \(p99\)", text), text
    assert re.search(r"from frame to alert +\d+\.\d+ ms \(p50\) +\d+\.\d+ ms \(p99\)", text), text
    found = re.search(r"2 cameras at 5 frames per second each, \d+ s: (\d+) frames .* (\d+) alerts", text)
    assert found is not None and 4 <= int(found[1]) <= 50 and int(found[2]) >= 2, text
    for part in ("decode", "resize", "network", "tracking and rule", "snapshot", "store"):
        assert re.search(rf"^  {part} +\d+\.\d+$", text, re.MULTILINE), text
    assert re.search(r"^  +32 cameras +(\d+\.\d+|none)$", text, re.MULTILINE), text


def test_percentiles_are_those_of_sorted_values() -> None:
    assert percentiles([float(n) for n in range(101)]) == pytest.approx((50.0, 99.0))
    assert percentiles([1.0]) is None
