"""The exception for mistakes of the user, as opposed to faults of the program."""

from pathlib import Path


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line, derived from the fields: `file: item: expected ..., got ...: hint`. Fields that are None are left
    out. The command line prints the line without a traceback and exits with code 2.

    Args:
        problem: What is wrong, where "expected ..., got ..." does not say it better.
        setting: Name of the parameter with the wrong value, such as `class_map`. Each command line shows it as its own flag.
        file: The file or folder to look at.
        item: The part of the file, such as an object, a line or a key.
        expected: What was expected.
        got: What was there instead.
        hint: How to fix it.
    """

    def __init__(
        self,
        problem: str | None = None,
        *,
        setting: str | None = None,
        file: str | Path | None = None,
        item: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__()
        self.problem = problem
        self.setting = setting
        self.file = None if file is None else str(file)
        self.item = item
        self.expected = expected
        self.got = got
        self.hint = hint

    def describe(self, setting: str | None = None) -> str:
        """Returns the message, with `setting` shown as given: a flag of a command line, or a key of a configuration file."""
        comparison = [f"expected {self.expected}"] if self.expected is not None else []
        comparison += [f"got {self.got}"] if self.got is not None else []
        parts = [setting or self.setting, self.file, self.item, self.problem, ", ".join(comparison), self.hint]
        return ": ".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.describe()
