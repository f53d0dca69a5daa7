"""The folder that holds the snapshots and clips of alerts."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class SnapshotFolder:
    """JPEG and MP4 files, named after the alerts that they belong to.

    Args:
        path: The folder; `create` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Creates the folder if it does not exist.

        Raises:
            OSError: It cannot be created.
        """
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, file: str, content: bytes) -> str:
        """Writes a new file and returns its SHA-256; when this returns, the file survives a power cut.

        Raises:
            OSError: The file cannot be written. Nothing of it is left behind.
        """
        path = self.path / file
        try:
            with path.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return hashlib.sha256(content).hexdigest()

    def delete(self, files: Iterable[str]) -> None:
        """Deletes files; those that do not exist are ignored.

        Raises:
            OSError: A file cannot be deleted.
        """
        for file in files:
            (self.path / file).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Returns the size of each file, in bytes.

        Raises:
            OSError: The folder cannot be read.
        """
        return {entry.name: entry.stat().st_size for entry in self.path.iterdir()}
