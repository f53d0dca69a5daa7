"""`ppe-edge score` on drawn videos, with the real reader, model, tracker and rule."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ppe_edge.__main__ import main
from ppe_edge.scoring import recording
from ppe_edge.scoring.chart import FOUND, MISSED

from conftest import GREEN, GREY, RED  # isort: skip

# bare head from 2 to 6 s and from 8 to 8.5 s; the rule (1.5 s) reports the first one 1.5 s later, and never the second
SCENES = [(GREY, 20), (RED, 40), (GREEN, 20), (RED, 5), (GREY, 15)]
SVG = "{http://www.w3.org/2000/svg}"
TRUTH = "camera,start,end,kind\ngate,2,6,bare head\ngate,6,8,helmet\ngate,8,8.5,bare head\n"


@pytest.fixture
def video(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    return make_clip(tmp_path / "gate.mp4", SCENES)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    file = tmp_path / "events.csv"
    file.write_text(TRUTH)
    return file


def test_score_reports_found_missed_and_delay(
    video: Path, truth: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "score.json"
    arguments = ["score", str(video), "--truth", str(truth), "--model", str(tiny_model), "--json", str(out)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"^gate +0:00:10\.0 +2 +1 +1 +1\.5 +1\.5 +0 +0 +1$", text, re.MULTILINE), text
    assert "found     gate 0:00:02.0-0:00:06.0 (line 2): 0:00:03.5 (track 1)" in text
    assert "missed    gate 0:00:08.0-0:00:08.5 (line 4)" in text
    score = json.loads(out.read_text())
    assert score["schema_version"] == 1
    assert score["all"] == {
        "hours": 0.002778, "violations": 2, "found": 1, "missed": 1, "median_delay_s": 1.5, "worst_delay_s": 1.5,
        "false_alerts": 0, "false_alerts_per_hour": 0.0, "alerts_per_violation": 1.0,
    }  # fmt: skip
    assert score["videos"][0]["outcomes"][0]["alerts"][0]["seconds"] == 3.5 and score["sweep"] == []


def test_score_with_limits_decides_exit_code(
    video: Path, truth: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(video), "--truth", str(truth), "--model", str(tiny_model)]
    assert main([*arguments, "--min-found", "0.5", "--max-false-per-hour", "0", "--max-delay", "1.6"]) == 0
    assert main([*arguments, "--min-found", "0.6"]) == 1
    assert capsys.readouterr().err == "limit missed: found 50 % of the violations, at least 60 % required\n"


def test_score_sweeps_settings_but_detects_once(
    video: Path, truth: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule of 0.45 s finds the short violation too. The drawn red scores 0.83, so a threshold of 0.9 finds nothing."""
    read = []
    record = recording.record
    monkeypatch.setattr("ppe_edge.scoring.command.record", lambda *a: read.append(a[0]) or record(*a))
    out = tmp_path / "score.json"
    arguments = ["score", str(video), "--truth", str(truth), "--model", str(tiny_model), "--json", str(out), "--tolerance", "0"]
    sweep = ["--sweep", "seconds=0.45,1.5", "--sweep", "alarm_threshold=0.5,0.9", "--sweep", "tracker.keep_s=0.3,1.5"]
    assert main([*arguments, *sweep, "--sweep", "cooldown_s=0"]) == 0
    trials = {
        (s["seconds"], s["alarm_threshold"], s["tracker.keep_s"]): (t["found"], t["median_delay_s"])
        for t in json.loads(out.read_text())["sweep"]
        if (s := t["settings"])
    }
    assert read == ["gate"] and len(trials) == 8
    for keep_s in (0.3, 1.5):
        assert trials[0.45, 0.5, keep_s] == (2, 0.4) and trials[1.5, 0.5, keep_s] == (1, 1.5)
        assert trials[0.45, 0.9, keep_s] == (0, None)


