"""Delivers messages from the outbox, with one thread per sink, so that a slow sink does not delay the others."""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence

from ppe_edge.backoff import Backoff
from ppe_edge.delivery.outbox import Outbox
from ppe_edge.delivery.records import Delivery
from ppe_edge.delivery.sinks.base import Sink, SinkFailed, SinkRefused

_IDLE_S = 1.0  # how often an idle thread checks for messages whose next attempt is due
_REFUSED_RETRY_S = (60.0, 3600.0)  # delay after the first refusal of a message, doubled each time up to the second value

_log = logging.getLogger(__name__)


class DeliveryThread:
    """Sends the messages of one sink, in order, until it is stopped.

    Args:
        name: Name of the sink in the outbox.
        sink: Destination of the messages.
        outbox: Source of the messages.
        backoff: Delays after failures; by default from half a second to 15 s.

    Attributes:
        delivered: Number of confirmed messages.
        failures: Number of failed attempts.
        last_error: Why the last attempt failed; None if it succeeded.
    """

    def __init__(self, name: str, sink: Sink, outbox: Outbox, backoff: Backoff | None = None) -> None:
        self.name, self._sink, self._outbox = name, sink, outbox
        self._backoff = backoff or Backoff(0.5, 15.0)
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"delivery-{name}", daemon=True)
        self.delivered = self.failures = 0
        self.last_error: str | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def request_stop(self, deadline: float) -> None:
        """Asks the thread to send what is left until `deadline` (`time.monotonic`); it ends early at the first failure."""
        self._deadline = deadline
        self._stop.set()
        self._outbox.wake()

    def join(self, deadline: float) -> bool:
        """Waits until `deadline`; returns False if the sink still hangs. Its message stays in the outbox, marked as tried."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._sink.close()

    def _step(self) -> bool:
        """Sends one message, or waits for one; returns False when the thread must end."""
        if time.monotonic() >= self._deadline:
            return False
        version = self._outbox.version
        try:
            delivery = self._outbox.claim(self.name)
        except sqlite3.Error as error:  # the disk may become readable again
            self._failed(f"outbox: {error}")
            return not self._pause(self._backoff.next())
        if delivery is None:
            if self._stop.is_set():
                return False
            self._outbox.wait(version, _IDLE_S)
            return True
        return self._send(delivery)

    def _send(self, delivery: Delivery) -> bool:
        try:
            self._sink.send(delivery.message, delivery.snapshot)
        except SinkRefused as error:
            first, longest = _REFUSED_RETRY_S
            delay = min(longest, first * 2.0 ** min(delivery.attempts, 16))
            self._outbox.nack(delivery, outcome_unknown=False, delay_s=delay)
            self._failed(f"message {delivery.id} was refused: {error}")
            return True
        except SinkFailed as error:
            self._outbox.nack(delivery, error.outcome_unknown)
            self._failed(str(error))
            return not self._pause(self._backoff.next())
        except Exception as error:  # a bug in a sink must not end the delivery, nor lose the message
            _log.exception("%s: message %s", self.name, delivery.id)
            self._outbox.nack(delivery, outcome_unknown=True)
            self._failed(f"internal error: {type(error).__name__}")
            return not self._pause(self._backoff.next())
        self._outbox.ack(delivery)
        self.delivered += 1
        if self.last_error is not None:
            _log.info("%s: messages are delivered again", self.name)
        self.last_error = None
        self._backoff.reset()
        return True

    def _failed(self, reason: str) -> None:
        self.failures += 1
        if reason != self.last_error:  # a problem that persists is logged once
            _log.warning("%s: %s", self.name, reason)
        self.last_error = reason

    def _pause(self, seconds: float) -> bool:
        """Waits; returns True if the thread was asked to stop."""
        return self._stop.wait(seconds)


def stop_all(threads: Sequence[DeliveryThread], timeout_s: float) -> list[str]:
    """Lets every thread send what is left, all within `timeout_s`; returns the names of those that still hang."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.request_stop(deadline)
    return [thread.name for thread in threads if not thread.join(deadline)]
