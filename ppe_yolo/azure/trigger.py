"""Triggers of a retraining: limits of figures that an earlier step wrote."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ppe_yolo.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A limit of a figure in a JSON file, such as `samples.json:unsure_share>0.2`.

    Attributes:
        file: The file.
        key: Keys that lead to the figure, separated by dots.
        sign: < or >.
        limit: The limit.
    """

    file: Path
    key: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Trigger":
        """Parses `FILE:KEY<LIMIT` or `FILE:KEY>LIMIT`.

        Raises:
            UserError: It is neither.
        """
        match = re.fullmatch(r"(.+):([\w.@-]+)([<>])(\d+(?:\.\d+)?)", text)
        if match is None:
            raise UserError(setting="only_if", expected="FILE:KEY<LIMIT or FILE:KEY>LIMIT", got=repr(text))
        return cls(file=Path(match[1]), key=match[2], sign=match[3], limit=float(match[4]))

    @property
    def name(self) -> str:
        """The trigger without its file."""
        return f"{self.key}{self.sign}{self.limit:g}"

    def value(self) -> float:
        """Reads the figure.

        Raises:
            UserError: The file cannot be read, or has no such figure.
        """
        try:
            value = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot be read ({error})", setting="only_if", file=self.file) from error
        for key in self.key.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(setting="only_if", file=self.file, expected=f"a number {self.key}", got=repr(value))
        return float(value)

    def holds(self) -> bool:
        """Whether the figure is beyond the limit."""
        return self.value() < self.limit if self.sign == "<" else self.value() > self.limit