def test_score_applies_settings_of_camera_in_configuration(
    video: Path, tiny_model: Path, make_clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate's own rule needs 3 s, the yard has the general rule; at 2 frames per second."""
    second = make_clip(tmp_path / "second.mp4", SCENES)
    truth = tmp_path / "both.csv"
    truth.write_text("camera,start,end,kind\ngate,2,6,violation\nyard,2,6,violation\n")
    config = tmp_path / "edge.yaml"
    cameras = {
        "gate": {"source": "rtsp://192.0.2.1/a", "rule": {"seconds": 3}, "fps": 2},
        "door": {"source": "rtsp://192.0.2.2/a"},
    }
    config.write_text(
        json.dumps({"model": {"path": str(tiny_model)}, "state_dir": str(tmp_path / "state"), "cameras": cameras})
    )
    assert main(["score", str(video), f"yard={second}", "--truth", str(truth), "--config", str(config)]) == 0
    text, notes = capsys.readouterr()
    assert notes == f"yard: no camera of {config} (gate, door), so its rules and zones do not apply\n"
    assert "found     gate 0:00:02.0-0:00:06.0 (line 2): 0:00:05.0 (track 1)" in text
    assert "found     yard 0:00:02.0-0:00:06.0 (line 3): 0:00:03.5 (track 1)" in text
    assert re.search(r"^all +0:00:20\.\d +2 +2 +0 +2\.25 +3 ", text, re.MULTILINE), text
    assert not (tmp_path / "state").exists()


def test_score_draws_time_line_and_sweep(video: Path, truth: Path, tiny_model: Path, tmp_path: Path) -> None:
    """From 40 to 920, 10 s: the found violation from 2 to 6 s, its alert at 3.5 s, the missed one from 8 to 8.5 s."""
    drawing = tmp_path / "score.svg"
    arguments = ["score", str(video), "--truth", str(truth), "--model", str(tiny_model), "--draw", str(drawing)]
    assert main([*arguments, "--sweep", "seconds=0.45,1.5"]) == 0
    root = ElementTree.fromstring(drawing.read_text())
    bars = [(float(r.attrib["x"]), float(r.attrib["width"]), r.attrib["fill"]) for r in root.iter(f"{SVG}rect")]
    assert bars == [(216.0, 352.0, FOUND), (346.5, 3.0, "black"), (744.0, 44.0, MISSED)]
    trials = {c[0].text: c.attrib["fill"] for c in root.iter(f"{SVG}circle")}
    assert trials == {"seconds 0.45": FOUND, "seconds 1.5": "white"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{video}"], "error: --config: expected the configuration of the box, got nothing: or give --model FILE"),
        (["none.mp4", "--model", "{model}"], "error: none.mp4: expected a video or a folder of images, got no such file"),
        (["{video}", "a/gate={video}", "gate={video}", "--model", "{model}"], "error: VIDEO: gate: two videos have this name: "
         "name them CAMERA=VIDEO, as --truth does"),
        (["{video}", "--model", "{model}", "--sweep", "colour=1"], "error: sweep: expected one of enabled, violation_class, "),
        (["{video}", "--model", "{model}", "--sweep", "frames=3,9"], "error: sweep: frames: frames must be more than half of "),
        (["{video}", "--model", "{model}", "--sweep", "seconds=2,yes"], "error: sweep: seconds: expected a number, got true"),
        (["{video}", "--model", "{model}", "--sweep", "gate.mp4"], "error: sweep: expected SETTING=VALUE,VALUE,... or "),
        (["{video}", "--model", "{model}", "--fps", "0"], "error: --fps: expected more than 0 and at most 1000, got 0"),
        (["{video}", "--model", "{model}", "--min-found", "90"], "error: --min-found: expected a share from 0 to 1, got 90"),
        (["{video}", "--model", "{model}", "--max-delay", "nan"], "error: --max-delay: expected 0 or more, got nan"),
        (["{video}", "--model", "{model}", "--json", "/dev/null/a"], "error: /dev/null/a: cannot be written ("),
        (["{video}", "--model", "{model}", "--draw", "/"], "error: /: expected a file, got a folder"),
    ],
)  # fmt: skip
def test_score_of_user_error_prints_one_line_before_it_plays_anything(
    video: Path,
    truth: Path,
    tiny_model: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ppe_edge.scoring.command.record", pytest.fail)
    filled = [text.format(video=video, model=tiny_model) for text in arguments]
    assert main(["score", *filled, "--truth", str(truth)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1, error


def test_score_of_truth_beyond_end_of_video_names_row_before_it_plays(
    video: Path, truth: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppe_edge.scoring.command.record", pytest.fail)
    truth.write_text(TRUTH + "gate,1:00,1:05,violation\n")
    assert main(["score", str(video), "--truth", str(truth), "--model", str(tiny_model)]) == 2
    message = f"error: {truth}: line 5: start: expected a time within the 10.0 s of gate, got 60 s\n"
    assert capsys.readouterr().err == message


def test_score_of_cut_off_video_says_so(
    truth: Path, tiny_model: Path, tmp_path: Path, make_clip: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_clip(tmp_path / "gate.mkv", SCENES, key_frames=10)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    assert main(["score", str(film), "--truth", str(truth), "--model", str(tiny_model)]) == 2
    said = r"^gate: 1 part cannot be decoded, most recently: its video ends after [345]\.?\d* of 10 s: the file is incomplete"
    error = capsys.readouterr().err
    assert re.match(said, error) and "line 3: start: expected a time within the 4." in error


def test_score_of_broken_video_is_error(
    truth: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "gate.mp4"
    broken.write_bytes(b"no video")
    assert main(["score", str(broken), "--truth", str(truth), "--model", str(tiny_model)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {broken}: gate: ")
