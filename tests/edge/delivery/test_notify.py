"""Notifications through a real mail server and a real web server on this machine."""

import base64
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from example_messages import NOON, a_camera_event, an_alert
from helpers import free_port, serving, wait_until
from ppe_edge.common.backoff import Backoff
from ppe_edge.config import load_settings
from ppe_edge.delivery.alert_history import AlertHistory
from ppe_edge.delivery.dispatcher import DeliveryThread, stop_all
from ppe_edge.delivery.messages import Alert, AlertVerdict, Judgement, clip_of
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.sinks import SinkFailed, SinksConfig, build_sinks
from ppe_edge.delivery.sinks.base import SinkLater
from ppe_edge.delivery.sinks.escalate import EscalateSink, EscalateSinkConfig
from ppe_edge.delivery.sinks.notify import URLS_VARIABLE, NotifySink, NotifySinkConfig, Site, open_addresses
from ppe_edge.errors import EdgeError
from pydantic import SecretStr, ValidationError
from running_box import configure

SECRET = "s3cret-of-the-site"
JPEG = b"\xff\xd8 a snapshot \xff\xd9"
BERLIN = Site(ZoneInfo("Europe/Berlin"), {"none": "Kopf ohne Helm"}.get)  # type: ignore[arg-type]


class Receiver:
    """A web server that keeps what is posted to it, and asks to wait as often as `refusals` says after each post."""

    def __init__(self, refusals: int = 0) -> None:
        self.posts: list[dict[str, Any]] = []
        self._refusals, self._left = refusals, 0

    def handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                post = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(receiver.take(post))
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        return Handler

    def take(self, post: dict[str, Any]) -> int:
        """Returns the status."""
        if self._left:
            self._left -= 1
            return 429
        self._left = self._refusals
        self.posts.append(post)
        return 200


