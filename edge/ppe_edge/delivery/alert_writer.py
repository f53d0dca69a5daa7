"""Renders, encodes and stores alerts in a thread of its own, so that a slow disk does not delay the frames of any camera.

One queue carries everything that concerns violations, in the order in which the rules decided it: an alert is always stored
before the message that closes it. An alert survives `kill -9` from the moment that its row is committed to the outbox; sinks
and log see it only after that. Alerts that still wait in the queue, usually for some tens of milliseconds, are lost with the
process, like the tracks that they come from: after a restart, a violation that still lasts raises a new alert.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ppe_edge.delivery.messages import Alert, AlertClosed
from ppe_edge.delivery.outbox import Outbox
from ppe_edge.telemetry import Telemetry

RenderSnapshot = Callable[[], bytes | None]

MAX_WAITING_SNAPSHOTS = 32  # each holds a frame in memory; beyond this, alerts are stored without snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Job:
    message: Alert | AlertClosed
    render: RenderSnapshot | None
    label: str  # for the log
    snapshot_skipped: bool


class AlertWriter:
    """Puts alerts and their closing messages into the outbox, in order.

    Args:
        outbox: Stores the messages.
        telemetry: Counts stored messages and failures.
    """

    def __init__(self, outbox: Outbox, telemetry: Telemetry) -> None:
        self._outbox, self._telemetry = outbox, telemetry
        self._queue: queue.SimpleQueue[_Job | Mapping[str, float] | None] = queue.SimpleQueue()
        self._waiting_snapshots = 0
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="alert-writer", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, message: Alert | AlertClosed, render: RenderSnapshot | None = None, label: str = "") -> None:
        """Queues a message; returns at once.

        Args:
            message: The alert, or the message that closes it.
            render: Returns the snapshot as JPEG; called in the writer's thread. If it fails, the alert is stored without.
            label: What the log calls the alert, such as "bare head".
        """
        overloaded = False
        if render is not None:
            with self._lock:
                overloaded = self._waiting_snapshots >= MAX_WAITING_SNAPSHOTS
                self._waiting_snapshots += not overloaded
        self._queue.put(
            _Job(
                message=message,
                render=None if overloaded else render,
                label=label or message.class_name,
                snapshot_skipped=overloaded,
            )
        )

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Queues when open violations were last seen (id -> UTC epoch seconds); see `Outbox.note_seen`."""
        self._queue.put(dict(violations))

    def is_stuck(self, seconds: float) -> bool:
        """Whether one message has been in progress for longer than this: the disk no longer responds."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > seconds

    def close(self, timeout_s: float) -> bool:
        """Stores what is queued and ends the thread; returns False if that takes longer than `timeout_s`."""
        if self._thread.ident is None:
            self._thread.start()
        if not self._thread.is_alive():
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.error("alerts are still not stored after %.1f s: the disk does not respond", timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            self._busy_since = time.monotonic()
            try:
                if isinstance(job, _Job):
                    self._store(job)
                else:
                    self._outbox.note_seen(job)
            except Exception:  # a bug must not end the thread, and with it all later alerts
                self._telemetry.faults.labels("alert").inc()
                _log.exception("a message could not be stored")
            finally:
                self._busy_since = None

    def _store(self, job: _Job) -> None:
        start = time.perf_counter()
        message = job.message
        self._outbox.put(message, self._render(job))
        self._telemetry.alerts.labels(message.camera, message.kind).inc()
        self._telemetry.observe("alert", time.perf_counter() - start)
        if isinstance(message, Alert):
            _log.info("%s: alert: %s, track %d, score %.2f", message.camera, job.label, message.track, message.score)
        else:
            _log.info("%s: alert closed: track %d, after %.1f s", message.camera, message.track, message.duration_s)

    def _render(self, job: _Job) -> bytes | None:
        if job.snapshot_skipped:
            _log.warning("%s: an alert is stored without its snapshot: the disk cannot keep up", job.message.camera)
            self._outbox.report_missing_snapshot()
        if job.render is None:
            return None
        with self._lock:
            self._waiting_snapshots -= 1
        try:
            return job.render()
        except Exception:  # the alert matters more than its snapshot
            self._telemetry.faults.labels("snapshot").inc()
            _log.exception("%s: the snapshot of an alert could not be rendered", job.message.camera)
            self._outbox.report_missing_snapshot()
            return None
