"""State of a local run: the lock of its folder, the records of its steps, and digests that tell whether inputs changed."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ppe_yolo.azure.yaml.pipeline import ignored_names
from ppe_yolo.core.errors import UserError


@contextmanager
def lock_folder(folder: Path) -> Iterator[IO[str]]:
    """Locks a run folder. Steps that inherit the file keep the lock if they outlive a killed run.

    Raises:
        UserError: Another run holds the lock, or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    "another run is active in this folder", file=folder, hint="wait for it or choose another --out"
                ) from error
            yield file
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", file=folder) from error


def read_record(path: Path) -> dict[str, Any]:
    """Reads the record of a step; empty if the step has not started yet.

    Raises:
        UserError: The file is not such a record.
    """
    expected, hint = "the record of a step", "choose another --out"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", file=path, expected=expected, hint=hint) from error
    if not isinstance(record, dict):
        raise UserError(file=path, expected=expected, got="other JSON", hint=hint)
    return record


def rename_outputs(path: Path) -> Path | None:
    """Renames outputs of an execution with other inputs; nothing is deleted. None if there are none."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    number = 1
    while (target := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    return path.rename(target)


def digest_of_data(path: Path) -> str:
    """Digest of names, sizes and modification times. File contents are not read, since there may be many images."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    content = [(str(f.relative_to(path)), (stat := f.stat()).st_size, stat.st_mtime_ns) for f in files]
    return digest_of_values(content)


def digest_of_code(folder: Path) -> str:
    """Digest of all code, recipes and templates of a checkout, without the folders that .amlignore excludes."""
    content, ignored = [], ignored_names(folder)
    for path in sorted(folder.iterdir()):
        if path.name in ignored or path.name.startswith(".") or not path.is_dir():
            continue
        for file in sorted(path.rglob("*")):
            if file.suffix in (".py", ".yaml", ".yml", ".j2") and file.is_file():
                content.append((str(file.relative_to(folder)), hashlib.blake2b(file.read_bytes()).hexdigest()))
    return digest_of_values(content)


def digest_of_values(value: Any) -> str:
    """Digest of values in plain types."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
