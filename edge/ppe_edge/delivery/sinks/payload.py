"""The bytes of a message, with its picture inside where that is wanted and fits."""

import base64
import json
from pathlib import Path
from typing import Any


def encode(body: dict[str, Any], snapshot: Path | None = None, most_bytes: int | None = None) -> bytes:
    """One line of JSON, UTF-8.

    Args:
        body: The message.
        snapshot: A JPEG to add as `snapshot_base64`; None adds none.
        most_bytes: The picture is left out when the line would become longer; its reference stays.
    """
    line = _line(body)
    if snapshot is None:
        return line
    try:
        picture = snapshot.read_bytes()
    except FileNotFoundError:  # dropped by the outbox's limits since the message was claimed
        return line
    attached = _line(body | {"snapshot_base64": base64.b64encode(picture).decode()})
    return line if most_bytes is not None and len(attached) > most_bytes else attached


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
