"""The web server: authentication, content, and robustness against slow and hostile clients."""

import contextlib
import http.client
import json
import logging
import socket
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from helpers import wait_until
from ppe_edge.compliance.periods import Row, Unit
from ppe_edge.compliance.store import Count
from ppe_edge.errors import EdgeError, NotReadyError
from ppe_edge.monitoring.telemetry import CameraFigures, Collected, SinkFigures, Telemetry
from ppe_edge.web import server as web
from ppe_edge.web.config import WebConfig, listen
from ppe_edge.web.server import WebServer
from pydantic import ValidationError

TOKEN = "a-token-of-the-gate-0123456789"
JPEG = b"\xff\xd8 an image"
NO_DESK: Any = None  # test_alerts has one
NO_RULES: Any = None  # test_rules changes some


class Box:
    """The status of a box with one camera."""

    def __init__(self) -> None:
        self.is_ready = True
        self.current_trouble = ""
        figures = CameraFigures(state="live", frames=12, dropped=3, reconnects=1, errors=0, age=0.25)
        messages = SinkFigures(waiting=7, set_aside=2)
        self.telemetry = Telemetry(Collected(lambda: {"gate": figures}, lambda: {"mqtt": messages}, lambda: True))

    def alive(self) -> bool:
        return True

    def ready(self) -> bool:
        return self.is_ready

    def trouble(self) -> str:
        return self.current_trouble

    def state(self) -> dict[str, Any]:
        return {"cameras": [{"name": "gate"}]}

    def live(self, camera: str) -> bytes | None:
        return JPEG if camera == "gate" else None

    def metrics(self) -> bytes:
        return self.telemetry.text()

    def shifts(self) -> list[str]:
        return ["early"]

    def compliance(self, unit: Unit, days: int) -> tuple[datetime, list[Row]]:
        if days == 13:
            raise sqlite3.OperationalError("disk I/O error")
        start = datetime(2027, 1, 15, 6, tzinfo=UTC)
        return start, [Row(start=start, shift="", camera="gate", rule="default", zone="lane", count=Count(days, 1))]

    def compliance_page(self, unit: Unit, days: int) -> str:
        return f"<p>{unit} {days}"


@contextlib.contextmanager
def serving(status: Box, **config: Any) -> Iterator[WebServer]:
    server = WebServer(WebConfig(port=0, **config), status, NO_DESK, NO_RULES)
    server.start()
    try:
        yield server
    finally:
        assert server.stop(5.0)


@pytest.fixture
def guarded() -> Iterator[WebServer]:
    with serving(Box(), token=TOKEN) as server:
        yield server


@pytest.fixture
def local() -> Iterator[WebServer]:
    with serving(Box()) as server:
        yield server


