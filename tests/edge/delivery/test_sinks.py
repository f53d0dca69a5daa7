import base64
import contextlib
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from broker import Broker, Receiver, needs_mosquitto
from example_messages import a_camera_event, an_alert
from hangup_broker import HangupBroker
from helpers import child_environment, free_port, wait_until
from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks import SinkFailed, SinkRefused, SinksConfig, build_sinks
from ppe_edge.delivery.sinks.jsonl import JsonlSink, JsonlSinkConfig, require_writable
from ppe_edge.delivery.sinks.mqtt import MqttSink, MqttSinkConfig
from ppe_edge.delivery.sinks.webhook import WebhookSink, WebhookSinkConfig
from ppe_edge.errors import EdgeError
from pydantic import ValidationError


def body_of(message: Message) -> dict[str, Any]:
    return json.loads(message.to_json())


def test_build_sinks_returns_configured_sinks(tmp_path: Path) -> None:
    config = SinksConfig.model_validate({"jsonl": {"path": tmp_path / "a.jsonl"}, "webhook": {"url": "http://127.0.0.1:9/"}})
    sinks = build_sinks(config, None)
    assert sorted(sinks) == ["jsonl", "webhook"]
    for sink in sinks.values():
        sink.close()


# --- JSON lines


def test_jsonl_appends_one_line_per_message(tmp_path: Path) -> None:
    sink = JsonlSink(JsonlSinkConfig(path=tmp_path / "alerts.jsonl"))
    messages = [an_alert(n) for n in range(3)]
    for message in messages:
        sink.send(message, None)
    assert (tmp_path / "alerts.jsonl").read_text().splitlines() == [message.to_json() for message in messages]


def test_jsonl_removes_line_cut_off_by_crash(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"id":"whole"}\n{"id":"cut')
    JsonlSink(JsonlSinkConfig(path=path)).send(an_alert(id="next"), None)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["whole", "next"]


def test_jsonl_rotates_files(tmp_path: Path) -> None:
    line = len(an_alert(id="0").to_json()) + 1
    sink = JsonlSink(JsonlSinkConfig(path=tmp_path / "a.jsonl", max_mb=3 * line / 1e6, keep_files=2))
    for n in range(10):
        sink.send(an_alert(id=str(n)), None)
    names = {p.name: [json.loads(x)["id"] for x in p.read_text().splitlines()] for p in sorted(tmp_path.iterdir())}
    assert names == {"a.jsonl": ["9"], "a.jsonl.1": ["6", "7", "8"], "a.jsonl.2": ["3", "4", "5"]}


def test_jsonl_missing_folder_fails_with_file_name(tmp_path: Path) -> None:
    with pytest.raises(SinkFailed, match=r"nowhere/a\.jsonl: No such file") as failure:
        JsonlSink(JsonlSinkConfig(path=tmp_path / "nowhere" / "a.jsonl")).send(an_alert(), None)
    assert not failure.value.outcome_unknown


def test_require_writable_leaves_no_trace(tmp_path: Path) -> None:
    new, old = tmp_path / "new.jsonl", tmp_path / "old.jsonl"
    old.write_text('{"id":"cut')
    os.utime(old, (1, 1))
    for path in (new, old):
        require_writable(JsonlSinkConfig(path=path))
        assert JsonlSink(JsonlSinkConfig(path=path)).check() == f"{path} is writable"
    assert list(tmp_path.iterdir()) == [old] and old.read_text() == '{"id":"cut' and old.stat().st_mtime == 1
    for bad, reason in ((tmp_path, "Is a directory"), (tmp_path / "none" / "a.jsonl", "No such file")):
        with pytest.raises(EdgeError, match=f"sinks.jsonl.path: {bad}: expected a writable file, got {reason}"):
            require_writable(JsonlSinkConfig(path=bad))


def test_jsonl_leaves_no_partial_line_on_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from example_messages import a_camera_event\n"
        "from ppe_edge.delivery.sinks.jsonl import *\nfrom ppe_edge.delivery.sinks import SinkFailed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\nsink = JsonlSink(JsonlSinkConfig(path=Path(sys.argv[1])))\n"
        "n = 0\ntry:\n    while n < 100:\n        sink.send(a_camera_event(id='x' * 91), None)\n        n += 1\n"
        "except SinkFailed as error:\n    print(n, error.outcome_unknown)\n"
    )
    path = tmp_path / "a.jsonl"
    environment = child_environment()
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    line = len(a_camera_event(id="x" * 91).to_json()) + 1
    assert done.stdout.split() == [str(1000 // line), "False"]
    assert path.stat().st_size == 1000 // line * line


# --- webhook


class Webhook(ThreadingHTTPServer):
    """Answers with the statuses of the script, then 200; "hang" never answers, "close" closes the connection."""

    def __init__(self, *script: int | str) -> None:
        self.headers: dict[str, str] = {}  # added to the answers
        self.page = b""
        self.script, self.requests, self.released = list(script), [], threading.Event()  # type: ignore[var-annotated]
        self.checks: list[dict[str, str]] = []  # headers of the HEAD requests
        super().__init__(("127.0.0.1", 0), WebhookHandler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=hunter2"

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self.shutdown()
        super().__exit__(*exception)


class WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), json.loads(body)))
        step = self.server.script.pop(0) if self.server.script else 200
        if step == "hang":
            self.server.released.wait(60)
        elif step == "drip":  # one byte at a time, so that no single read times out
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.released.wait(0.1):
                self.wfile.write(b"X")
        elif step == "close":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.send_response(int(step))
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
            self.send_header("Content-Length", str(len(self.server.page)))
            self.end_headers()
            self.wfile.write(self.server.page)

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.checks.append(dict(self.headers))
        self.send_response(int(self.server.script.pop(0)))
        self.end_headers()


