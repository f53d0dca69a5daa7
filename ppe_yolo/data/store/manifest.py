"""Manifests: the files of a version with their hashes."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath

from ppe_yolo.core.errors import UserError

SCHEMA = 1
VERSION = re.compile(r"[0-9a-f]{16}")
AT_ONCE = 8  # files that are read or transferred in parallel; each is held in memory


@dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """One file: path relative to the folder, with slashes; size in bytes; SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version that is completely in the store.

    Attributes:
        version: 16 hexadecimal digits that depend on paths and hashes.
        created: Time of the push, ISO 8601 in UTC.
        files: The files, in the order of their paths.
    """

    version: str
    created: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Size of all files, bytes."""
        return sum(f.size for f in self.files)


def list_files(folder: Path) -> list[StoredFile]:
    """All files of a folder with their hashes, in the order of their paths. Hidden files and folders are left out.

    Raises:
        UserError: There is a link to a folder, or a file that cannot be read.
    """
    paths: list[Path] = []
    for above, folders, names in os.walk(folder):
        for name in folders:
            if (Path(above) / name).is_symlink():
                raise UserError(
                    file=Path(above) / name,
                    expected="a folder",
                    got="a link to a folder",
                    hint="replace the link by the folder",
                )
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(above) / name for name in names if not name.startswith(".")]

    def describe(path: Path) -> StoredFile:
        data = read_bytes(path)
        return StoredFile(path.relative_to(folder).as_posix(), len(data), hashlib.sha256(data).hexdigest())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(describe, paths))


def version_of(files: Iterable[StoredFile]) -> str:
    """Name of a version: 16 hexadecimal digits that depend on paths and hashes."""
    lines = [f"{f.sha256} {f.size} {f.path}\n" for f in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def parse_manifest(data: bytes, version: str, where: str) -> Manifest:
    """Reads a manifest. It is untrusted input.

    Args:
        data: Content of the manifest.
        version: The version that it is for.
        where: Its location, for messages.

    Raises:
        UserError: It was not written by `push`, belongs to another version, or has a path that leads out of the folder.
    """
    try:
        content = json.loads(data)
        if content["schema"] != SCHEMA:
            raise UserError(
                file=where, expected=f"schema {SCHEMA}", got=repr(content["schema"]), hint="it was written by a newer ppe-yolo"
            )
        files = tuple(StoredFile(f["path"], f["size"], f["sha256"]) for f in content["files"])
        created = datetime.fromisoformat(content["created"]).isoformat()
        is_valid = all(type(f.path) is str and type(f.size) is int and f.size >= 0 and type(f.sha256) is str for f in files)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            file=where, expected="a manifest written by `ppe-yolo data push`", got=f"something else ({error!r:.80})"
        ) from None
    for file in files if is_valid else ():
        if not is_safe(file.path):
            raise UserError(f"the path {file.path!r} leads out of the folder", file=where, hint="do not use this store")
    if not is_valid or len({f.path for f in files}) != len(files) or version_of(files) != version:
        raise UserError("the content does not belong to this version: it was changed after the push", file=where)
    return Manifest(version, created, files)


def is_safe(path: str) -> bool:
    """Whether a relative path stays inside its folder on any operating system, and is in canonical form."""
    parts = path.split("/")
    odd = "\\" in path or "\0" in path or bool(PureWindowsPath(path).drive)
    return not odd and all(part not in ("", "..") and not part.startswith(".") for part in parts)


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", file=path) from error
