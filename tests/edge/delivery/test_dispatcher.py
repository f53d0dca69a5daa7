import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from example_messages import a_camera_event, an_alert
from hangup_broker import HangupBroker
from helpers import wait_until
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.common.backoff import Backoff
from ppe_edge.delivery.dispatcher import DeliveryThread, stop_all
from ppe_edge.delivery.messages import Message, StorageEvent
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.sinks import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.base import SinkLater
from ppe_edge.delivery.sinks.mqtt import MqttSink, MqttSinkConfig


class ScriptedSink:
    """Raises the exceptions of the script in turn, then accepts everything."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.tried: list[tuple[str, bool]] = []
        self.taken: list[str] = []
        self.closed = False

    def send(self, message: Message, snapshot: Path | None) -> None:
        self.tried.append((message.id, message.redelivered))
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        self.taken.append(message.id)

    def close(self) -> None:
        self.closed = True


class HangingSink(ScriptedSink):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.waiting = False

    def send(self, message: Message, snapshot: Path | None) -> None:
        self.waiting = True
        self.released.wait(60)
        super().send(message, snapshot)


def no_wait() -> Backoff:
    return Backoff(0.001, 0.001)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[Outbox, list[DeliveryThread]]]]:
    started: list[tuple[Outbox, list[DeliveryThread]]] = []

    def make(backoff: Backoff | None = None, **sinks: ScriptedSink) -> tuple[Outbox, list[DeliveryThread]]:
        outbox = Outbox(OutboxConfig(), tmp_path, list(sinks))
        threads = [DeliveryThread(name, sink, outbox, backoff or no_wait()) for name, sink in sinks.items()]
        started.append((outbox, threads))
        return outbox, threads

    yield make
    for outbox, threads in started:
        stop_all(threads, 5)
        outbox.close()


def test_failed_message_is_retried_in_order_and_marked_only_if_uncertain(make: Any) -> None:
    sink = ScriptedSink(
        SinkFailed("refused", outcome_unknown=False, reached=False),
        None,
        SinkFailed("late", outcome_unknown=True, reached=False),
    )
    outbox, (thread,) = make(hub=sink)
    first, second = outbox.put(an_alert(1)), outbox.put(an_alert(2))
    thread.start()
    wait_until(lambda: thread.delivered == 2)
    assert sink.tried == [(first, False), (first, False), (second, False), (second, True)]
    assert thread.failures == 2 and thread.last_error is None


def test_repeated_failure_and_recovery_are_logged_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ppe_edge.delivery.dispatcher")
    sink = ScriptedSink(None, *[SinkFailed("down", outcome_unknown=False, reached=False) for _ in range(3)])
    outbox, (thread,) = make(mqtt=sink)
    for n in range(4):
        outbox.put(an_alert(n))
    thread.start()
    wait_until(lambda: thread.delivered == 4)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "mqtt: down"), ("INFO", "mqtt: messages are delivered again"),
    ]  # fmt: skip


def test_refused_message_does_not_delay_others(make: Any) -> None:
    sink = ScriptedSink(SinkRefused("too big"))
    outbox, (thread,) = make(hub=sink)
    bad, good = outbox.put(an_alert(1)), outbox.put(an_alert(2))
    thread.start()
    wait_until(lambda: thread.delivered == 1)
    assert sink.taken == [good] and outbox.stats().pending == {"hub": 1}
    assert sink.tried[0][0] == bad


def test_bug_in_sink_does_not_end_delivery(make: Any) -> None:
    sink = ScriptedSink(KeyError("colour"))
    outbox, (thread,) = make(hub=sink)
    message = outbox.put(an_alert())
    thread.start()
    wait_until(lambda: thread.delivered == 1)
    assert sink.tried == [(message, False), (message, True)]


def test_stop_all_names_hanging_sink_which_does_not_delay_others(make: Any) -> None:
    hanging, working = HangingSink(), ScriptedSink()
    outbox, threads = make(hub=hanging, file=working)
    message = outbox.put(an_alert())
    for thread in threads:
        thread.start()
    wait_until(lambda: working.taken == [message])
    assert stop_all(threads, 0.3) == ["hub"]
    assert working.closed
    hanging.released.set()


def test_stop_all_sends_remaining_messages(make: Any) -> None:
    sink = HangingSink()
    outbox, threads = make(hub=sink)
    for thread in threads:
        thread.start()
    sent = [outbox.put(an_alert(n)) for n in range(20)]
    wait_until(lambda: sink.waiting)
    sink.released.set()
    assert stop_all(threads, 10) == []
    assert sink.taken == sent and sink.closed


def test_stop_all_ends_wait_of_failing_sink(make: Any) -> None:
    sink = ScriptedSink(*[SinkFailed("down", outcome_unknown=False, reached=False) for _ in range(1000)])
    outbox, (thread,) = make(Backoff(60, 60, lambda low, high: high), hub=sink)
    outbox.put(an_alert())
    thread.start()
    wait_until(lambda: sink.tried)
    assert stop_all([thread], 5) == []  # although the thread waits for a minute
    assert outbox.stats().pending == {"hub": 1}


def test_idle_thread_wakes_up_for_new_message(make: Any) -> None:
    sink = ScriptedSink()
    outbox, (thread,) = make(hub=sink)
    thread.start()
    for n in range(3):
        message = outbox.put(an_alert(n))
        wait_until(lambda message=message: message in sink.taken)


@given(st.floats(0.01, 10), st.floats(1, 60), st.integers(1, 60))
def test_backoff_grows_to_cap_and_resets(first: float, cap: float, failures: int) -> None:
    backoff = Backoff(first, cap, lambda low, high: high)
    waits = [backoff.next() for _ in range(failures)]
    assert waits == [min(cap, first * 2**n) for n in range(failures)]
    backoff.reset()
    assert backoff.next() == min(cap, first)


def test_backoff_jitter_covers_whole_range() -> None:
    waits = [Backoff(1.0, 1.0).next() for _ in range(500)]
    assert min(waits) < 0.1 and max(waits) > 0.9


def test_request_stop_ends_sending_at_deadline(make: Any) -> None:
    class Slow(ScriptedSink):
        def send(self, message: Message, snapshot: Path | None) -> None:
            time.sleep(0.05)
            super().send(message, snapshot)

    sink = Slow()
    outbox, (thread,) = make(hub=sink)
    for n in range(100):
        outbox.put(an_alert(n))
    thread.start()
    thread.request_stop(time.monotonic() + 0.3)
    assert thread.join(time.monotonic() + 5)
    assert 0 < len(sink.taken) < 100
    assert outbox.stats().pending == {"hub": 100 - len(sink.taken)}


class PickySink(ScriptedSink):
    """Fails on the messages in `poison`, or on all while it is `down`; `snapshots` are those that it was given."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.poison: set[str] = set()
        self.down = False
        self.needs_no_snapshot = False
        self.snapshots: dict[str, Path | None] = {}

    def send(self, message: Message, snapshot: Path | None) -> None:
        self.snapshots[message.id] = snapshot
        passes = self.needs_no_snapshot and snapshot is None
        if self.down or (message.id in self.poison and not passes):
            self.tried.append((message.id, message.redelivered))
            raise self.error
        super().send(message, snapshot)


