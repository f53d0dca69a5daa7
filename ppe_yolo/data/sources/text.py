"""Text files of a data set."""

from pathlib import Path

from ppe_yolo.core.errors import UserError


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: The file cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(file=path, expected="a UTF-8 text file", got=str(error), hint="save it as UTF-8") from error