class Mailbox:
    """Keeps mails; refuses those for one recipient."""

    def __init__(self, refused: str = "", answer: str = "550 no such user") -> None:
        self.mails: list[EmailMessage] = []
        self._refused, self._answer = refused, answer

    async def handle_RCPT(  # noqa: N802
        self, server: object, session: object, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address == self._refused:
            return self._answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web server, and what was posted to it."""
    receiver = Receiver()
    with serving(receiver.handler()) as address:
        yield f"json://box:{SECRET}@{address}/", receiver.posts


@contextlib.contextmanager
def mail_server(inbox: Mailbox, port: int, **settings: Any) -> Iterator[None]:
    """Serves SMTP."""

    def login(*_: object) -> AuthResult:
        return AuthResult(success=True)

    server = Controller(inbox, "127.0.0.1", port, authenticator=login, auth_require_tls=False, **settings)
    server.start()
    try:
        yield
    finally:
        server.stop()


def mail_to(port: int, recipients: str = "safety@example.org") -> str:
    login = f"mailto://box:{SECRET}@127.0.0.1:{port}"
    return f"{login}?smtp=127.0.0.1&from=box@example.org&to={recipients}&mode=insecure"


def config_of(urls: str, **settings: Any) -> NotifySinkConfig:
    return NotifySinkConfig(urls=SecretStr(urls), **settings)


def sink(url: str, **settings: Any) -> NotifySink:
    [address] = open_addresses(SecretStr(url), "notify").values()
    return NotifySink(config_of(url, **settings), lambda: BERLIN, address)


def of_cameras(url: str, now: list[float]) -> NotifySink:
    """A sink at a time, with quiet hours from `NOON` for two hours."""
    [address] = open_addresses(SecretStr(url), "notify").values()
    return NotifySink(config_of(url, quiet_hours=["daily 09:00-11:00"]), lambda: BERLIN, address, lambda: now[0])


def wait(notify: NotifySink, now: list[float], seconds: float) -> None:
    """Lets a sink of `of_cameras` be older."""
    now[0] += seconds
    notify._started -= seconds


@contextlib.contextmanager
def delivering(folder: Path, urls: str, **settings: Any) -> Iterator[tuple[Outbox, dict[str, DeliveryThread]]]:
    """An outbox, and the threads that deliver its messages to each address."""
    sinks = build_sinks(SinksConfig(notify=config_of(urls, min_interval_s=0, **settings)), None, site=lambda: BERLIN)
    outbox = Outbox(OutboxConfig(), folder, list(sinks))
    threads = {name: DeliveryThread(name, sink, outbox, Backoff(0.05, 0.1)) for name, sink in sinks.items()}
    for thread in threads.values():
        thread.start()
    try:
        yield outbox, threads
    finally:
        stop_all(list(threads.values()), 5.0)
        outbox.close()


def test_outage_of_mail_server_loses_nothing_and_delays_no_other_address(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port, inbox = free_port(), Mailbox()
    texts = {"title": "{camera}: {object}", "body": "Um {time:%H:%M} Uhr, {score:.0%}"}
    with delivering(tmp_path, f"{mail_to(port)} {webhook[0]}", **texts) as (outbox, threads):
        for number in range(3):
            outbox.put(an_alert(number), JPEG)
        mail, web = threads
        wait_until(lambda: threads[mail].failures > 3 and len(webhook[1]) == 3)
        assert outbox.stats().pending == {mail: 3, web: 0}
        with mail_server(inbox, port):
            wait_until(lambda: outbox.stats().pending == {mail: 0, web: 0})
    # nobody listened, so that no mail is marked as perhaps repeated
    assert [mail["Subject"] for mail in inbox.mails] == ["gate: Kopf ohne Helm"] * 3
    first = inbox.mails[0]
    [attachment] = [part for part in first.walk() if part.get_content_type() == "image/jpeg"]
    assert attachment.get_payload(decode=True) == JPEG
    assert "Um 09:00 Uhr, 75%" in first.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert len(webhook[1]) == 3 and base64.b64decode(webhook[1][0]["attachments"][0]["base64"]) == JPEG
    said = f"{mail}: address 1 of sinks.notify.urls (E-Mail) did not accept the notification: no connection or no answer: check"
    assert SECRET not in caplog.text and f"{said} the network, the host and the port" in caplog.text


def test_mail_that_is_too_large_arrives_without_its_snapshot(tmp_path: Path) -> None:
    """The mail server takes up to 100 kB. No later message shows that it works."""
    port, inbox = free_port(), Mailbox()
    with mail_server(inbox, port, data_size_limit=100_000), delivering(tmp_path, mail_to(port)) as (outbox, threads):
        [name] = threads
        outbox.put(an_alert(), 1_000_000 * b"J")
        wait_until(lambda: outbox.stats().pending == {name: 0})
        outbox.put(an_alert(1), JPEG)
        wait_until(lambda: outbox.stats().pending == {name: 0})
    assert threads[name].failures == 1
    assert [[part.get_filename() for part in mail.iter_attachments()] for mail in inbox.mails] == [[], [ANY]]
    assert not any(mail["Subject"].startswith("Possibly") for mail in inbox.mails)


def test_recipient_who_is_refused_does_not_make_others_get_the_mail_again(tmp_path: Path) -> None:
    port, inbox = free_port(), Mailbox(refused="gone@example.org")
    recipients = "safety@example.org,gone@example.org"
    with mail_server(inbox, port), delivering(tmp_path, mail_to(port, recipients)) as (outbox, threads):
        outbox.put(an_alert())
        safety, gone = threads
        wait_until(lambda: threads[gone].failures >= 4)
        assert outbox.stats().pending == {safety: 0, gone: 1}
        assert threads[gone].last_error == (
            "address 1 of sinks.notify.urls, recipient 2 (E-Mail) did not accept the notification: it answered 550: "
            "check the recipient or path in the address"
        )
    assert [mail["To"] for mail in inbox.mails] == ["safety@example.org"]


def test_service_that_limits_the_rate_gets_all_notifications_in_order(tmp_path: Path) -> None:
    """As many messengers do: one message, then an error until some time has passed."""
    receiver = Receiver(refusals=4)
    with serving(receiver.handler()) as address, delivering(tmp_path, f"json://{address}/", body="{time:%S}") as (outbox, _):
        for number in range(4):
            outbox.put(an_alert(number))
        wait_until(lambda: not any(outbox.stats().pending.values()))
    assert [post["message"] for post in receiver.posts] == [f"0{number}" for number in range(4)]
    assert not any(post["title"].startswith("Possibly") for post in receiver.posts)


def test_notification_that_may_have_arrived_is_marked_when_it_is_repeated(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    notify = sink(webhook[0], title="{camera}\n", body="{zone}", repeated="Vielleicht erneut: ")
    notify.send(an_alert(redelivered=True), None)
    assert [webhook[1][0][part] for part in ("title", "message")] == ["Vielleicht erneut: gate"] * 2


def test_notifications_that_follow_too_soon_are_left_out_and_counted(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    notify = sink(webhook[0], title="{camera}", body="{left_out}", min_interval_s=60)
    for seconds, camera in ((0, "gate"), (10, "gate"), (59, "gate"), (20, "yard"), (60, "gate"), (130, "gate")):
        notify.send(an_alert(seconds, camera=camera), None)
    notify.send(a_camera_event(), None)
    assert notify.check() == "JSON (address 1): configured, nothing was sent"
    assert [(post["title"], post["message"]) for post in webhook[1]] == [
        ("gate", "0"),
        ("yard", "0"),
        ("gate", "2"),
        ("gate", "0"),
    ]


def test_notifier_in_quiet_hours_sends_nothing(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    notify = sink(webhook[0], body="{time:%H:%M} {left_out}", min_interval_s=0, quiet_hours=["daily 09:30-11:00"])
    for minutes in (29, 30, 119, 120):  # from 09:00 on in Berlin
        notify.send(an_alert(60 * minutes), None)
    notify.send(an_alert(60 * 30, time_uncertain=True), None)  # who knows whether it is half past nine
    assert [post["message"] for post in webhook[1]] == ["09:29 0", "11:00 2", "09:30 0"]


def test_people_are_told_of_a_camera_that_needs_attention_after_quiet_hours(
    webhook: tuple[str, list[dict[str, Any]]],
) -> None:
    now = [NOON]
    notify = of_cameras(webhook[0], now)
    wait(notify, now, 7000)
    fault = a_camera_event(600, event="needs_attention", detail="it has failed")
    with pytest.raises(SinkLater, match="due in 200 s"):
        notify.send(fault, None)
    notify.send(a_camera_event(600, event="lost"), None)
    assert webhook[1] == []
    wait(notify, now, 200)
    notify.send(fault, None)
    notify.send(a_camera_event(1200, event="works_again", detail="it had failed", redelivered=True, time_uncertain=True), None)
    assert [(post["title"], post["message"], post["type"]) for post in webhook[1]] == [
        ("Camera gate needs attention", "2027-01-15 09:10:00, camera gate: it has failed", "warning"),
        (
            "Possibly repeated: Camera gate works again",
            "2027-01-15 09:20:00 (the clock of the box was not set), camera gate: it had failed",
            "info",
        ),
    ]


@pytest.mark.parametrize(
    ("before", "meanwhile", "told"),
    [
        ("", "FW", ["works again"]),
        ("", "FWF", ["needs attention"]),
        ("F", "W", ["needs attention", "works again"]),
        ("F", "F", ["needs attention", "needs attention"]),
        ("F", "WF", ["needs attention", "needs attention"]),
        ("F", "WFW", ["needs attention", "works again"]),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_after_quiet_hours_people_are_told_the_latest_state_of_a_camera(
    webhook: tuple[str, list[dict[str, Any]]], before: str, meanwhile: str, told: list[str], order: int
) -> None:
    """F: it needs attention, W: it works again. What waits becomes due in any order; another camera's events do not matter."""
    now = [NOON - 1]
    notify = of_cameras(webhook[0], now)
    kinds = {"F": "needs_attention", "W": "works_again"}
    for kind in before:
        notify.send(a_camera_event(event=kinds[kind]), None)
    wait(notify, now, 1)
    waiting = [a_camera_event(number, event=kinds[kind]) for number, kind in enumerate(meanwhile)]
    waiting.append(a_camera_event(camera="yard", event="needs_attention"))
    for event in waiting:
        with pytest.raises(SinkLater):
            notify.send(event, None)
    wait(notify, now, 7200)
    for event in waiting[::order]:
        notify.send(event, None)
    titles = [post["title"] for post in webhook[1]]
    assert [title for title in titles if "gate" in title] == [f"Camera gate {text}" for text in told]
    assert [title for title in titles if "yard" in title] == ["Camera yard needs attention"]


def test_failure_of_a_camera_from_before_the_start_is_not_sent(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    """If it lasts, the box reports it again."""
    notify = of_cameras(webhook[0], [NOON + 8000])
    notify.send(a_camera_event(7900, event="needs_attention"), None)
    assert webhook[1] == []
    notify.send(a_camera_event(7900, event="needs_attention", time_uncertain=True), None)
    notify.send(a_camera_event(7900, event="works_again"), None)
    assert [post["title"] for post in webhook[1]] == ["Camera gate needs attention", "Camera gate works again"]


def test_clock_that_is_set_back_hides_no_failure_of_a_camera(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    now = [NOON + 20_000]
    notify = of_cameras(webhook[0], now)
    now[0] = NOON + 10_000
    notify.send(a_camera_event(10_000, event="needs_attention"), None)
    assert len(webhook[1]) == 1


def test_quiet_hours_end_by_the_clock_when_summer_time_starts_or_ends(
    webhook: tuple[str, list[dict[str, Any]]],
) -> None:
    """In Berlin, 22:00 to 02:30 in the night in which 03:00 becomes 02:00: until 02:30 is shown for the second time."""
    notify = sink(webhook[0], body="{time:%H:%M %Z}", min_interval_s=0, quiet_hours=["Sat 22:00-02:30"])
    for utc_time in ("24T19:59", "24T20:00", "24T23:30", "25T00:29", "25T00:31", "25T01:29", "25T01:30"):
        notify.send(an_alert(time=datetime.fromisoformat(f"2026-10-{utc_time}+00:00")), None)
    assert [post["message"] for post in webhook[1]] == ["21:59 CEST", "02:30 CET"]


def test_alert_that_is_acknowledged_while_the_service_is_down_is_not_escalated(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    url = f"json://127.0.0.1:{free_port()}/"
    config = EscalateSinkConfig(urls=SecretStr(url), after_min=10)
    [address] = open_addresses(config.urls, "escalate").values()
    sink = EscalateSink(config, lambda: BERLIN, address, acknowledged.__contains__, clock=lambda: NOON + 600)
    alert = an_alert()
    with pytest.raises(SinkFailed, match="no connection or no answer") as failed:
        sink.send(alert, None)
    assert not failed.value.outcome_unknown and not failed.value.reached
    acknowledged.add(alert.id)
    sink.send(alert, None)
    sink.send(clip_of(alert, -5, 10), tmp_path / "clip.mp4")


def test_clip_is_a_notification_of_its_own_if_its_alert_was_one(
    webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"a video")
    notify = sink(webhook[0], title="{camera}", body="https://box/alerts.html#{alert}", min_interval_s=60)
    for alert in (an_alert(0), an_alert(10)):
        notify.send(alert, None)
        notify.send(clip_of(alert, -5, 10), video)
    notify.send(clip_of(an_alert(), -5, 10), None)  # there is none any more
    names = [[file["filename"] for file in post["attachments"]] for post in webhook[1]]
    assert names == [[], ["video.mp4"]]
    [link] = {post["message"] for post in webhook[1]}
    assert link.startswith("https://box/alerts.html#") and UUID(link.partition("#")[2])


def test_unacknowledged_alert_is_escalated_in_time_also_after_restart(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    now = [NOON + 599]  # the first alert is 599 s old
    judged, taken_back, acknowledged, ignored = alerts = [an_alert(number, camera=f"gate {number}") for number in range(4)]

    def decide(outbox: Outbox, alert: Alert, verdict: Judgement | None, is_acknowledged: bool) -> None:
        about = {"camera": alert.camera, "violation": alert.violation, "alert": alert.id}
        outbox.put(AlertVerdict(**about, time=alert.time, verdict=verdict, acknowledged=is_acknowledged))

    def start(prepare: Callable[[Outbox], None]) -> tuple[Outbox, DeliveryThread]:
        outbox = Outbox(OutboxConfig(), tmp_path, ["escalate"], clock=lambda: now[0])
        config = EscalateSinkConfig(urls=SecretStr(webhook[0]), after_min=10)
        history = AlertHistory(tmp_path / "outbox.db")
        [address] = open_addresses(config.urls, "escalate").values()
        sink = EscalateSink(config, lambda: BERLIN, address, history.is_acknowledged, clock=lambda: now[0])
        delivery = DeliveryThread("escalate", sink, outbox, Backoff(0.05, 0.1))
        prepare(outbox)
        delivery.start()
        return outbox, delivery

    def raise_and_decide(outbox: Outbox) -> None:
        for alert in alerts:
            outbox.put(alert, JPEG)
        decide(outbox, judged, "false_alarm", True)
        decide(outbox, taken_back, "confirmed", True)
        decide(outbox, taken_back, None, False)

    outbox, delivery = start(raise_and_decide)
    wait_until(lambda: outbox.stats().pending == {"escalate": 3})  # what waits: the alerts, without the judged one
    stop_all([delivery], 5.0)
    outbox.close()
    outbox, delivery = start(lambda outbox: decide(outbox, acknowledged, None, True))
    try:
        wait_until(lambda: outbox.stats().pending == {"escalate": 2})
        assert webhook[1] == []
        now[0] = NOON + 601  # the second is 600 s old
        wait_until(lambda: outbox.stats().pending == {"escalate": 1})
        assert [post["title"] for post in webhook[1]] == ["Not acknowledged: warning: Kopf ohne Helm at gate 1"]
        now[0] = NOON + 603
        wait_until(lambda: outbox.stats().pending == {"escalate": 0})
    finally:
        stop_all([delivery], 5.0)
        outbox.close()
    assert [post["title"][-6:] for post in webhook[1]] == ["gate 1", ignored.camera]
    assert base64.b64decode(webhook[1][1]["attachments"][0]["base64"]) == JPEG and not delivery.failures


LOGIN, PATH = "check the user, password or token in the address", "check the recipient or path in the address"


@pytest.mark.parametrize(
    ("status", "hint", "outcome_unknown", "reached"),
    [
        (400, "check the address", False, True),
        (401, LOGIN, False, True),
        (403, LOGIN, False, True),
        (404, PATH, False, True),
        (429, "busy or rate limit: trying again", False, False),
        (500, "the service has a problem: trying again", True, True),
        (504, "busy or rate limit: trying again", True, False),
    ],
)
def test_failed_notification_names_remedy_and_whether_it_may_have_arrived(
    status: int, hint: str, outcome_unknown: bool, reached: bool
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as address, pytest.raises(SinkFailed) as failure:
        sink(f"json://{address}/").send(an_alert(), None)
    assert str(failure.value).endswith(f"(JSON) did not accept the notification: it answered {status}: {hint}")
    assert (failure.value.outcome_unknown, failure.value.reached) == (outcome_unknown, reached)


@pytest.mark.parametrize("url", ["json://127.0.0.1:{}/?cto=0.2", "mailto://127.0.0.1:{}?from=a@b.de&cto=0.2"])
def test_host_that_does_not_answer_to_the_connection_was_not_reached(url: str) -> None:
    hint = "no connection or no answer: check the network, the host and the port"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),  # its queue is full now
        pytest.raises(SinkFailed, match=hint) as failure,
    ):
        sink(url.format(server.getsockname()[1])).send(an_alert(), None)
    assert not failure.value.outcome_unknown and not failure.value.reached


def test_mail_server_that_locks_out_is_given_time() -> None:
    port, inbox = free_port(), Mailbox("safety@example.org", "535 5.7.8 wrong password")
    with mail_server(inbox, port), pytest.raises(SinkFailed, match="it answered 535") as failure:
        sink(mail_to(port)).send(an_alert(), None)
    assert failure.value.retry_after_s == 300.0 and failure.value.reached and not failure.value.outcome_unknown


def test_mail_that_is_deferred_is_sent_again_later() -> None:
    port, inbox = free_port(), Mailbox("safety@example.org", "451 4.7.1 greylisted")
    with mail_server(inbox, port), pytest.raises(SinkLater) as later:
        sink(mail_to(port)).send(an_alert(), None)
    reason = str(later.value.deferred)
    assert reason.endswith("did not accept the notification: it answered 451: deferred: sent again later")
    assert later.value.delay_s == 60.0


def test_slow_receiver_is_given_a_minute_unless_its_address_says_otherwise() -> None:
    urls = "json://a.de json://b.de?rto=7 mailto://c.de?from=a@b.de mailto://d.de?from=a@b.de&cto=7"
    services = [address.service for address in open_addresses(SecretStr(urls), "notify").values()]
    assert [service.request_timeout for service in services[:2]] == [(4.0, 60.0), (4.0, 7.0)]
    assert [service.socket_connect_timeout for service in services[2:]] == [60.0, 7.0]


def test_mail_whose_copy_is_refused_may_have_arrived() -> None:
    port, inbox = free_port(), Mailbox("gone@example.org")
    hint = "it refused a recipient, and the others have the mail: check to=, cc= and bcc= in the address"
    with mail_server(inbox, port), pytest.raises(SinkFailed, match=hint) as failure:
        sink(mail_to(port) + "&cc=gone@example.org").send(an_alert(), None)
    assert len(inbox.mails) == 1 and failure.value.outcome_unknown


def names_of(*urls: str) -> list[str]:
    return list(open_addresses(SecretStr(" ".join(urls)), "notify"))


def test_name_of_sink_stays_when_other_addresses_and_recipients_change() -> None:
    """The name tells the outbox what waits for whom."""
    mail, chat = "mailtos://box:PASSWORD@example.org?to={}&cc=x@y.de,z@y.de", "tgram://123456789:abcdefg_hijklmnop/1234"
    anna, ben, web = names_of(mail.format("anna@example.org,ben@example.org"), chat)
    assert len({anna, ben, web}) == 3
    assert names_of(chat, mail.format("carl@example.org,ben@example.org"))[::2] == [web, ben]
    assert names_of(mail.format("ben@example.org").replace("PASSWORD", "CHANGED")) == [ben]
    assert names_of(chat, chat) == [web, f"{web}-2"]


def test_names_of_sinks_differ_whenever_their_addresses_do() -> None:
    relays = [f"mailtos://box:PASSWORD@example.org?to=anna@example.org&smtp={host}.org" for host in ("one", "two")]
    keys = [f"json://user:PASSWORD@127.0.0.1/x?+X-Key={key}" for key in ("a", "b")]
    names = names_of(*relays, *keys)
    assert len(set(names)) == 4 and not any(name.endswith("-2") for name in names)
    assert names_of(*reversed(relays), *(key.replace("PASSWORD", "CHANGED") for key in keys)) == [*names[1::-1], *names[2:]]


@pytest.mark.parametrize(
    "recipients",
    [
        "to=nobody",
        "to=a@example.org,nobody,b@example.org",
        "to=a@example.org;b@example.org",
        "to=a@example.org&cc=nobody",
        "to=a@example.org&bcc=b@example.org,nobody",
        "to=a@example.org nobody json://127.0.0.1",
    ],
)
def test_recipient_who_is_no_mail_address_is_refused(recipients: str) -> None:
    with pytest.raises(EdgeError) as error:
        names_of("json://127.0.0.1", f"mailtos://box:{SECRET}@example.org?{recipients}")
    assert str(error.value) == (
        "sinks.notify.urls: address 2: a recipient in to=, cc=, bcc= or reply= is not an e-mail address: "
        "correct it, for example ?to=anna@example.org,ben@example.org"
    )


def test_recipients_of_mails_are_written_in_many_ways() -> None:
    login = "mailtos://box:PASSWORD@example.org"
    assert len(names_of(f"{login}?to=Anna <a@b.de>, c@d.de&reply=e@f.de", f"{login}/a@b.de/c@d.de/")) == 4
    assert len(names_of(login, f'{login}?to="Doe, Anna" <a@b.de>,c@d.de%20e@f.de')) == 4


def test_recipient_whom_a_service_cannot_have_is_refused() -> None:
    with pytest.raises(EdgeError, match="address 1: Telegram cannot have such a recipient"):
        names_of("tgram://123456789:abcdefg_hijklmnop/1234/!!")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"title": "{kamera}"}, "no such field 'kamera'"),
        ({"body": "{time:"}, "got an error: "),
        ({"body": "{score.real}"}, "no such field 'score.real'"),
        ({"body": "{camera:.1f}"}, "Unknown format code 'f'"),
        ({"body": "{score:{zone}}"}, r"nested fields such as \{score:\{zone\}\} are not supported"),
        ({"title": "", "body": " {zone}"}, "title and body are both empty for an alert without a zone"),
        ({"quiet_hours": ["22-6"]}, "expected days and times"),
    ],
)
def test_wrong_text_or_times_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NotifySinkConfig(urls=SecretStr("json://127.0.0.1"), **settings)


def test_addresses_come_from_the_environment_and_are_never_shown(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = {"gate": {"source": "rtsp://127.0.0.1/"}}
    config = configure(tmp_path, tiny_model, cameras, sinks={"notify": {"urls": f"tgram://{SECRET}/1"}})
    with pytest.raises(EdgeError, match=f"set it in the environment variable {URLS_VARIABLE}") as error:
        load_settings(config)
    assert SECRET not in str(error.value)
    config = configure(tmp_path, tiny_model, cameras, sinks={"escalate": {"urls": "json://127.0.0.1"}})
    with pytest.raises(EdgeError, match=r"sinks\.escalate\.urls: set it in .* PPE_EDGE__SINKS__ESCALATE__URLS"):
        load_settings(config)
    config = configure(tmp_path, tiny_model, cameras, sinks={"notify": {"title": "{camera}"}})
    monkeypatch.setenv(URLS_VARIABLE, f"json://127.0.0.1 nosuch://{SECRET}/")
    settings = load_settings(config)
    assert settings.sinks.notify is not None and SECRET not in repr(settings)
    with pytest.raises(EdgeError, match="Apprise does not know the kind of address 2") as error:
        build_sinks(settings.sinks, None)
    assert SECRET not in str(error.value)