def hang_up() -> SinkFailed:
    return SinkFailed("the connection was lost", outcome_unknown=True, reached=True)


def set_aside_events(outbox: Outbox) -> list[StorageEvent]:
    return [m for m in outbox.recent(100) if isinstance(m, StorageEvent) and m.event == "message_set_aside"]


@pytest.mark.parametrize("error", [hang_up(), SinkRefused("413"), KeyError("bug")])
def test_message_that_sink_never_takes_is_set_aside_and_reported(
    make: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("ppe_edge.delivery.outbox.outbox._TICK_S", 0.1)
    sink = PickySink(error)
    outbox, (thread,) = make(mqtt=sink)
    messages = [outbox.put(an_alert(n)) for n in range(6)]
    sink.poison = {messages[0], messages[3]}
    thread.start()
    good = [m for m in messages if m not in sink.poison]
    wait_until(lambda: outbox.stats().set_aside == {"mqtt": 2})
    wait_until(lambda: [m for m in sink.taken if m in messages] == good)  # in order
    wait_until(lambda: set_aside_events(outbox))
    event = set_aside_events(outbox)[-1]
    assert any(event.detail.startswith(f"mqtt: alert {message}: ") for message in sink.poison)
    wait_until(lambda: outbox.stats().pending["mqtt"] == 2)  # kept on the disk; the event itself is delivered
    assert outbox.stats().dropped["message_set_aside"] == 2


def test_message_of_reached_sink_that_takes_nothing_is_not_set_aside(make: Any) -> None:
    sink = PickySink(hang_up())
    sink.down = True
    outbox, (thread,) = make(mqtt=sink)
    messages = [outbox.put(an_alert(n)) for n in range(4)]
    thread.start()
    wait_until(lambda: len(sink.tried) > 20)
    assert outbox.stats().set_aside == {"mqtt": 0}
    sink.down = False
    wait_until(lambda: set(sink.taken) == set(messages))
    assert not set_aside_events(outbox)


def test_deferred_message_waits_ever_longer_without_delaying_others_and_is_reported_after_a_while(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for 20, 40, 80 and then 100 ms each time, and counts as set aside after the sixth attempt."""
    monkeypatch.setattr("ppe_edge.delivery.dispatcher._IDLE_S", 0.005)
    monkeypatch.setattr("ppe_edge.delivery.dispatcher._MAX_RETRY_AFTER_S", 0.1)
    sink = PickySink(SinkLater(0.02, "451"))
    outbox, (thread,) = make(notify=sink)
    deferred, *others = [outbox.put(an_alert(n), b"a jpeg") for n in range(6)]
    sink.poison = {deferred}
    attempts: list[tuple[float, int]] = []
    nack = outbox.nack
    monkeypatch.setattr(
        outbox, "nack", lambda *a, **k: attempts.append((time.monotonic(), outbox.stats().set_aside["notify"])) or nack(*a, **k)
    )
    thread.start()
    wait_until(lambda: sink.taken == others and len(attempts) >= 8)
    waits = [after - before for (before, _), (after, _) in pairwise(attempts)]
    assert all(wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1), strict=False)), waits
    assert [aside for _, aside in attempts[:8]] == [0] * 6 + [1] * 2 and thread.last_error == "451"
    sink.poison.clear()
    wait_until(lambda: sink.taken == [*others, deferred])
    assert sink.snapshots[deferred] is not None and (deferred, True) not in sink.tried
    wait_until(lambda: thread.last_error is None and outbox.stats().set_aside == {"notify": 0})


def test_refused_message_is_sent_without_snapshot_before_it_is_set_aside(make: Any) -> None:
    sink = PickySink(SinkRefused("413", maybe_too_large=True))
    sink.needs_no_snapshot = True
    outbox, (thread,) = make(hook=sink)
    sink.poison = {outbox.put(an_alert(0, id="5" * 8), b"a jpeg")}
    thread.start()
    wait_until(lambda: sink.taken == ["5" * 8])
    assert sink.snapshots["5" * 8] is None and sink.tried == [("5" * 8, False), ("5" * 8, False)]
    assert outbox.stats().set_aside == {"hook": 0}


def test_set_aside_message_is_sent_when_sink_takes_it_later(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppe_edge.delivery.dispatcher._SET_ASIDE_RETRY_S", (0.2, 0.2))
    sink = PickySink(hang_up())
    outbox, (thread,) = make(mqtt=sink)
    bad, good = outbox.put(an_alert(1)), outbox.put(an_alert(2))
    sink.poison = {bad}
    thread.start()
    wait_until(lambda: outbox.stats().set_aside == {"mqtt": 1} and good in sink.taken)
    sink.poison.clear()
    wait_until(lambda: bad in sink.taken)
    assert sink.tried[-1][1] or (bad, True) in sink.tried  # marked as redelivered
    assert outbox.stats().set_aside == {"mqtt": 0}


def test_restart_tries_set_aside_message_once_more(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart may come with other settings of the sink: here it takes one of the two messages."""
    monkeypatch.setattr("ppe_edge.delivery.outbox.outbox._RETRY_AFTER_RESTART_S", 0.1)
    sink = PickySink(hang_up())
    outbox, threads = make(mqtt=sink)
    bad, better, good = (outbox.put(an_alert(n)) for n in range(3))
    sink.poison = {bad, better}
    threads[0].start()
    wait_until(lambda: outbox.stats().set_aside == {"mqtt": 2} and good in sink.taken)
    stop_all(threads, 5)
    outbox.close()
    again = PickySink(hang_up())
    again.poison = {bad}
    outbox, (thread,) = make(mqtt=again)
    new = outbox.put(an_alert(3))
    thread.start()
    wait_until(lambda: {better, new} <= set(again.taken) and (bad, True) in again.tried)
    assert [message for message, _ in again.tried].count(bad) == 1
    assert outbox.stats().set_aside == {"mqtt": 1}


def test_bug_while_idle_does_not_end_delivery(make: Any) -> None:
    sink, tries = ScriptedSink(), iter([1, 0])
    sink.idle = lambda: 1 / next(tries, 1)  # type: ignore[attr-defined]
    outbox, (thread,) = make(hook=sink)
    thread.start()
    wait_until(lambda: thread.failures == 1)
    message = outbox.put(an_alert())
    wait_until(lambda: sink.taken == [message])


def test_sink_waits_as_long_as_receiver_asks_and_logs_that_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ppe_edge.delivery.dispatcher")
    sink = ScriptedSink(*[SinkFailed("429", outcome_unknown=False, reached=False, retry_after_s=0.3) for _ in range(2)])
    outbox, (thread,) = make(hook=sink)
    message = outbox.put(an_alert())
    start = time.monotonic()
    thread.start()
    wait_until(lambda: sink.taken == [message])
    assert time.monotonic() - start >= 0.6
    assert caplog.messages[:2] == ["hook: 429", "hook: waiting 0 s before the next attempt"]
    assert "waiting" not in "".join(caplog.messages[2:])


def test_broker_that_disconnects_on_large_message_gets_it_without_snapshot(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with HangupBroker(max_bytes=20_000) as broker:
        sink = MqttSink(MqttSinkConfig(host="127.0.0.1", port=broker.port, tls=False, attach_snapshot=True, timeout_s=5))
        outbox, (thread,) = make(mqtt=sink)
        ids = [outbox.put(an_alert(n), bytes(30_000)) for n in range(3)] + [outbox.put(a_camera_event())]
        thread.start()
        wait_until(lambda: outbox.stats().pending == {"mqtt": 0})
        bodies = [json.loads(payload) for _, payload in broker.received]
        assert [body["id"] for body in bodies] == ids
        assert not any("snapshot_base64" in body for body in bodies)
        assert broker.hangups == 2  # the sink has learned the limit
        assert "lower sinks.mqtt.max_bytes" in caplog.text and "the receiver did not take 4" in caplog.text


def test_broker_that_disconnects_on_message_without_snapshot_gets_the_others(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppe_edge.delivery.outbox.outbox._TICK_S", 0.1)
    with HangupBroker(max_bytes=2000) as broker:
        sink = MqttSink(MqttSinkConfig(host="127.0.0.1", port=broker.port, tls=False, timeout_s=5))
        outbox, (thread,) = make(mqtt=sink)
        poison = [outbox.put(an_alert(n, camera="c" * 3000)) for n in range(2)]
        good = [outbox.put(a_camera_event()) for _ in range(3)]
        thread.start()
        wait_until(lambda: outbox.stats().set_aside == {"mqtt": 2})
        wait_until(lambda: [json.loads(payload)["id"] for _, payload in broker.received][:3] == good)
        wait_until(lambda: set_aside_events(outbox))
        assert "may not publish to ppe_edge/alert" in set_aside_events(outbox)[-1].detail
        assert not {json.loads(payload)["id"] for _, payload in broker.received} & set(poison)
