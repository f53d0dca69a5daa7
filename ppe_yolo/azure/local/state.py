"""What a local run knows of its steps from before: which succeeded, and with what."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ppe_yolo.core.errors import UserError

IGNORE_FILE = ".amlignore"  # which Azure obeys, too, when it takes the code


@contextmanager
def only_one(folder: Path) -> Iterator[IO[str]]:
    """Keeps a second run out of the folder; steps that outlive a killed run keep it out, too, if they inherit the file.

    Raises:
        UserError: There is another one, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{folder}: another run is at work there: wait for it, or choose another --out") from error
            yield file
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def read_record(path: Path) -> dict[str, Any]:
    """What was recorded of a step; empty where it has not begun."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the record of a step, cannot be read ({error}): choose another --out") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected the record of a step, got other JSON: choose another --out")
    return record


def set_aside(folder: Path) -> Path | None:
    """Moves what a step left with other inputs out of the way; nothing is deleted. None where there is nothing."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    return folder.rename(target)


def digest_of_data(path: Path) -> str:
    """Changes when a file of the data is added, removed or changed; contents are not read, there may be many photos."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    content = [(str(f.relative_to(path)), (stat := f.stat()).st_size, stat.st_mtime_ns) for f in files]
    return _digest(content)


def digest_of_code(folder: Path) -> str:
    """Changes with every program, recipe and template of a checkout, outside the folders that .amlignore names."""
    ignore = folder / IGNORE_FILE
    ignored = {line.strip("/ ") for line in ignore.read_text().splitlines()} if ignore.is_file() else set()
    content = []
    for path in sorted(folder.iterdir()):
        if path.name in ignored or path.name.startswith(".") or not path.is_dir():
            continue
        for file in sorted(path.rglob("*")):
            if file.suffix in (".py", ".yaml", ".yml", ".html") and file.is_file():
                content.append((str(file.relative_to(folder)), hashlib.blake2b(file.read_bytes()).hexdigest()))
    return _digest(content)


def digest_of_inputs(values: Mapping[str, Any]) -> str:
    """Of what a step is given, in plain types."""
    return _digest(values)


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
