"""Text files of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, with or without a byte order mark, or of a UTF-16 file, as PowerShell writes.

    Raises:
        UserError: The file cannot be read as one of these.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return path.read_text(encoding).split("\n")
    except (OSError, UnicodeError) as error:
        raise UserError(file=path, expected="a UTF-8 text file", got=str(error), hint="save it as UTF-8") from error
