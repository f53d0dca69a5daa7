"""The ground truth of videos: a CSV file that says what happens when."""

import csv
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppe_edge.errors import EdgeError
from ppe_yolo.core.contract import ModelContract

COLUMNS = ("camera", "start", "end", "kind")
Kind = Literal["violation", "ignore", "other"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A row of the file.

    Attributes:
        line: Its line in the file.
        camera: The camera, or the video.
        start: Seconds from the first frame of the video.
        end: Seconds; infinite if it lasts until the end of the video.
        kind: `violation`: exactly one alert is expected. `ignore`: alerts count neither as right nor as false. `other`: people
            of another class, such as with a helmet; no alert is expected.
    """

    line: int
    camera: str
    start: float
    end: float
    kind: Kind


def kinds_of(contract: ModelContract, violation_class: str) -> dict[str, Kind]:
    """Returns what may stand in the column `kind`: `violation`, `ignore`, and the classes of the model by both names."""
    kinds: dict[str, Kind] = {"violation": "violation", "ignore": "ignore"}
    for name in contract.class_names:
        kind: Kind = "violation" if name == violation_class else "other"
        kinds |= {name: kind, contract.display_name(name): kind}
    return kinds


def read_truth(path: Path, cameras: Collection[str], kinds: Mapping[str, Kind]) -> list[Event]:
    """Reads the file: columns `camera`, `start`, `end`, `kind`, in any order; others are ignored.

    Times are seconds or [H:]MM:SS, both with decimals. An empty `end` means until the end of the video. Semicolons as
    separators, and commas as decimal points next to them, are accepted, as spreadsheets write them.

    Args:
        path: The file.
        cameras: Names that may stand in the column `camera`. A single one matches any single name in the file.
        kinds: See `kinds_of`.

    Raises:
        EdgeError: The file or a row cannot be used; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EdgeError(file=path, expected="a CSV file", got=error.strerror or "an error") from error
    except UnicodeDecodeError as error:
        raise EdgeError(file=path, expected="a CSV file in UTF-8", got="other characters") from error
    header, _, _ = text.partition("\n")
    reader = csv.DictReader(text.splitlines(), delimiter=";" if ";" in header else ",", skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in COLUMNS if name not in reader.fieldnames]
    if missing:
        got = ", ".join(reader.fieldnames) or "nothing"
        raise EdgeError(file=path, item="line 1", expected=f"the columns {', '.join(COLUMNS)}", got=got)
    known = {_plain(name): kind for name, kind in kinds.items()}
    events = []
    for row in reader:
        values = {name: (row[name] or "").strip() for name in COLUMNS}
        if not any(values.values()):
            continue
        events.append(_event(path, reader.line_num, values, known, kinds))
    return _with_known_cameras(path, events, cameras)


def _event(path: Path, line: int, values: Mapping[str, str], known: Mapping[str, Kind], kinds: Collection[str]) -> Event:
    where = f"line {line}"
    kind = known.get(_plain(values["kind"]))
    if kind is None:
        expected = f"one of {', '.join(dict.fromkeys(kinds))}"
        raise EdgeError(file=path, item=f"{where}: kind", expected=expected, got=values["kind"] or "nothing")
    start = _seconds(path, f"{where}: start", values["start"])
    end = _seconds(path, f"{where}: end", values["end"]) if values["end"] else math.inf
    if end <= start:
        raise EdgeError(file=path, item=f"{where}: end", expected=f"a time after {values['start']}", got=values["end"])
    return Event(line=line, camera=values["camera"], start=start, end=end, kind=kind)


def _with_known_cameras(path: Path, events: list[Event], cameras: Collection[str]) -> list[Event]:
    named = {event.camera for event in events}
    if len(cameras) == 1 and len(named) == 1:
        (camera,) = cameras
        return [Event(line=e.line, camera=camera, start=e.start, end=e.end, kind=e.kind) for e in events]
    for event in events:
        if event.camera not in cameras:
            raise EdgeError(
                file=path,
                item=f"line {event.line}: camera",
                expected=f"one of {', '.join(sorted(cameras))}",
                got=event.camera or "nothing",
                hint="name each video as the file does: CAMERA=VIDEO",
            )
    return events


def _seconds(path: Path, item: str, text: str) -> float:
    parts = text.replace(",", ".").split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [math.nan]
    is_valid = len(numbers) <= 3 and all(math.isfinite(n) and n >= 0 for n in numbers)
    if not is_valid or any(n >= 60 for n in numbers[1:]):
        expected = "seconds or [H:]MM:SS, from the first frame of the video"
        raise EdgeError(file=path, item=item, expected=expected, got=text or "nothing")
    return sum(n * 60.0**power for power, n in enumerate(reversed(numbers)))


def _plain(kind: str) -> str:
    return kind.lower().replace("_", " ").replace("-", " ").strip()