def webhook_sink(hook: Webhook, **values: Any) -> WebhookSink:
    return WebhookSink(WebhookSinkConfig(url=hook.url, **{"timeout_s": 0.5, **values}))


def test_webhook_whose_name_is_not_resolved_in_time_was_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait())
    sink = WebhookSink(WebhookSinkConfig(url="http://hook.example/", timeout_s=0.2))
    with pytest.raises(SinkFailed, match="cannot connect to the webhook: no answer in time") as failure:
        sink.send(an_alert(), None)
    released.set()
    sink.close()
    assert not failure.value.reached and not failure.value.outcome_unknown


def test_webhook_receives_message_and_id() -> None:
    with Webhook() as hook:
        sink = webhook_sink(hook, headers={"Authorization": "Bearer hunter3"})
        message = an_alert()
        sink.send(message, None)
        sink.close()
    ((path, headers, got),) = hook.requests
    assert path == "/hook?token=hunter2" and got == body_of(message)
    assert headers["Idempotency-Key"] == message.id and headers["Authorization"] == "Bearer hunter3"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (200, "reached, answered 200 to HEAD$"),
        (405, "reached, answered 405 to HEAD$"),
        (404, "answered 404 to HEAD: check sinks.webhook.url, unless it is so for HEAD only"),
        (301, "answered 301 to HEAD: set sinks.webhook.url to the final address"),
    ],
)
def test_webhook_check_shows_answer_and_posts_nothing(answer: int, words: str) -> None:
    with Webhook(answer) as hook:
        sink = webhook_sink(hook, headers={"Authorization": "Bearer hunter3"})
        assert re.search(words, sink.check())
        sink.close()
    assert hook.requests == [] and [headers["Authorization"] for headers in hook.checks] == ["Bearer hunter3"]


def test_webhook_check_fails_without_access_or_server() -> None:
    with Webhook(401, 503) as hook:
        sink = webhook_sink(hook)
        with pytest.raises(SinkFailed, match="answered 401: check the token"):
            sink.check()
        with pytest.raises(SinkFailed, match="answered 503"):
            sink.check()
    with pytest.raises(SinkFailed, match="cannot connect to the webhook: Connection refused"):
        sink.check()
    sink.close()


@pytest.mark.parametrize("answer", [400, 413, 422])
def test_webhook_client_error_refuses_message(answer: int) -> None:
    with Webhook(answer) as hook:
        sink = webhook_sink(hook)
        with pytest.raises(SinkRefused, match=str(answer)):
            sink.send(an_alert(), None)
        sink.close()


