"""Stores alerts in the snapshot writer's thread, so that a slow disk does not delay the frames of the cameras.

One queue carries everything that concerns violations, in the order in which the rules decided it: an alert is always stored
before the message that closes it. An alert counts as raised, and survives `kill -9`, from the moment that its row is committed
to the outbox; sinks and log learn of it only after that. Alerts that still wait in the queue, usually for some tens of
milliseconds, are lost with the process, like the tracks that they come from: after a restart, a violation that still lasts
raises a new alert.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from ppe_edge.delivery.messages import Alert, AlertClosed
from ppe_edge.delivery.outbox import Outbox
from ppe_edge.pictures.writer import SnapshotWriter
from ppe_edge.telemetry import Telemetry

RenderSnapshot = Callable[[], bytes | None]

_log = logging.getLogger(__name__)


class AlertWriter:
    """Puts alerts and the messages that close them into the outbox, in order.

    Args:
        outbox: Stores the messages.
        telemetry: Counts stored messages and failures.
    """

    def __init__(self, outbox: Outbox, telemetry: Telemetry) -> None:
        self._outbox, self._telemetry = outbox, telemetry
        self._writer = SnapshotWriter(telemetry.faults.labels("alert").inc)

    def start(self) -> None:
        """Starts the thread."""
        self._writer.start()

    def submit(self, message: Alert | AlertClosed, render: RenderSnapshot | None = None, label: str = "") -> None:
        """Queues a message; see `SnapshotWriter.submit`.

        Args:
            message: The alert, or the message that closes it.
            render: Returns the snapshot as JPEG; called in the writer's thread. If it fails, the alert is stored without it.
            label: How the log names the class of the alert, such as "bare head".
        """
        self._writer.submit(partial(self._store, message, label or message.class_name), render)

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Queues when open violations were last seen; see `Outbox.note_seen`."""
        self._writer.submit(lambda _: self._outbox.note_seen(violations))

    def is_stuck(self, seconds: float) -> bool:
        """Whether one message has been in progress for longer than this: the disk no longer responds."""
        return self._writer.busy_for() > seconds

    def close(self, timeout_s: float) -> bool:
        """Stores what is queued and ends the thread; returns False if that takes longer than `timeout_s`."""
        stored = self._writer.stop(timeout_s)
        if not stored:
            _log.error("alerts are still not stored after %.1f s: the disk does not respond", timeout_s)
        return stored

    def _store(self, message: Alert | AlertClosed, label: str, snapshot: bytes | None) -> None:
        start = time.perf_counter()
        self._outbox.put(message, snapshot)
        self._telemetry.observe("alert", time.perf_counter() - start)
        self._telemetry.alerts.labels(message.camera, message.kind).inc()
        if isinstance(message, Alert):
            _log.info("%s: alert: %s, track %d, score %.2f", message.camera, label, message.track, message.score)
        else:
            _log.info("%s: alert closed: track %d, after %.1f s", message.camera, message.track, message.duration_s)
