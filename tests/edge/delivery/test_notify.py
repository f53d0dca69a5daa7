"""Notifications through a real mail server and a real web server on this machine."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
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
from ppe_edge.delivery.sinks.escalate import EscalateSink, EscalateSinkConfig
from ppe_edge.delivery.sinks.notify import URLS_VARIABLE, NotifySink, NotifySinkConfig, Site
from ppe_edge.errors import EdgeError
from pydantic import SecretStr, ValidationError
from running_box import configure

SECRET = "s3cret-of-the-site"
JPEG = b"\xff\xd8 a snapshot \xff\xd9"
BERLIN = Site(ZoneInfo("Europe/Berlin"), {"none": "Kopf ohne Helm"}.get)  # type: ignore[arg-type]


class Receiver:
    """A web server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []

    def handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        return Handler


class Mailbox:
    """Keeps mails."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web server, and what was posted to it."""
    receiver = Receiver()
    with serving(receiver.handler()) as address:
        yield f"json://box:{SECRET}@{address}/", receiver.posts


def sink(urls: str, **settings: Any) -> NotifySink:
    return NotifySink(NotifySinkConfig(urls=SecretStr(urls), **settings), lambda: BERLIN)


def test_notifications_survive_an_outage_of_the_mail_server(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port, inbox = free_port(), Mailbox()
    mail = f"mailto://box:{SECRET}@127.0.0.1:{port}?smtp=127.0.0.1&from=box@example.org&to=safety@example.org&mode=insecure"
    notify = sink(f"{mail} {webhook[0]}", title="{camera}: {object}", body="Um {time:%H:%M} Uhr, {score:.0%}", min_interval_s=0)
    outbox = Outbox(OutboxConfig(), tmp_path, ["notify"])
    delivery = DeliveryThread("notify", notify, outbox, Backoff(0.05, 0.1))
    delivery.start()
    for number in range(3):
        outbox.put(an_alert(number), JPEG)
    wait_until(lambda: delivery.failures > 3 and len(webhook[1]) == 3)
    assert outbox.stats().pending == {"notify": 3}

    def login(*_: object) -> AuthResult:
        return AuthResult(success=True)

    server = Controller(inbox, "127.0.0.1", port, authenticator=login, auth_require_tls=False)
    server.start()
    try:
        wait_until(lambda: outbox.stats().pending == {"notify": 0})
    finally:
        server.stop()
        stop_all([delivery], 5.0)
        outbox.close()
    assert sorted(mail["Subject"] for mail in inbox.mails) == ["gate: Kopf ohne Helm"] * 3
    first = inbox.mails[0]
    [attachment] = [part for part in first.walk() if part.get_content_type() == "image/jpeg"]
    assert attachment.get_payload(decode=True) == JPEG
    assert "Um 09:00 Uhr, 75%" in first.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    # an address that has taken a notification does not get it again because another one was down
    assert len(webhook[1]) == 3 and base64.b64decode(webhook[1][0]["attachments"][0]["base64"]) == JPEG
    assert SECRET not in caplog.text and "address 1 (E-Mail) of sinks.notify.urls takes no notification" in caplog.text


def test_notifications_that_follow_too_soon_are_left_out_and_counted(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    notify = sink(webhook[0], title="{camera}", body="{left_out}", min_interval_s=60)
    for seconds, camera in ((0, "gate"), (10, "gate"), (59, "gate"), (20, "yard"), (60, "gate"), (130, "gate")):
        notify.send(an_alert(seconds, camera=camera), None)
    notify.send(a_camera_event(), None)
    assert notify.check() == "sends to JSON, not tried"
    assert [(post["title"], post["message"]) for post in webhook[1]] == [
        ("gate", "0"),
        ("yard", "0"),
        ("gate", "2"),
        ("gate", "0"),
    ]


def test_no_notifications_in_quiet_hours(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    notify = sink(webhook[0], body="{time:%H:%M} {left_out}", min_interval_s=0, quiet_hours=["daily 09:30-11:00"])
    for minutes in (29, 30, 119, 120):  # from 09:00 on in Berlin
        notify.send(an_alert(60 * minutes), None)
    assert [post["message"] for post in webhook[1]] == ["09:29 0", "11:00 2"]


def test_clip_is_a_notification_of_its_own_if_its_alert_was_one(
    webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"a film")
    notify = sink(webhook[0], title="{camera}", body="https://box/alerts.html#{alert}", min_interval_s=60)
    for alert in (an_alert(0), an_alert(10)):
        notify.send(alert, None)
        notify.send(clip_of(alert, -5, 10), film)
    notify.send(clip_of(an_alert(), -5, 10), None)  # there is none any more
    names = [[file["filename"] for file in post["attachments"]] for post in webhook[1]]
    assert names == [[], ["film.mp4"]]
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
        sink = EscalateSink(config, lambda: BERLIN, history.is_acknowledged, clock=lambda: now[0])
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"title": "{kamera}"}, "no such field 'kamera'"),
        ({"body": "{time:"}, "got an error: "),
        ({"body": "{score.real}"}, "no such field 'score.real'"),
        ({"body": "{camera:.1f}"}, "Unknown format code 'f'"),
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
        NotifySink(settings.sinks.notify, lambda: BERLIN)
    assert SECRET not in str(error.value)
