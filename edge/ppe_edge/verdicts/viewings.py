"""The record of who viewed frames without pixelated heads: `state_dir`/viewings.jsonl, a line per viewing."""

import json
import logging
import os
import time
from pathlib import Path

from ppe_edge.delivery.messages import utc

_log = logging.getLogger(__name__)


class ViewingRecord:
    """Appends to the file, readable only by its owner.

    Args:
        file: Created with the first viewing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, alert_id: str, address: str) -> None:
        """Notes a viewing. When this returns, the line survives a power cut.

        Args:
            alert_id: The alert whose frame is shown.
            address: Network address that asked for it.

        Raises:
            OSError: It cannot be written: then the frame must not be shown.
        """
        line = json.dumps({"time": utc(time.time()).isoformat(), "alert": alert_id, "address": address}) + "\n"
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        _log.info("the frame of alert %s was shown to %s", alert_id, address)
