"""Text files of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, with or without a byte order mark, or of a UTF-16 file, as PowerShell writes.

    Raises:
        OSError: The file cannot be read.
        UserError: It is no such text.
    """
    with path.open("rb") as file:
        start = file.read(2)
    try:
        return path.read_text("utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise UserError(file=path, expected="a UTF-8 text file", got=str(error), hint="save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, see `read_text`.

    Raises:
        UserError: The file cannot be read as one of these.
    """
    try:
        return read_text(path).split("\n")
    except OSError as error:
        raise UserError(file=path, expected="a UTF-8 text file", got=str(error)) from error