def ask(
    server: WebServer, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_loopback_server_without_token_serves_everything(local: WebServer) -> None:
    assert ask(local, "/api/state")[:2] == (200, b'{"cameras": [{"name": "gate"}], "role": "operator"}')
    status, body, headers = ask(local, "/cameras/gate/live.jpg")
    assert (status, body, headers["Content-Type"]) == (200, JPEG, "image/jpeg")
    assert ask(local, "/cameras/yard/live.jpg")[0] == 404
    for page in ("/", "/app.js", "/style.css", "/login"):
        status, body, headers = ask(local, page)
        assert status == 200 and len(body) > 100 and b"Sign out" not in body  # nobody has signed in
        assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"


def test_metrics_contain_every_figure(local: WebServer) -> None:
    status, body, headers = ask(local, "/metrics")
    lines = body.decode().splitlines()
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'ppe_edge_camera_frames_total{camera="gate"} 12.0' in lines
    assert 'ppe_edge_camera_dropped_total{camera="gate"} 3.0' in lines
    assert 'ppe_edge_camera_state{camera="gate",state="live"} 1.0' in lines
    assert 'ppe_edge_camera_state{camera="gate",state="lost"} 0.0' in lines
    assert 'ppe_edge_outbox_waiting{sink="mqtt"} 7.0' in lines
    assert 'ppe_edge_outbox_set_aside{sink="mqtt"} 2.0' in lines


def test_compliance_is_served_as_json_csv_and_page(local: WebServer) -> None:
    answer = json.loads(ask(local, "/api/compliance?unit=day&days=3")[1])
    assert (answer["shifts"], answer["start"]) == (["early"], "2027-01-15 06:00")
    assert [(r["label"], r["compliant"]) for r in answer["rows"]] == [("01-15", 3)]
    status, body, headers = ask(local, "/compliance.csv?unit=week")
    assert status == 200 and headers["Content-Type"].startswith("text/csv")
    assert body.decode().splitlines()[1] == "2027-01-15T06:00:00+00:00,,gate,default,lane,182,1,99.5"
    _, body, headers = ask(local, "/compliance.html")
    assert body == b"<p>hour 1" and "script" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("query", ["unit=year", "days=0", "days=-1", "days=x", "days=99999", f"days={'9' * 5000}", "unit=<b>"])
def test_compliance_rejects_unknown_period(local: WebServer, query: str) -> None:
    assert ask(local, f"/api/compliance?{query}")[0] == 400


def test_compliance_that_cannot_be_read_is_unavailable(local: WebServer) -> None:
    status, body, _ = ask(local, "/compliance.csv?days=13")
    assert (status, body) == (503, b"the figures cannot be read: disk I/O error\n")


def test_health_checks_need_no_token_and_report_state() -> None:
    box = Box()
    with serving(box, token=TOKEN) as server:
        assert ask(server, "/healthz")[0] == ask(server, "/readyz")[0] == 200
        box.is_ready = False
        assert ask(server, "/readyz")[0] == 503 and ask(server, "/healthz")[0] == 200
        assert ask(server, "/healthz")[1] == b"ok\n"
        box.current_trouble = "the disk is full"  # which a new start would only make worse
        assert ask(server, "/healthz")[:2] == (200, b"ok\nthe disk is full\n")


@pytest.mark.parametrize("path", ["/api/state", "/cameras/gate/live.jpg", "/metrics", "/app.js", "/compliance.csv", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-wrong-wrong-wrong"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xe9\xff"},
        {"Cookie": f"ppe_edge_session_PORT={TOKEN}"},
        {"Cookie": "ppe_edge_session_PORT="},
    ],
)
def test_request_without_token_is_rejected(guarded: WebServer, path: str, headers: dict[str, str]) -> None:
    named = {name: value.replace("PORT", str(guarded.port)) for name, value in headers.items()}
    status, body, _ = ask(guarded, path, **named)
    assert status == 401 and JPEG not in body and b"gate" not in body


def test_token_in_address_is_ignored(guarded: WebServer) -> None:
    assert ask(guarded, f"/api/state?token={TOKEN}&access_token={TOKEN}")[0] == 401