@pytest.mark.parametrize(
    ("answer", "unknown", "reached", "words"),
    [
        (401, False, True, "check the token"),
        (403, False, True, "what it allows"),
        (404, False, True, "check sinks.webhook.url"),
        (405, False, True, "does not accept POST"),
        (307, False, True, "redirects are not followed"),
        (429, False, False, "too many requests"),
        (500, True, True, "answered 500"),
        (503, True, True, "answered 503"),
        ("hang", True, True, "did not answer within 0.5 s: the server or the line is too slow"),
        ("drip", True, True, "the webhook did not answer"),
        ("close", True, True, "the webhook did not answer: ServerDisconnectedError"),
    ],
)
def test_webhook_failure_names_likely_cause_and_next_message_arrives(
    answer: int | str, unknown: bool, reached: bool, words: str
) -> None:
    with Webhook(answer) as hook:
        sink = webhook_sink(hook)
        with pytest.raises(SinkFailed, match=words) as failure:
            sink.send(an_alert(), None)
        assert (failure.value.outcome_unknown, failure.value.reached) == (unknown, reached)
        assert "hunter" not in str(failure.value)
        sink.send(an_alert(), None)
        sink.close()
    assert len(hook.requests) == 2


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("0", 0, 0), ("in an hour", 3590, 3601), ("soon", None, None), ("inf", None, None), ("-5", None, None)],
)
@pytest.mark.parametrize("years_wrong", [0, 50])
def test_webhook_retry_after_is_parsed_whatever_the_clock_of_the_box(
    header: str, low: float | None, high: float | None, years_wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if header == "in an hour":  # a date, written when the test runs: minutes may pass after the tests are collected
        header = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    if years_wrong:
        wrong = types.SimpleNamespace(now=lambda zone: datetime.now(zone) - timedelta(days=365 * years_wrong))
        monkeypatch.setattr("ppe_edge.delivery.sinks.webhook.datetime", wrong)
    with Webhook(429) as hook:
        hook.headers["Retry-After"] = header
        sink = webhook_sink(hook)
        with pytest.raises(SinkFailed) as failure:
            sink.send(an_alert(), None)
        wait = failure.value.retry_after_s
        assert wait is None if low is None or high is None else wait is not None and low <= wait <= high
        sink.close()


def test_webhook_that_answers_413_may_get_message_without_snapshot(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(1000))
    with Webhook(413, 200, 200) as hook:
        sink = webhook_sink(hook, attach_snapshot=True)
        first, second = an_alert(1), an_alert(2)
        with pytest.raises(SinkRefused, match=r"lower sinks\.webhook\.max_bytes") as refused:
            sink.send(first, tmp_path / "a.jpg")
        assert refused.value.maybe_too_large
        sink.send(first, None)
        sink.send(second, tmp_path / "a.jpg")  # the limit is known now
        sink.close()
    assert ["snapshot_base64" in body for _, _, body in hook.requests] == [True, False, False]


def test_webhook_and_notification_with_expired_certificate_name_it(tmp_path: Path) -> None:
    with TlsListener(expired_certificate(tmp_path)) as port:
        sink = WebhookSink(WebhookSinkConfig(url=f"https://localhost:{port}/hunter2"))
        with pytest.raises(
            SinkFailed, match=r"cannot connect to the webhook: .*check its certificate, and the clock"
        ) as failure:
            sink.send(an_alert(), None)
        assert not failure.value.reached and "hunter2" not in str(failure.value)
        sink.close()
        config = SinksConfig.model_validate({"notify": {"urls": f"jsons://localhost:{port}/hunter2"}})
        [notify] = build_sinks(config, None).values()
        with pytest.raises(SinkFailed, match="is not trusted: check it, and the clock of the box") as failure:
            notify.send(an_alert(), None)
        assert not failure.value.reached and not failure.value.outcome_unknown


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
PASSED = "-startdate 200101000000Z -enddate 200201000000Z"  # also for openssl before 3.4, whose `req` takes no dates
LOCALHOST = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"


def openssl(folder: Path, *commands: str) -> None:
    """Runs commands; `ca -config ca.cnf` is an authority in this folder."""
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01\n")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=here\n[here]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ndefault_md=sha256\npolicy=any\n"
        "copy_extensions=copy\n[any]\ncommonName=supplied\n"
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def expired_certificate(folder: Path) -> Path:
    """A certificate for localhost, with its key, that expired long ago."""
    openssl(
        folder,
        f"req {NEW_KEY} {LOCALHOST} -keyout key -out request",
        f"ca -batch -config ca.cnf -selfsign -keyfile key -in request -out expired.pem -notext {PASSED}",
    )
    file = folder / "expired.pem"
    file.write_text(file.read_text() + (folder / "key").read_text())
    return file


class TlsListener:
    """Accepts TLS connections on a free port, and closes them."""

    def __init__(
        self, certificate: Path, client_ca: Path | None = None, version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.maximum_version = version
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self._server = socket.create_server(("127.0.0.1", 0))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with contextlib.suppress(ssl.SSLError), client:
                    self._context.wrap_socket(client, server_side=True)

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._server.getsockname()[1])

    def __exit__(self, *exception: object) -> None:
        self._server.close()


def test_unreachable_webhook_has_known_outcome() -> None:
    sink = WebhookSink(WebhookSinkConfig(url=f"http://user:hunter2@127.0.0.1:{free_port()}/"))
    with pytest.raises(SinkFailed, match="cannot connect") as failure:
        sink.send(an_alert(), None)
    assert not failure.value.outcome_unknown and "hunter2" not in str(failure.value)
    sink.close()


@pytest.mark.parametrize(("size", "attached"), [(1000, True), (10_000, False)])
def test_webhook_attaches_snapshot_if_enabled_and_small_enough(tmp_path: Path, size: int, attached: bool) -> None:
    snapshot = tmp_path / "a.jpg"
    snapshot.write_bytes(bytes(size))
    with Webhook() as hook:
        for wanted in (False, True):
            sink = webhook_sink(hook, attach_snapshot=wanted, max_bytes=5000)
            sink.send(an_alert(), snapshot)
            sink.close()
    without, with_ = (got for _, _, got in hook.requests)
    assert "snapshot_base64" not in without
    assert ("snapshot_base64" in with_) is attached
    if attached:
        assert base64.b64decode(with_["snapshot_base64"]) == bytes(size)


@pytest.mark.parametrize(("page", "warnings"), [(b"<!DOCTYPE html><HTML><form>Login</form></HTML>", 1), (b"ok", 0)])
def test_webhook_that_answers_with_a_web_page_is_reported_once(
    page: bytes, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Webhook(302) as hook:
        hook.page, hook.headers["Content-Type"] = page, "text/html; charset=utf-8"
        sink = webhook_sink(hook)
        with pytest.raises(SinkFailed, match="answered 302"):
            sink.send(an_alert(), None)
        assert caplog.messages == []  # a redirect confirms nothing
        for number in range(2):
            sink.send(an_alert(number), None)
        sink.close()
    assert caplog.text.count("the answer is a web page") == warnings and len(hook.requests) == 3


@pytest.mark.parametrize("header", [("Authorization", "Bearer hunter3\n"), ("X Y", "hunter3"), ("Grün", "hunter3")])
def test_webhook_with_header_that_cannot_be_sent_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(ValidationError, match="expected") as refused:
        WebhookSinkConfig(url="http://host/", headers=dict([header]))
    assert "hunter" not in str(refused.value)


def test_webhook_config_hides_secrets() -> None:
    config = WebhookSinkConfig(url="http://gate:hunter2@host/", headers={"Authorization": "hunter3"})
    assert "hunter" not in repr(config) + str(config) + config.model_dump_json()
    with pytest.raises(ValidationError) as refused:
        WebhookSinkConfig(url="ftp://gate:hunter2@host/")
    assert "hunter2" not in str(refused.value)


# --- MQTT


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def mqtt_sink(broker: Broker, **values: Any) -> MqttSink:
    return MqttSink(
        MqttSinkConfig(**{"host": "localhost", "port": broker.port, "ca_file": broker.ca_file, "timeout_s": 2, **values})
    )


@needs_mosquitto
def test_mqtt_send_returns_when_broker_has_message(broker: Broker) -> None:
    with Receiver(broker, "ppe_edge/#") as receiver:
        sink = mqtt_sink(broker)
        messages = [an_alert(n) for n in range(3)]
        for message in messages:
            sink.send(message, None)
        wait_until(lambda: len(receiver.messages) == 3)
        assert receiver.bodies() == [body_of(message) for message in messages]
        assert {topic for topic, _ in receiver.messages} == {"ppe_edge/alert"}
        sink.close()


@needs_mosquitto
def test_mqtt_check_connects_and_publishes_nothing(broker: Broker, tmp_path: Path) -> None:
    with Receiver(broker, "ppe_edge/#", "checker") as receiver:
        sink = mqtt_sink(broker)
        assert sink.check() == f"connected to localhost:{broker.port}"
        message = an_alert(1)
        sink.send(message, None)
        wait_until(lambda: receiver.messages)
        assert receiver.bodies() == [body_of(message)]
        sink.close()
    with pytest.raises(SinkFailed, match=r"cannot read the certificates .*none\.pem"):
        mqtt_sink(broker, ca_file=tmp_path / "none.pem").check()
    with HangupBroker(on_connect=False) as rude, pytest.raises(SinkFailed, match="disconnected instead of answering"):
        plain_sink(rude).check()


@needs_mosquitto
def test_mqtt_connection_lost_during_write_is_failure(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = mqtt_sink(broker)
    sink.send(an_alert(1), None)

    def cut_off(*_: object, **__: object) -> None:
        raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")  # as if the broker was killed just now

    monkeypatch.setattr("paho.mqtt.client.Client._packet_write", cut_off)
    with pytest.raises(SinkFailed, match=r"the connection was lost: the broker stopped, or .* ppe_edge/alert") as failure:
        sink.send(an_alert(2), None)
    assert failure.value.outcome_unknown
    monkeypatch.undo()
    sink.send(an_alert(2), None)
    sink.close()


@needs_mosquitto
def test_mqtt_recovers_from_killed_and_frozen_broker(broker: Broker) -> None:
    descriptors = Path("/proc/self/fd")
    with Receiver(broker, "ppe_edge/#", "survivor") as receiver:
        sink = mqtt_sink(broker)
        sink.send(an_alert(1), None)
        before = len(list(descriptors.iterdir()))
        broker.kill()
        with pytest.raises(SinkFailed):
            sink.send(an_alert(2), None)
        with pytest.raises(SinkFailed, match="cannot connect") as failure:
            sink.send(an_alert(2), None)
        assert not failure.value.outcome_unknown
        broker.start()
        sink.send(an_alert(2), None)
        broker.freeze()
        with pytest.raises(SinkFailed, match="no confirmation within 2 s") as failure:
            sink.send(an_alert(3), None)
        assert failure.value.outcome_unknown
        broker.thaw()
        again = an_alert(4)
        sink.send(again, None)
        wait_until(lambda: body_of(again) in receiver.bodies())
        del failure  # its traceback references the broken connection
        wait_until(lambda: len(list(descriptors.iterdir())) <= before)
        sink.close()


@needs_mosquitto
def test_mqtt_rejects_broker_with_untrusted_certificate(broker: Broker, tmp_path: Path) -> None:
    with Broker(tmp_path / "other") as other:
        sink = mqtt_sink(broker, port=other.port)
        with pytest.raises(SinkFailed, match="CERTIFICATE_VERIFY_FAILED"):
            sink.send(an_alert(), None)
        sink.close()


@needs_mosquitto
def test_mqtt_unreadable_certificate_is_named(broker: Broker, tmp_path: Path) -> None:
    sink = mqtt_sink(broker, ca_file=tmp_path / "none.pem")
    with pytest.raises(SinkFailed, match=r"none\.pem"):
        sink.send(an_alert(), None)


def plain_sink(broker: HangupBroker, **values: Any) -> MqttSink:
    return MqttSink(MqttSinkConfig(**{"host": "127.0.0.1", "port": broker.port, "tls": False, "timeout_s": 5, **values}))


def test_mqtt_default_limit_fits_large_cloud_brokers() -> None:
    assert MqttSinkConfig(host="localhost").max_bytes < 128 * 1024 - 1024  # room for the topic and the header


def test_mqtt_broker_that_disconnects_on_connect_is_named() -> None:
    with HangupBroker(on_connect=False) as broker:
        sink = plain_sink(broker)
        with pytest.raises(SinkFailed, match=r"it disconnected instead of answering: check sinks\.mqtt\.client_id") as failure:
            sink.send(an_alert(), None)
        assert not failure.value.reached and not failure.value.outcome_unknown


def test_mqtt_connection_is_used_by_one_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL does not allow two threads in one connection, and Python does not prevent it."""
    threads = set()
    send, close = paho.Client._sock_send, paho.Client._sock_close

    def note(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(client: paho.Client, *arguments: Any) -> Any:
            # clients of earlier tests are closed wherever the garbage collector runs
            if client._sock is not None and client._port == broker.port:
                threads.add(threading.current_thread().name)
            return method(client, *arguments)

        return noted

    with HangupBroker() as broker:
        monkeypatch.setattr(paho.Client, "_sock_send", note(send))
        monkeypatch.setattr(paho.Client, "_sock_close", note(close))
        sink = plain_sink(broker)
        for number in range(3):
            sink.send(an_alert(number), None)
        sink.close()
    assert threads == {"mqtt"} and len(broker.received) == 3


def test_mqtt_broker_that_confirms_and_disconnects_has_not_taken_message(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(5000))
    with HangupBroker(max_bytes=2000, confirms=True) as broker:
        sink = plain_sink(broker, attach_snapshot=True)
        with pytest.raises(
            SinkFailed, match="confirmed the message and disconnected at once, so it may have dropped"
        ) as failure:
            sink.send(an_alert(), tmp_path / "a.jpg")
        assert failure.value.outcome_unknown and failure.value.reached and failure.value.maybe_too_large
        sink.send(an_alert(), None)
        sink.close()
    assert (broker.hangups, len(broker.received)) == (1, 1)


def test_mqtt_session_is_clean_and_message_is_not_retained() -> None:
    with HangupBroker() as broker:
        sink = plain_sink(broker, client_id="gate")
        sink.send(an_alert(), None)
        sink.close()
        assert [flags & 2 for flags in broker.connect_flags] == [2]
        assert broker.retained == 0


def test_mqtt_second_client_of_same_id_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with HangupBroker(takeover=True) as broker:
        boxes = [plain_sink(broker, client_id="gate") for _ in range(2)]
        for n in range(5):
            for box, other in (boxes, boxes[::-1]):
                box.send(an_alert(n), None)  # every message arrives nevertheless
                # a box that has not noticed yet that its connection is closed would lose it during its next message
                wait_until(lambda other=other: other._connection is None or not other._connection.alive)
        assert len(broker.received) == 10
        for box in boxes:
            box.close()
    assert caplog.text.count("another client uses the same id 'gate'") == 2  # once per box


@needs_mosquitto
def test_mqtt_expired_certificate_is_named(tmp_path: Path) -> None:
    certificate = expired_certificate(tmp_path)
    with TlsListener(certificate) as port:
        sink = MqttSink(MqttSinkConfig(host="localhost", port=port, ca_file=certificate, timeout_s=5))
        with pytest.raises(SinkFailed, match=r"certificate has expired.*renew the broker's certificate, or set the clock"):
            sink.send(an_alert(), None)


def expired_client_certificate(folder: Path) -> tuple[Path, Path]:
    """Returns a server's certificate, which is its own CA, and a client certificate of this CA that expired; both with keys."""
    openssl(
        folder,
        f"req -x509 {NEW_KEY} -days 2 {LOCALHOST} -keyout server.key -out server.pem",
        f"req {NEW_KEY} -subj /CN=box -keyout box.key -out request",
        f"ca -batch -config ca.cnf -cert server.pem -keyfile server.key -in request -out box.pem -notext {PASSED}",
    )
    for name in ("server", "box"):
        with (folder / f"{name}.pem").open("a") as file:
            file.write((folder / f"{name}.key").read_text())
    return folder / "server.pem", folder / "box.pem"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (ssl.TLSVersion.TLSv1_2, "does not accept the certificate in sinks.mqtt.cert_file: renew it if it has expired"),
        # the broker decides after the client's side of the handshake, so that the client may only see a lost connection
        (
            ssl.TLSVersion.TLSv1_3,
            r"certificate in sinks\.mqtt\.cert_file: renew it|the client certificate \(it may have expired",
        ),
    ],
)
def test_mqtt_expired_client_certificate_is_named(tmp_path: Path, version: ssl.TLSVersion, reason: str) -> None:
    server, box = expired_client_certificate(tmp_path)
    with TlsListener(server, client_ca=server, version=version) as port:
        sink = MqttSink(MqttSinkConfig(host="localhost", port=port, ca_file=server, cert_file=box, key_file=box, timeout_s=20))
        with pytest.raises(SinkFailed, match=reason):
            sink.send(an_alert(), None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"password": "hunter2"}, "needs a username"),
        ({"tls": False, "ca_file": "a.pem"}, "need tls"),
        ({"cert_file": "a.pem"}, "belong together"),
        ({"topic": "ppe/#"}, "pattern"),
    ],
)
def test_mqtt_config_with_contradicting_settings_is_rejected(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        MqttSinkConfig(host="localhost", **values)
    assert "hunter2" not in str(refused.value)
