"""Appends messages to a file, which is rotated when it becomes too large."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.delivery.sinks.payload import encode
from ppe_edge.errors import EdgeError


class JsonlSinkConfig(BaseModel):
    """Messages are appended to a file, one JSON object per line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="The file. Its folder must exist.")
    max_mb: float = Field(
        default=10.0,
        gt=0,
        description="Maximum size in megabytes; a full file is renamed to .1, .2, ...",
    )
    keep_files: int = Field(default=5, ge=1, description="Number of renamed files that are kept.")


def require_writable(config: JsonlSinkConfig) -> None:
    """Checks that the file can be written, without changing or creating anything.

    Raises:
        EdgeError: The file can neither be appended to nor created.
    """
    try:
        if config.path.exists():
            config.path.open("a+b").close()
        else:
            # not the file itself: a running box may create it at this moment
            tempfile.TemporaryFile(dir=config.path.parent).close()
    except OSError as error:
        raise EdgeError(
            setting="sinks.jsonl.path",
            file=config.path,
            expected="a writable file",
            got=error.strerror or str(error),
            hint="choose another file, or create its folder",
        ) from error


class JsonlSink:
    """Appends a line and syncs it to the disk: a confirmed message survives a power cut."""

    def __init__(self, config: JsonlSinkConfig) -> None:
        self._config = config

    def check(self) -> str:
        """Opens the file; see `Sink.check` and `require_writable`."""
        try:
            require_writable(self._config)
        except EdgeError as error:
            raise SinkFailed(str(error), outcome_unknown=False, reached=False) from error
        return f"{self._config.path} is writable"

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Appends one line; see `Sink.send`."""
        line = encode(message) + b"\n"
        try:
            self._rotate(len(line))
            self._append(line)
        except OSError as error:
            raise SinkFailed(f"{self._config.path}: {error.strerror}", outcome_unknown=False, reached=False) from error

    def close(self) -> None:
        """Does nothing: the file is opened for each message."""

    def _append(self, line: bytes) -> None:
        with self._config.path.open("a+b", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            if end and not _ends_a_line(stream, end):  # a crash cut off the last line, which was never confirmed
                end = _after_last_newline(stream, end)
                stream.truncate(end)
            try:
                written = 0
                while written < len(line):
                    written += stream.write(line[written:])
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)  # the disk is full: remove the partial line
                raise

    def _rotate(self, size: int) -> None:
        path = self._config.path
        if not path.exists() or path.stat().st_size + size <= self._config.max_mb * 1e6:
            return
        for number in range(self._config.keep_files, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number}"))


def _ends_a_line(stream: BinaryIO, end: int) -> bool:
    stream.seek(end - 1)
    return stream.read(1) == b"\n"


def _after_last_newline(stream: BinaryIO, end: int) -> int:
    stream.seek(0)
    return stream.read(end).rfind(b"\n") + 1