def test_bearer_token_is_accepted(guarded: WebServer) -> None:
    assert ask(guarded, "/api/state", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_login_sets_session_cookie_that_is_not_token(guarded: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status, _, headers = ask(guarded, "/")
    assert (status, headers["Location"]) == (303, "login")
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert ask(guarded, "/login", "POST", b"token=wrong-wrong-wrong-wrong", **form)[0] == 401
    assert ask(guarded, "/login", "POST", b"nothing", **form)[0] == 401
    status, _, headers = ask(guarded, "/login", "POST", urllib.parse.urlencode({"token": TOKEN}).encode(), **form)
    cookie = headers["Set-Cookie"]
    assert (status, headers["Location"]) == (303, "./")
    assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    session = {"Cookie": cookie.split(";")[0]}
    assert ask(guarded, "/logout", "POST", b"", Sec_Fetch_Site="cross-site", **session)[0] == 403
    assert ask(guarded, "/api/state", **session)[0] == 200 and b"Sign out" in ask(guarded, "/", **session)[1]
    status, _, headers = ask(guarded, "/logout", "POST", b"", **session)
    assert (status, headers["Location"]) == (303, "login")
    assert ask(guarded, "/api/state", **session)[0] == 401
    assert cookie.startswith(f"ppe_edge_session_{guarded.port}=")  # browsers send cookies to other ports of a host, too
    assert TOKEN not in caplog.text and "wrong-wrong" not in caplog.text


@pytest.mark.parametrize(
    ("requested", "redirect", "location"),
    [
        ("/alerts.html", "login?to=alerts.html", "alerts.html"),
        ("/nosuch.html", "login", "./"),
        ("/login.html", "login", "./"),
        (None, "login?to=//evil.example/", "./"),
        (None, "login?to=https://evil.example/alerts.html", "./"),
        (None, "login?to=../alerts.html", "./"),
        (None, "login?to=alerts.html%0d%0aX-Evil:1", "./"),
    ],
)
def test_login_leads_to_requested_page_and_nowhere_else(
    guarded: WebServer, requested: str | None, redirect: str, location: str
) -> None:
    if requested is not None:
        status, _, headers = ask(guarded, requested)
        assert (status, headers["Location"]) == (303, redirect)
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _, headers = ask(guarded, f"/{redirect}", "POST", f"token={TOKEN}".encode(), **form)
    assert (status, headers["Location"]) == (303, location)


@pytest.mark.parametrize(
    "path",
    [
        "/../web.py",
        "/..%2fweb.py",
        "/%2e%2e/%2e%2e/web.py",
        "/static/../web.py",
        "//etc/passwd",
        "/cameras/../../etc/passwd/live.jpg",
        "/cameras/..%2f..%2fetc%2fpasswd/live.jpg",
        "/cameras/gate%00/live.jpg",
    ],
)
def test_path_traversal_is_rejected(local: WebServer, path: str) -> None:
    status, body, _ = ask(local, path)
    assert status in (400, 404) and b"root:" not in body and b"import" not in body


def test_oversized_body_is_rejected(guarded: WebServer) -> None:
    body = b"token=" + b"a" * (1 << 20)
    assert ask(guarded, "/login", "POST", body, Content_Type="application/x-www-form-urlencoded")[0] == 413
    assert ask(guarded, "/healthz")[0] == 200


def test_nonsense_of_strangers_is_refused_and_logged_seldom(
    guarded: WebServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = "application/x-www-form-urlencoded"
    for body, headers in (
        (b"no gzip", {"Content_Type": form, "Content_Encoding": "gzip"}),
        (b"token=\xff", {"Content_Type": form}),
        (b"token=x", {"Content_Type": f"{form}; charset=bogus"}),
        (b"no parts", {"Content_Type": "multipart/form-data"}),
    ):
        assert ask(guarded, "/login", "POST", body, **headers)[0] in (400, 401)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        assert b" 400 " in client.recv(100)
    # a disk that is full of log lines has no room for alerts
    assert sorted(record.name for record in caplog.records) == ["ppe_edge.web.server.clients", "ppe_edge.web.server.logins"]
    monkeypatch.setattr(web, "LOG_INTERVAL", 0.0)
    assert ask(guarded, "/login", "POST", b"token=x", Content_Type=form)[0] == 401
    assert "web: wrong token from 127.0.0.1 (2 more like this since the last one)" in caplog.messages
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nAuthorization: Bearer %s\r\r\n\r\n" % TOKEN.encode())  # from a file of Windows
        assert b" 400 " in client.recv(100)
    assert TOKEN not in caplog.text and "Error handling request from 127.0.0.1: BadHttpMessage" in caplog.text


def test_error_of_the_page_itself_is_always_logged(caplog: pytest.LogCaptureFixture) -> None:
    box = Box()
    box.state = lambda: {}["a bug"]  # type: ignore[method-assign]
    with serving(box) as server:
        for _ in range(2):
            status, _, headers = ask(server, "/api/state")
            assert status == 500 and headers["Cache-Control"] == "no-store"
    assert caplog.messages == ["web: cannot answer GET /api/state"] * 2
    assert caplog.text.count("KeyError: 'a bug'") == 2


def test_login_sent_by_another_site_is_refused(guarded: WebServer) -> None:
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "cross-site"}
    assert ask(guarded, "/login", "POST", f"token={TOKEN}".encode(), **headers)[0] == 403


def test_foreign_host_header_is_rejected(local: WebServer) -> None:
    assert ask(local, "/api/state", Host="evil.example")[0] == 403
    assert ask(local, "/api/state", Host=f"localhost:{local.port}")[0] == 200


def test_slow_clients_are_disconnected_while_others_are_served(guarded: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE_TIMEOUT", 3.0)
    slow = [socket.create_connection(("127.0.0.1", guarded.port), timeout=20) for _ in range(200)]
    try:
        for i, client in enumerate(slow):
            # one half never finishes its headers, the other announces a body that never comes
            start = (
                b"GET / HTTP/1.1\r\nHost: x\r\n" if i % 2 else b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nt"
            )
            with contextlib.suppress(OSError):
                client.sendall(start)
        for _ in range(5):
            assert ask(guarded, "/api/state", Authorization=f"Bearer {TOKEN}")[0] == 200
        wait_until(lambda: guarded.connections <= web.MAX_CONNECTIONS)
        for client in slow:
            with contextlib.suppress(OSError):  # a reset closes the connection too; a timeout does not, and fails below
                while client.recv(4096):
                    pass
        wait_until(lambda: guarded.connections == 0)
    finally:
        for client in slow:
            client.close()


def test_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE_TIMEOUT", 0.2)
    box = Box()
    box.live = lambda camera: time.sleep(0.6) or bytes(32 << 20)  # type: ignore[method-assign, func-returns-value]
    with serving(box) as server:
        assert len(ask(server, "/cameras/gate/live.jpg")[1]) == 32 << 20  # an answer may take longer than a request
        monkeypatch.setattr(web, "ANSWER_TIMEOUT", 0.7)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"GET /cameras/gate/live.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: server.connections == 1)
            wait_until(lambda: server.connections == 0)
        assert ask(server, "/healthz")[0] == 200


def test_page_is_bound_to_an_address_that_the_network_has_not_given_yet(caplog: pytest.LogCaptureFixture) -> None:
    config = WebConfig.model_validate({"host": "192.0.2.77", "port": 0, "token": TOKEN})
    with listen(config) as listener:
        assert listener.getsockname()[0] == "192.0.2.77"
    assert caplog.messages == [
        "web.host: no network interface has the address 192.0.2.77 yet: the page is reachable once one has it; if none ever "
        "does, correct web.host"
    ]


def test_name_that_cannot_be_resolved_yet_may_be_tried_again() -> None:
    config = WebConfig.model_validate({"host": "box..invalid", "port": 0, "token": TOKEN})
    with pytest.raises(NotReadyError, match=r"^web\.host: box\.\.invalid: .+: write an IP address, or let the network resolve"):
        listen(config)


def test_port_in_use_is_user_error(local: WebServer) -> None:
    with pytest.raises(EdgeError, match=rf"web: cannot listen on 127.0.0.1:{local.port} .*choose another web.port"):
        WebServer(WebConfig(port=local.port), Box(), NO_DESK, NO_RULES)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gate.example"])
def test_config_for_public_address_requires_token(host: str) -> None:
    with pytest.raises(ValidationError, match="set a token"):
        WebConfig(host=host)
    assert TOKEN not in repr(WebConfig(host=host, token=TOKEN))


def test_config_rejects_short_token() -> None:
    with pytest.raises(ValidationError, match="at least 16"):
        WebConfig(token="short")
