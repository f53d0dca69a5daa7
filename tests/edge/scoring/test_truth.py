"""The CSV file with the truth about videos."""

import math
from pathlib import Path

import pytest
from ppe_edge.errors import EdgeError
from ppe_edge.scoring.truth import Event, kinds_of, read_truth

from ppe_yolo.core.contract import ModelContract

CONTRACT = ModelContract(("helmet", "none"), (64, 96), display_names={"none": "bare head"})
KINDS = kinds_of(CONTRACT, "none")


def read(folder: Path, text: str, cameras: tuple[str, ...] = ("gate", "yard")) -> list[Event]:
    file = folder / "events.csv"
    file.write_text(text, encoding="utf-8")
    return read_truth(file, cameras, KINDS)


def test_read_truth_reads_times_and_kinds(tmp_path: Path) -> None:
    text = (
        "camera,start,end,kind,who\n"
        "gate,2,12.5,violation,\n"
        "gate,1:02.5,1:00:01,bare head,a note\n"
        "\n"
        "yard,3,,None,\n"
        "yard,0,1,Bare_Head,\n"
        "yard,4,5,helmet,\n"
        "yard,4,5,ignore,\n"
    )
    events = read(tmp_path, text)
    assert [(e.line, e.camera, e.start, e.end, e.kind) for e in events] == [
        (2, "gate", 2.0, 12.5, "violation"),
        (3, "gate", 62.5, 3601.0, "violation"),
        (5, "yard", 3.0, math.inf, "violation"),
        (6, "yard", 0.0, 1.0, "violation"),
        (7, "yard", 4.0, 5.0, "other"),
        (8, "yard", 4.0, 5.0, "ignore"),
    ]


def test_read_truth_of_spreadsheet_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    (event,) = read(tmp_path, "\ufeffKind;Camera;Start;End\r\nviolation;gate;0:01,5;3,25\r\n")
    assert (event.camera, event.start, event.end, event.kind) == ("gate", 1.5, 3.25, "violation")


def test_read_truth_of_single_video_accepts_other_name_of_camera(tmp_path: Path) -> None:
    (event,) = read(tmp_path, "camera,start,end,kind\ngate,1,2,none\n", ("video_17",))
    assert event.camera == "video_17"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns camera, start, end, kind, got nothing"),
        ("camera,start,kind\n", "line 1: expected the columns camera, start, end, kind, got camera, start, kind"),
        ("camera,start,end,kind\ngate,1,2,none\ngate,2,1,none\n", "line 3: end: expected a time after 2, got 1"),
        ("camera,start,end,kind\ngate,x,2,none\n", "line 2: start: expected seconds or [H:]MM:SS, from the first frame of the "
         "video, got x"),
        ("camera,start,end,kind\ngate,,2,none\n", "line 2: start: expected seconds or [H:]MM:SS, from the first frame of the "
         "video, got nothing"),
        ("camera,start,end,kind\ngate,1:75,2:00,none\n", "line 2: start: expected seconds or [H:]MM:SS, from the first frame "
         "of the video, got 1:75"),
        ("camera,start,end,kind\ngate,nan,2,none\n", "line 2: start: expected seconds or [H:]MM:SS, from the first frame of "
         "the video, got nan"),
        ("camera,start,end,kind\ngate,1,2,dog\n", "line 2: kind: expected one of violation, ignore, helmet, none, bare head, "
         "got dog"),
        ("camera,start,end,kind\ngate,1\n", "line 2: kind: expected one of violation, ignore, helmet, none, bare head, got "
         "nothing"),
        ("camera,start,end,kind\ndoor,1,2,none\n", "line 2: camera: expected one of gate, yard, got door: name each video as "
         "the file does: CAMERA=VIDEO"),
    ],
)  # fmt: skip
def test_read_truth_of_bad_row_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EdgeError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'events.csv'}: {message}"


def test_read_truth_of_missing_file_is_user_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"none\.csv: expected a CSV file, got No such file"):
        read_truth(tmp_path / "none.csv", ("gate",), KINDS)
