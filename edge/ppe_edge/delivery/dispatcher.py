"""Delivers messages from the outbox, with one thread per sink, so that a slow sink does not delay the others.

Messages are delivered in order. A message that a sink never takes does not hold up the ones after it:

- The sink rejects it (`SinkRefused`): it is sent again without its snapshot if that may help, else it is set aside.
- It fails although the receiver was reached, such as a broker that disconnects: after two attempts it is sent without its
  snapshot if its size may be the cause. After `_SUSPECT_AFTER` attempts the following messages are tried, each once. When one
  of them is delivered, the receiver works: the suspects get one more attempt, and one without the snapshot, and are then set
  aside. As long as the receiver takes none, the cause is not the message: nothing is set aside, and sending starts again at the
  oldest.
- The receiver is not reached: the same message is tried until it is delivered.
- The receiver defers it (`SinkLater`), as mail servers do: the following messages are sent meanwhile, and it is tried, with its
  snapshot, for as long as the receiver defers it, after waits that double up to `_MAX_RETRY_AFTER_S`. From the attempt after
  `_MAX_DEFERRALS` on, half an hour later, it counts as set aside.

A message that is set aside stays in the outbox. It is reported (`Outbox.set_aside`), and is tried again after a minute, then
ever more rarely, and after a restart, where it does not hold up the others either.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ppe_edge.common.backoff import Backoff
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.records import Delivery
from ppe_edge.delivery.sinks.base import IdleSink, Sink, SinkFailed, SinkLater, SinkRefused

_IDLE_S = 1.0  # how often an idle thread checks for messages whose next attempt is due
_SET_ASIDE_RETRY_S = (60.0, 21600.0)  # delay after a message is set aside, doubled each time up to the second value
_SHRINK_AFTER = 2  # failed attempts after which a message that may be too large is sent without its snapshot
_SUSPECT_AFTER = 3  # failed attempts after which the messages behind it are tried
_MAX_RETRY_AFTER_S = 900.0  # a receiver cannot silence the box for longer
_MAX_DEFERRALS = 5  # longer than a mail server defers each first mail of an unknown sender

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Doubt:
    """A message that may be the cause of its failures.

    Attributes:
        failures: Failed attempts in which the receiver was reached.
        without_snapshot: Whether it is sent without its snapshot from now on.
        passed_over: Whether later messages are tried first.
        on_trial: Whether the receiver has taken a later message since.
        refusals: How often it was set aside.
        deferrals: How often the receiver has deferred it.
    """

    failures: int = 0
    without_snapshot: bool = False
    passed_over: bool = False
    on_trial: bool = False
    refusals: int = 0
    deferrals: int = 0


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
        # message id -> doubt; after a restart, a message that was set aside gets one attempt at a time
        self._doubts = {message: Doubt(refusals=1) for message in outbox.set_aside_messages(name)}
        self._deadline = float("inf")  # set before `_stop` is, so that a thread that sees `_stop` has it
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
            while self._step_or_pause():
                pass
        finally:
            self._sink.close()

    def _step_or_pause(self) -> bool:
        """Like `_step`, but a bug does not end the thread."""
        try:
            return self._step()
        except Exception as error:
            _log.exception(self.name)
            self._failed(f"internal error: {type(error).__name__}")
            return self._pause(self._backoff.next())

    def _step(self) -> bool:
        """Sends one message, or waits for one; returns False when the thread must end."""
        if time.monotonic() >= self._deadline:
            return False
        version = self._outbox.version
        try:
            passed_over = {message for message, doubt in self._doubts.items() if doubt.passed_over}
            delivery = self._outbox.claim(self.name, passed_over)
        except sqlite3.Error as error:  # the disk may become readable again
            self._failed(f"outbox: {error}")
            return self._pause(self._backoff.next())
        if delivery is None and passed_over:  # none of the later messages was taken either: start again at the oldest
            for doubt in self._doubts.values():
                doubt.passed_over = False
            return self._pause(self._backoff.next())
        if delivery is None:
            if self._stop.is_set():
                return False
            self._idle()
            self._outbox.wait(version, _IDLE_S)
            return True
        return self._send(delivery)

    def _idle(self) -> None:
        if isinstance(self._sink, IdleSink):
            try:
                self._sink.idle()
            except SinkFailed as error:
                self._failed(str(error))

    def _send(self, delivery: Delivery) -> bool:
        """Tries to send a message; returns False when the thread must end."""
        doubt = self._doubts.get(delivery.id)
        snapshot = None if doubt is not None and doubt.without_snapshot else delivery.snapshot
        try:
            self._sink.send(delivery.message, snapshot)
        except SinkLater as later:
            if later.deferred is None:
                self._outbox.nack(delivery, outcome_unknown=False, delay_s=later.delay_s)
                return True
            self._failed(later.deferred)
            self._defer(delivery, later.deferred, later.delay_s)
            return self._pause(self._backoff.next())
        except SinkRefused as refusal:
            self._handle_refusal(delivery, refusal)
            return True
        except SinkFailed as failure:
            return self._pause(self._handle_failure(delivery, failure))
        except Exception as error:  # a bug in a sink must not end the delivery, nor lose the message
            _log.exception("%s: message %s", self.name, delivery.id)
            bug = SinkFailed(f"internal error: {type(error).__name__}", outcome_unknown=True, reached=True)
            return self._pause(self._handle_failure(delivery, bug))
        self._outbox.ack(delivery)
        self._delivered(delivery)
        return True

    def _handle_refusal(self, delivery: Delivery, refusal: SinkRefused) -> None:
        doubt = self._doubts.setdefault(delivery.id, Doubt())
        self._failed(f"message {delivery.id} was refused: {refusal}")
        if refusal.maybe_too_large and not doubt.without_snapshot:
            doubt.without_snapshot = True
            self._outbox.nack(delivery, outcome_unknown=False)
        else:
            self._set_aside(delivery, doubt, str(refusal), outcome_unknown=False)

    def _handle_failure(self, delivery: Delivery, failure: SinkFailed) -> float:
        """Returns the seconds until the next attempt."""
        is_news = self._failed(str(failure))
        if failure.reached:
            self._suspect(delivery, failure)
        else:
            self._outbox.nack(delivery, failure.outcome_unknown)
        asked = min(failure.retry_after_s or 0.0, _MAX_RETRY_AFTER_S)
        if asked and is_news:
            _log.info("%s: waiting %.0f s before the next attempt", self.name, asked)
        return asked or self._backoff.next()

    def _delivered(self, delivery: Delivery) -> None:
        self.delivered += 1
        doubt = self._doubts.pop(delivery.id, None)
        if doubt is not None and doubt.without_snapshot:
            _log.warning("%s: message %s was delivered without its snapshot, which stays on the box", self.name, delivery.id)
        for other in self._doubts.values():  # the sink works, so each of them gets one more attempt, and is then set aside
            other.on_trial = other.on_trial or other.passed_over
            other.passed_over = False
        if self.last_error is not None:
            _log.info("%s: messages are delivered again", self.name)
        self.last_error = None
        self._backoff.reset()

    def _suspect(self, delivery: Delivery, failure: SinkFailed) -> None:
        """Decides what to do with a message that failed although the receiver was reached."""
        others_in_doubt = any(doubt.passed_over for doubt in self._doubts.values())
        doubt = self._doubts.setdefault(delivery.id, Doubt())
        doubt.failures += 1
        may_shrink = delivery.snapshot is not None and not doubt.without_snapshot
        if doubt.refusals or (doubt.on_trial and not may_shrink):
            self._set_aside(delivery, doubt, str(failure), failure.outcome_unknown)
            return
        if may_shrink and (doubt.on_trial or (failure.maybe_too_large and doubt.failures >= _SHRINK_AFTER)):
            doubt.without_snapshot = True
        elif doubt.failures >= _SUSPECT_AFTER or others_in_doubt:
            doubt.passed_over = True
        self._outbox.nack(delivery, failure.outcome_unknown)

    def _defer(self, delivery: Delivery, reason: str, first_s: float) -> None:
        doubt = self._doubts.setdefault(delivery.id, Doubt())
        delay = min(_MAX_RETRY_AFTER_S, first_s * 2.0 ** min(doubt.deferrals, 16))
        doubt.deferrals += 1
        if doubt.deferrals > _MAX_DEFERRALS:
            self._set_aside(delivery, doubt, reason, outcome_unknown=False, delay_s=delay)
        else:
            self._outbox.nack(delivery, outcome_unknown=False, delay_s=delay)

    def _set_aside(
        self, delivery: Delivery, doubt: Doubt, reason: str, outcome_unknown: bool, delay_s: float | None = None
    ) -> None:
        first, longest = _SET_ASIDE_RETRY_S
        delay = min(longest, first * 2.0 ** min(doubt.refusals, 16)) if delay_s is None else delay_s
        if not doubt.refusals:
            _log.error("%s: message %s is set aside, and the next ones are sent: %s", self.name, delivery.id, reason)
        doubt.refusals += 1
        self._outbox.set_aside(delivery, reason, outcome_unknown, delay)

    def _failed(self, reason: str) -> bool:
        """Notes a failure; returns whether it is news: a problem that persists is logged once."""
        self.failures += 1
        is_news = reason != self.last_error
        if is_news:
            _log.warning("%s: %s", self.name, reason)
        self.last_error = reason
        return is_news

    def _pause(self, seconds: float) -> bool:
        """Waits; returns False if the thread was asked to stop."""
        return not self._stop.wait(seconds)


def stop_all(threads: Sequence[DeliveryThread], timeout_s: float) -> list[str]:
    """Lets every thread send what is left, all within `timeout_s`; returns the names of those that still hang."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.request_stop(deadline)
    return [thread.name for thread in threads if not thread.join(deadline)]
