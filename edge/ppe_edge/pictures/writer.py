"""Encodes and stores snapshots in a thread of their own, so that a slow disk does not delay the frames of the cameras."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

CAPACITY = 16  # jobs that wait; each may hold the memory of a frame

_log = logging.getLogger(__name__)

Render = Callable[[], bytes | None]
Store = Callable[[bytes | None], object]


@dataclass(frozen=True)
class _Job:
    store: Store
    render: Render | None


class SnapshotWriter:
    """Renders snapshots and stores them with their messages, in the order in which they were submitted.

    Submit every message of a camera here, those without a snapshot too: otherwise the end of a violation could be stored before
    its alert. A message is stored even if its snapshot fails.

    Args:
        on_fault: Called after each job that failed, from the writer's thread.
        capacity: Number of jobs that may wait.
    """

    def __init__(self, on_fault: Callable[[], None] = lambda: None, capacity: int = CAPACITY) -> None:
        self._on_fault = on_fault
        self._jobs: queue.Queue[_Job | None] = queue.Queue(capacity)
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)

    def start(self) -> None:
        """Starts the thread. Jobs may be submitted before."""
        self._thread.start()

    def submit(self, store: Store, render: Render | None = None) -> None:
        """Queues a job. Blocks while the queue is full: a disk that cannot keep up delays frames, but loses no alert.

        Args:
            store: Stores the message together with the JPEG from `render`, or None without one.
            render: Returns the JPEG, or None if there is none.
        """
        self._jobs.put(_Job(store, render))

    def busy_for(self) -> float:
        """Returns how long the current job has been running, in seconds; 0 if the thread is idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """Stores what was submitted and ends the thread; returns whether that took no longer than `timeout` seconds.

        Nothing may be submitted afterwards. Another call does no harm.
        """
        if self._thread.ident is None:  # jobs may have been submitted already
            self._thread.start()
        elif not self._thread.is_alive():
            return True
        end = time.monotonic() + timeout
        try:
            self._jobs.put(None, timeout=max(0.0, timeout))
        except queue.Full:
            return False
        self._thread.join(max(0.0, end - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._busy_since = time.monotonic()
            snapshot = None
            if job.render is not None:
                try:
                    snapshot = job.render()
                except Exception:  # the alert matters more than its snapshot
                    _log.exception("a snapshot could not be made: its alert is sent without it")
                    self._on_fault()
            try:
                job.store(snapshot)
            except Exception:
                _log.exception("a message could not be stored")
                self._on_fault()
            self._busy_since = None
