"""YAML files with the line number of every key."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ppe_yolo.core.errors import UserError

Keys = tuple[str | int, ...]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast, but not always built


@dataclass(frozen=True, order=True, kw_only=True)
class Mistake:
    """A mistake in a file: its line (from 1), its kind, and a message that says what is expected."""

    path: Path
    line: int
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message} [{self.kind}]"


class UnreadableError(UserError):
    """A file that cannot be read or is not YAML.

    Args:
        mistake: The mistake with its line.
    """

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


@dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML file.

    Attributes:
        path: The file.
        value: The content, in plain types.
        text: The lines of the file.
        lines: Line number of each key, by the path of keys that leads to it.
        duplicates: Keys that occur twice in one mapping, at their second occurrence.
    """

    path: Path
    value: Any
    text: tuple[str, ...]
    lines: Mapping[Keys, int]
    duplicates: tuple[Keys, ...]

    def line(self, *keys: str | int) -> int:
        """Line of a key, or of its nearest parent that exists."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def line_of(self, needle: str, *keys: str | int) -> int:
        """Line of a piece of text in the value at `keys`, which may span many lines."""
        first = self.line(*keys)
        return next((n for n in range(first, len(self.text) + 1) if needle in self.text[n - 1]), first)

    def mistake(self, kind: str, message: str, *keys: str | int, needle: str | None = None) -> Mistake:
        """Makes a mistake at a key, or at a piece of text in its value."""
        line = self.line(*keys) if needle is None else self.line_of(needle, *keys)
        return Mistake(path=self.path, line=line, kind=kind, message=message)


def read_document(path: Path) -> Document:
    """Reads a file.

    Raises:
        UnreadableError: There is no such file, or it is not YAML.
    """
    try:
        status = path.stat()
        return _read(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(Mistake(path=path, line=1, kind="unreadable", message=f"cannot be read ({error})")) from error


@lru_cache(maxsize=256)  # several pipelines use the same component
def _read(path: Path, *status: int) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        line = 1 if mark is None else mark.line + 1
        raise UnreadableError(Mistake(path=path, line=line, kind="unreadable", message=f"expected YAML: {reason}")) from error
    lines: dict[Keys, int] = {}
    duplicates: list[Keys] = []
    if node is not None:
        _record_lines(node, (), lines, duplicates)
    return Document(path=path, value=value, text=tuple(text.split("\n")), lines=lines, duplicates=tuple(duplicates))


def _record_lines(node: yaml.Node, keys: Keys, lines: dict[Keys, int], duplicates: list[Keys]) -> None:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*keys, str(key.value))
            if path in lines:
                duplicates.append(path)
            lines[path] = key.start_mark.line + 1
            _record_lines(value, path, lines, duplicates)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _record_lines(value, (*keys, number), lines, duplicates)
