"""Renders snapshots and stores alerts and samples in a thread of its own, so that a slow disk does not delay any frame.

One queue carries everything that concerns violations, in the order in which the rules decided it: an alert is always stored
before the message that closes it. An alert counts as raised, and survives `kill -9`, from the moment that its row is committed
to the outbox; sinks and log learn of it only after that. Alerts that still wait in the queue, usually for some tens of
milliseconds, are lost with the process, like the tracks that they come from: after a restart, a violation that still lasts
raises a new alert.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from ppe_edge.delivery.messages import Alert, AlertClip, AlertClosed
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.monitoring.telemetry import Telemetry

CAPACITY = 16  # jobs that wait; each may hold the memory of a frame

RenderSnapshot = Callable[[], bytes | None]

_log = logging.getLogger(__name__)


class AlertWriter:
    """Renders snapshots, and puts alerts and the messages that close them into the outbox, in order.

    Args:
        outbox: Stores the messages.
        telemetry: Counts stored messages and failures.
        capacity: Number of jobs that may wait.
    """

    def __init__(self, outbox: Outbox, telemetry: Telemetry, capacity: int = CAPACITY) -> None:
        self._outbox, self._telemetry = outbox, telemetry
        self._jobs: queue.Queue[tuple[Callable[[], object], str] | None] = queue.Queue(capacity)  # what to do, its name
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)

    def start(self) -> None:
        """Starts the thread. Messages may be submitted before."""
        self._thread.start()

    def submit(self, message: Alert | AlertClosed | AlertClip, render: RenderSnapshot | None = None, label: str = "") -> None:
        """Queues a message. Blocks while the queue is full: a disk that cannot keep up delays frames, but loses no alert.

        Args:
            message: The alert, its clip, or the message that closes it.
            render: Returns the snapshot or the clip; called in the writer's thread. If it fails, the message is stored
                without it.
            label: How the log names the class of the alert, such as "bare head".
        """
        job = partial(self._store, message, render, label or message.class_name)
        self._jobs.put((job, f"{message.camera}: the {message.kind} of track {message.track}"))

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Queues when open violations were last seen; see `Outbox.note_seen`."""
        self._jobs.put((partial(self._outbox.note_seen, violations), "when open violations were last seen"))

    def submit_spare(self, job: Callable[[], object], what: str) -> None:
        """Queues work that an alert must not wait for: drops it while half of the queue is taken.

        Args:
            job: Does it, in the writer's thread.
            what: How the log names it.
        """
        if 2 * self._jobs.qsize() >= self._jobs.maxsize:
            _log.warning("%s is dropped: the disk does not keep up", what)
            return
        self._jobs.put((job, what))

    def is_stuck(self, seconds: float) -> bool:
        """Whether one job has been in progress for longer than this: the disk no longer responds."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > seconds

    def close(self, timeout_s: float) -> bool:
        """Stores what is queued and ends the thread; returns False if that takes longer than `timeout_s`.

        Nothing may be submitted afterwards. Another call does no harm.
        """
        if self._thread.ident is None:  # messages may have been submitted already
            self._thread.start()
        end = time.monotonic() + timeout_s
        if self._thread.is_alive():
            try:
                self._jobs.put(None, timeout=timeout_s)
                self._thread.join(max(0.0, end - time.monotonic()))
            except queue.Full:
                pass
        stored = not self._thread.is_alive()
        if not stored:
            _log.error("alerts are still not stored after %.1f s: the disk does not respond", timeout_s)
        return stored

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, what = entry
            self._busy_since = time.monotonic()
            try:
                job()
            except Exception:
                self._note_fault(f"{what} could not be stored")
            self._busy_since = None

    def _store(self, message: Alert | AlertClosed | AlertClip, render: RenderSnapshot | None, label: str) -> None:
        snapshot = None
        if render is not None:
            try:
                snapshot = render()
            except Exception:  # the alert matters more than its snapshot
                what = "clip" if isinstance(message, AlertClip) else "snapshot"
                problem = f"the {what} of track {message.track} could not be made (see below): its message is sent without it"
                self._note_fault(f"{message.camera}: {problem}")
        with self._telemetry.timed("alert"):
            self._outbox.put(message, snapshot)
        self._telemetry.alerts.labels(message.camera, message.kind).inc()
        if isinstance(message, Alert):
            _log.info("%s: alert: %s, track %d, score %.2f", message.camera, label, message.track, message.score)
        elif isinstance(message, AlertClip):
            _log.info("%s: clip of track %d, %.1f s", message.camera, message.track, message.duration_s)
        else:
            _log.info("%s: alert closed: track %d, after %.1f s", message.camera, message.track, message.duration_s)

    def _note_fault(self, problem: str) -> None:
        _log.exception(problem)
        self._telemetry.faults.labels("alert").inc()
