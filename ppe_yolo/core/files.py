"""Names of files to write, atomic writes, which leave a file whole or not there at all, and hashes of files."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppe_yolo.core.errors import UserError

_SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx", ".trashes", "$recycle.bin"})
_SYSTEM_FILES |= {".ipynb_checkpoints", "@eadir"}  # copies by Jupyter, thumbnails by Synology
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_lfs_pointer(file: str | Path, content: bytes, error: type[UserError] = UserError) -> None:
    """Raises an error if a file, of which at least the beginning is given, was not downloaded from Git's large file storage."""
    if content.startswith(_LFS_POINTER):
        got = "a Git LFS pointer, which says where the file is"
        raise error(file=file, expected="the file itself", got=got, hint="download it with `git lfs pull`")


def is_system_file(name: str) -> bool:
    """Whether a system or tool wrote a file or folder of this name for itself, such as `._a.jpg` or `.DS_Store`."""
    return name.startswith("._") or name.lower() in _SYSTEM_FILES


def require_utf8(path: str | Path) -> None:
    """Raises UserError if a name is not valid UTF-8, so that no report could name the file."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        name = os.fsencode(path).decode(errors="backslashreplace")
        raise UserError("its name is not valid UTF-8", file=name, hint="rename the file, and what refers to it") from error


def require_output(out: Path, suffix: str, source: Path | None = None) -> None:
    """Raises UserError if the file to write has another suffix, or is the file that it would be made of."""
    if out.suffix != suffix:
        got = repr(out.suffix) if out.suffix else "no suffix"
        hint = f"add {suffix} to the name"
        raise UserError(setting="out", file=out, expected=f"a name that ends in {suffix}", got=got, hint=hint)
    if source is not None and out.resolve() == source.resolve():
        raise UserError(
            setting="out", file=out, problem="is also the input, which would be overwritten", hint="choose another name"
        )


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path in the same folder and renames it to `path` when the block ends.

    If the block fails, the temporary file is deleted and `path` stays as it was. Missing folders are created. The content is
    on the disk before the rename, so a power cut leaves the old file or the new one.

    Args:
        path: The file to write.
        mode: Its permissions.

    Raises:
        OSError: The folder or the file cannot be written (read-only, disk full, a file in the way, a device).
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # root would replace /dev/null by a file
        raise OSError("a device or a pipe, not a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # keep the suffix, since image writers choose the format by it
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Like `replacing`, for outputs that the user asked for.

    Raises:
        UserError: The folder or the file cannot be written; names the file and the reason.
    """
    try:
        with replacing(path, mode) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", file=path) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; see `atomic_path`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; see `atomic_path`.

    Raises:
        ValueError: The value contains NaN or infinity, which are not JSON.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def blake2b_file(path: str | Path) -> str:
    """Returns the 128-bit BLAKE2b digest of a file as hex: its name in provenance and in evaluations.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
