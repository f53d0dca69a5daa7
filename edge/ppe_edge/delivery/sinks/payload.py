"""Encodes a message as bytes, with its snapshot if that is wanted and fits."""

import base64
from pathlib import Path

from ppe_edge.delivery.messages import Message


def encode(message: Message, snapshot: Path | None = None, max_bytes: int | None = None) -> bytes:
    """Encodes a message as one line of JSON in UTF-8, without a line break.

    Args:
        message: The message.
        snapshot: A JPEG to add as `snapshot_base64`; None adds none.
        max_bytes: If the line would become longer, the JPEG is left out. The reference to it stays.
    """
    line = message.to_json().encode()
    if snapshot is None:
        return line
    try:
        jpeg = base64.b64encode(snapshot.read_bytes())
    except FileNotFoundError:  # dropped by the limits of the outbox since the message was claimed
        return line
    attached = line.removesuffix(b"}") + b',"snapshot_base64":"' + jpeg + b'"}'
    return line if max_bytes is not None and len(attached) > max_bytes else attached
