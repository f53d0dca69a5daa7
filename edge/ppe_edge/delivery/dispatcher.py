"""Carries messages out of the outbox, a thread a sink, so that a slow sink holds up no other."""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence

from ppe_edge.backoff import Backoff
from ppe_edge.delivery.outbox import Delivery, Outbox
from ppe_edge.delivery.sinks.base import Sink, SinkFailed, SinkRefused

_LOG = logging.getLogger(__name__)
_IDLE_S = 1.0  # the outbox is looked at so often even if nobody puts anything, for messages that wait for their time
_REFUSED_AGAIN_S = (60.0, 3600.0)  # a refused message is tried again after the first, doubled up to the second


class DeliveryThread:
    """Sends one sink's messages in order until stopped.

    Args:
        name: The sink's name in the outbox.
        sink: Where to.
        outbox: Where from.
        backoff: Waits between failures; the default from half a second to 15 s.
    """

    def __init__(self, name: str, sink: Sink, outbox: Outbox, backoff: Backoff | None = None) -> None:
        self.name, self._sink, self._outbox = name, sink, outbox
        self._backoff = backoff or Backoff(0.5, 15.0)
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"delivery-{name}", daemon=True)
        self.delivered = self.failures = 0
        self.last_error: str | None = None  # None while it works

    def start(self) -> None:
        """Begins to send; returns at once."""
        self._thread.start()

    def ask_to_stop(self, deadline: float) -> None:
        """Sends what is left while it works, until `deadline` (`time.monotonic`); the first failure ends it."""
        self._deadline = deadline
        self._stop.set()
        self._outbox.wake()

    def join(self, deadline: float) -> bool:
        """Waits until `deadline`; False when the sink still hangs, whose message then stays in the outbox, marked."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._sink.close()

    def _step(self) -> bool:
        """Sends one message or waits; False when it is time to end."""
        if time.monotonic() >= self._deadline:
            return False
        version = self._outbox.version
        try:
            delivery = self._outbox.claim(self.name)
        except sqlite3.Error as error:  # a disk that cannot be read may be readable again
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
            self._sink.send(delivery.body, delivery.snapshot)
        except SinkRefused as error:
            first, most = _REFUSED_AGAIN_S
            self._outbox.nack(delivery, outcome_unknown=False, delay_s=min(most, first * 2.0 ** min(delivery.attempts, 16)))
            self._failed(f"message {delivery.id} was refused: {error}")
            return True
        except SinkFailed as error:
            self._outbox.nack(delivery, error.outcome_unknown)
            self._failed(str(error))
            return not self._pause(self._backoff.next())
        except Exception as error:  # a mistake in a sink must not end the delivery, nor lose the message
            _LOG.exception("%s: message %s", self.name, delivery.id)
            self._outbox.nack(delivery, outcome_unknown=True)
            self._failed(f"internal error: {type(error).__name__}")
            return not self._pause(self._backoff.next())
        self._outbox.ack(delivery)
        self.delivered += 1
        if self.last_error is not None:
            _LOG.info("%s: messages are delivered again", self.name)
        self.last_error = None
        self._backoff.reset()
        return True

    def _failed(self, reason: str) -> None:
        self.failures += 1
        if reason != self.last_error:  # a lasting trouble is logged once
            _LOG.warning("%s: %s", self.name, reason)
        self.last_error = reason

    def _pause(self, seconds: float) -> bool:
        """Waits; True when asked to stop."""
        return self._stop.wait(seconds)


def stop_all(threads: Sequence[DeliveryThread], timeout_s: float) -> list[str]:
    """Lets every thread send what is left, all within `timeout_s`; returns the names of those that still hang."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.ask_to_stop(deadline)
    return [thread.name for thread in threads if not thread.join(deadline)]
