"""Image checks of a part of a data set, for a job on several machines; `ppe-yolo prepare --checks` merges the parts."""

import json
from collections.abc import Sequence
from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import IMAGE_SUFFIXES
from ppe_yolo.data.audit.image_check import VERSION, ImageCheck, check_image
from ppe_yolo.data.images import ImageError

_NO_CHECK = "{}"  # Azure fails a mini-batch that returns fewer lines than files


def check_files(files: Sequence[str]) -> list[str]:
    """Checks the images among some files.

    Returns:
        One line of JSON per file, `{}` for other files and for images that cannot be used: the merge explains these.
    """
    return [_check(file) for file in files]


def _check(file: str) -> str:
    if not file.lower().endswith(IMAGE_SUFFIXES):
        return _NO_CHECK
    try:
        return json.dumps({"version": VERSION, **check_image(file).to_dict()})
    except ImageError:
        return _NO_CHECK


def read_lines(path: Path) -> dict[str, ImageCheck]:
    """Reads the lines of `check_files`, in any order: hash of the content -> result.

    Raises:
        UserError: It is another file, or written with other versions of the decoders.
    """
    checks = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                values = json.loads(line)
                if not values:
                    continue
                if values.get("version") != VERSION:
                    raise UserError(
                        file=path,
                        item=f"line {number}",
                        expected=f"version {VERSION}",
                        got=str(values.get("version")),
                        hint="use the same environment in both jobs",
                    )
                check = ImageCheck.from_dict(values)
                checks[check.content_hash] = check
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error
    except (ValueError, AttributeError) as error:
        raise UserError(
            file=path, expected="lines of scripts/check_images.py", got=f"something else ({error!r:.80})"
        ) from error
    return checks
