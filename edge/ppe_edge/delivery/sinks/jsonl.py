"""Messages as lines of a file, which is started anew when it has grown."""

import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.delivery.sinks.payload import encode
from ppe_edge.errors import EdgeError


class JsonlSinkConfig(BaseModel):
    """Messages go to a file, one JSON object a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="The file; its folder must exist.")
    max_mb: float = Field(default=10.0, gt=0, description="A longer file is renamed to .1, .2, ... and a new one started.")
    keep_files: int = Field(default=5, ge=1, description="How many renamed files are kept.")


def require_writable(config: JsonlSinkConfig) -> None:
    """Tries whether the file can be appended to, or made, and leaves everything as it was.

    Raises:
        EdgeError: It cannot.
    """
    try:
        if config.path.exists():
            config.path.open("a+b").close()
        else:
            tempfile.TemporaryFile(dir=config.path.parent).close()  # a box at work may make the file itself at this moment
    except OSError as error:
        raise EdgeError(
            f"sinks.jsonl.path: {config.path}: expected a file that can be written to, got {error.strerror or error}: "
            "choose another file, or make its folder"
        ) from error


class JsonlSink:
    """Appends and fsyncs: a line that was confirmed survives a power cut."""

    def __init__(self, config: JsonlSinkConfig) -> None:
        self._config = config

    def send(self, body: dict[str, Any], snapshot: Path | None) -> None:
        """Appends one line; see `Sink.send`."""
        line = encode(body) + b"\n"
        try:
            self._rotate(len(line))
            self._append(line)
        except OSError as error:
            raise SinkFailed(f"{self._config.path}: {error.strerror}", outcome_unknown=False) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _append(self, line: bytes) -> None:
        with self._config.path.open("a+b", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            if end and not _ends_a_line(stream, end):  # a crash cut the last line off: it was never confirmed
                end = _after_last_newline(stream, end)
                stream.truncate(end)
            try:
                written = 0
                while written < len(line):
                    written += stream.write(line[written:])
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)  # half a line is none: the disk is full
                raise

    def _rotate(self, size: int) -> None:
        path = self._config.path
        if not path.exists() or path.stat().st_size + size <= self._config.max_mb * 1e6:
            return
        for number in range(self._config.keep_files, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number}"))


def _ends_a_line(stream: Any, end: int) -> bool:
    stream.seek(end - 1)
    return bool(stream.read(1) == b"\n")


def _after_last_newline(stream: Any, end: int) -> int:
    stream.seek(0)
    return int(stream.read(end).rfind(b"\n") + 1)
