"""Encodes a message as bytes, with its snapshot or clip if that is wanted and fits."""

import base64
import logging
from pathlib import Path

from ppe_edge.delivery.messages import AlertClip, Message

_log = logging.getLogger(__name__)


def encode(message: Message, snapshot: Path | None = None, max_bytes: int | None = None) -> bytes:
    """Encodes a message as one line of JSON in UTF-8, without a line break.

    Args:
        message: The message.
        snapshot: A JPEG to add as `snapshot_base64`, or the MP4 of a clip as `clip_base64`; None adds none.
        max_bytes: If the line would become longer, the file is left out. The reference to it stays.
    """
    line = message.to_json().encode()
    if snapshot is None:
        return line
    try:
        content = base64.b64encode(snapshot.read_bytes())
    except FileNotFoundError:  # dropped by the limits of the outbox since the message was claimed
        return line
    name = b"clip_base64" if isinstance(message, AlertClip) else b"snapshot_base64"
    attached = line.removesuffix(b"}") + b',"' + name + b'":"' + content + b'"}'
    return line if max_bytes is not None and len(attached) > max_bytes else attached


class SizeLimit:
    """The size up to which snapshots are attached; learns the receiver's own limit while the box runs.

    A message that fails with its snapshot, and passes right after without it, shows that the receiver takes less.

    Args:
        setting: Name of the setting that limits the size, for the log.
        max_bytes: Its value.

    Attributes:
        max_bytes: Maximum size of a message with its snapshot.
        attached: Whether the last message holds its snapshot.
    """

    def __init__(self, setting: str, max_bytes: int) -> None:
        self._setting, self.max_bytes = setting, max_bytes
        self.attached = False
        self._last = self._rejected = ("", 0)  # message id and size

    def encode(self, message: Message, snapshot: Path | None) -> bytes:
        """Encodes a message, with its snapshot if it fits."""
        line = encode(message, snapshot, self.max_bytes)
        self.attached = snapshot is not None and len(line) > len(message.to_json().encode())
        self._last = message.id, len(line)
        return line

    def failed(self) -> None:
        """Notes that the receiver did not take the last message."""
        if self.attached:
            self._rejected = self._last

    def succeeded(self) -> None:
        """Notes that the receiver took the last message."""
        (message, size), (rejected, rejected_size) = self._last, self._rejected
        if message == rejected and size < rejected_size:
            self.max_bytes = rejected_size - 1
            _log.warning(
                "%s: the receiver did not take %d bytes, but took the message without its snapshot: larger messages are sent "
                "without it until the box restarts; set %s to the receiver's limit",
                self._setting, rejected_size, self._setting,
            )  # fmt: skip
        self._rejected = ("", 0)
