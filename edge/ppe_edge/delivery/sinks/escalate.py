"""Sends alerts to more people if nobody acknowledges them in time.

The messages wait in the outbox until then, so that a restart neither loses nor delays them.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, SecretStr

from ppe_edge.delivery.messages import Alert, AlertClip, Message
from ppe_edge.delivery.sinks.base import SinkFailed, SinkLater
from ppe_edge.delivery.sinks.notify import Address, NotifySink, NotifySinkConfig, Site

URLS_VARIABLE = "PPE_EDGE__SINKS__ESCALATE__URLS"


class EscalateSinkConfig(NotifySinkConfig):
    """Alerts that nobody has acknowledged on the page in time are sent to more people."""

    urls: SecretStr = Field(
        description=f"Addresses, as for sinks.notify. They can only be set by the environment variable {URLS_VARIABLE}."
    )
    after_min: float = Field(10.0, gt=0, le=1440, description="Minutes that people have to judge or acknowledge an alert.")
    title: str = Field(
        "Not acknowledged: {severity}: {object} at {camera}", description="Title, with the fields of sinks.notify.title."
    )


class EscalateSink(NotifySink):
    """Sends alerts as notifications, unless they are acknowledged in time.

    Args:
        config: Texts and the time.
        site: Returns the site; it may change while the box runs.
        address: Where they go; see `open_addresses`.
        is_acknowledged: Whether an alert has a verdict or is acknowledged; may raise `sqlite3.Error`.
        clock: Returns UTC epoch seconds.
    """

    def __init__(
        self,
        config: EscalateSinkConfig,
        site: Callable[[], Site],
        address: Address,
        is_acknowledged: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(config, site, address, clock)
        self._after_s, self._is_acknowledged = 60 * config.after_min, is_acknowledged

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends an alert, or its clip, that is due and not acknowledged; see `Sink.send`. Does nothing for other messages."""
        if not isinstance(message, Alert | AlertClip):
            return
        try:
            if self._is_acknowledged(message.alert if isinstance(message, AlertClip) else message.id):
                return
        except sqlite3.Error as error:
            raise SinkFailed(f"the verdicts cannot be read: {error}", outcome_unknown=False, reached=False) from error
        age = self._clock() - message.time.timestamp()
        if abs(age) < self._after_s:  # an alert from further in the future: the clock was set back, so better send it now
            raise SinkLater(self._after_s - age)
        super().send(message, snapshot)
