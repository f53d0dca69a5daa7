"""Alerts and verdicts over HTTP: what viewers and operators may do, and what other sites and hostile requests may not."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from example_messages import NOON, a_camera_event, a_closing, an_alert
from judged_box import CONTRACT, Box
from ppe_edge.delivery.messages import clip_of
from ppe_edge.web.config import WebConfig
from ppe_edge.web.server import WebServer
from ppe_edge.web.status import ALERTS_SHOWN, row, rows
from pydantic import ValidationError

OPERATOR, VIEWER = "operators-of-the-gate-0123", "viewers-of-the-gate-01234"
NOBODY = "00000000-0000-0000-0000-000000000000"
CONFIRM = {"verdict": "confirmed"}


class Status:
    """A box of which these tests ask nothing but its state."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: {}


class Client:
    """Sends requests to a server whose box has one alert."""

    def __init__(self, box: Box, server: WebServer) -> None:
        self.box, self.server, self.port, self.id = box, server, server.port, box.alert.id

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            self.headers = answer.headers
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str, token: str = OPERATOR) -> tuple[int, bytes]:
        return self.ask(path, Authorization=f"Bearer {token}")

    def decide(self, decision: object, token: str = OPERATOR, alert: str = "", **headers: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Content_Type": "application/json", **headers}
        body = decision if isinstance(decision, bytes) else json.dumps(decision).encode()
        return self.ask(f"/api/alerts/{alert or self.id}/verdict", "POST", body, **headers)

    def verdict(self) -> str | None:
        past = self.box.desk.history.alert(self.id)
        return None if past is None or past.verdict is None else past.verdict.verdict


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    box = Box(tmp_path_factory.mktemp("box"), "full")
    server = WebServer(WebConfig(port=0, token=OPERATOR, viewer_token=VIEWER), Status(), box.desk, Status())
    server.start()
    yield Client(box, server)
    assert server.stop(5.0)
    box.close()


@pytest.fixture
def client(served: Client) -> Client:
    """The alert has no verdict."""
    if served.verdict() is not None:
        served.box.decide(None)
    return served


def test_alert_is_listed_and_judged(client: Client) -> None:
    [listed] = json.loads(client.get("/api/alerts")[1])["alerts"]
    assert (listed["camera"], listed["what"], listed["verdict"], listed["score"]) == ("gate", "bare head", None, 0.75)
    status, body = client.decide({"verdict": "false_alarm", "actual": "helmet", "comment": "white helmet"})
    assert status == 200
    judged = json.loads(body)
    assert (judged["verdict"], judged["actual"], judged["comment"]) == ("false_alarm", "helmet", "white helmet")
    assert judged["acknowledged"] and judged["has_frame"]
    first, *_, last = (event["text"] for event in judged["events"])
    assert (first, last) == ("raised", "false alarm: helmet: white helmet")
    listed = json.loads(client.get("/api/alerts")[1])
    assert listed["precision"]["confirmed"] == 0 and listed["precision"]["false_alarms"] == 1
    assert listed["precision"]["interval"] == pytest.approx([0.0, 0.793], abs=1e-3)
    assert listed["causes"] == {"helmet": "helmet", "none": "bare head", "other": "something else"}


def test_decision_on_a_verdict_that_was_replaced_meanwhile_is_refused(client: Client) -> None:
    before = json.loads(client.get(f"/api/alerts/{client.id}")[1])
    seen, confirmed = before["verdict_id"], [event["text"] for event in before["events"]].count("confirmed")
    first, second = ({"verdict": verdict, "replaces": seen} for verdict in ("confirmed", "false_alarm"))
    assert client.decide(first)[0] == 200
    status, body = client.decide(second)
    assert (status, body) == (409, b"somebody else has judged this alert in the meantime: look at it again, then decide\n")
    assert client.verdict() == "confirmed"
    assert client.decide(first)[0] == 200  # sent again, because its answer was lost
    assert client.decide({**first, "comment": "by another"})[0] == 409
    judged = json.loads(client.get(f"/api/alerts/{client.id}")[1])
    assert [event["text"] for event in judged["events"]].count("confirmed") == 1 + confirmed  # the sinks get it once
    seen = judged["verdict_id"]
    assert client.decide({**second, "replaces": seen})[0] == 200
    assert client.verdict() == "false_alarm"


@pytest.mark.parametrize(("second", "answers"), [("false_alarm", [200, 409]), ("confirmed", [200, 200])])
def test_two_decisions_at_once_are_one(
    client: Client, second: str, answers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two different ones is refused; two equal ones are one that was sent again."""
    before = json.loads(client.get(f"/api/alerts/{client.id}")[1])
    seen = before["verdict_id"]
    put, both = client.box.outbox.put, threading.Barrier(2)

    def put_together(*arguments: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one does not come
            both.wait(0.3)
        put(*arguments)

    monkeypatch.setattr(client.box.outbox, "put", put_together)
    with ThreadPoolExecutor(2) as pool:
        others = [Client(client.box, client.server) for _ in range(2)]
        wanted = [{"verdict": verdict, "replaces": seen} for verdict in ("confirmed", second)]
        decisions = pool.map(lambda other, decision: other.decide(decision)[0], others, wanted)
        assert sorted(decisions) == answers
    after = json.loads(client.get(f"/api/alerts/{client.id}")[1])
    assert len(after["events"]) == len(before["events"]) + 1


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1), ("?camera=gate&rule=default&verdict=open", 1), ("?camera=yard", 0), ("?rule=vest", 0),
        ("?verdict=confirmed", 0), ("?before=1", 0), ("?camera=%27%20OR%201=1", 0),
    ],
)  # fmt: skip
def test_list_is_filtered(client: Client, query: str, count: int) -> None:
    status, body = client.get(f"/api/alerts{query}")
    assert status == 200 and len(json.loads(body)["alerts"]) == count


@pytest.mark.parametrize("query", ["verdict=maybe", "days=0", "days=nan", "days=x", "before=-1", "before=x", f"before={2**70}"])
def test_unreadable_filter_is_rejected(client: Client, query: str) -> None:
    assert client.get(f"/api/alerts?{query}")[0] == 400


def test_rows_of_live_page_leave_out_clips() -> None:
    assert row(clip_of(an_alert(), offset_s=-4.0, duration_s=9.0), CONTRACT) is None
    messages = [message for n in range(ALERTS_SHOWN + 1) for message in (clip_of(an_alert(n), -4.0, 9.0), an_alert(n))]
    assert [shown["time"] for shown in rows(messages, CONTRACT)] == [NOON + n for n in range(ALERTS_SHOWN)]
    ended = a_closing().model_copy(update={"end": "stopped"})
    assert (shown := row(ended, CONTRACT)) is not None and shown["what"] == "monitoring stopped: bare head"
    events = [a_camera_event(event="view_turned", detail="by 12 %"), a_camera_event(event="lost")]
    assert [shown["what"] for event in events if (shown := row(event, CONTRACT))] == ["view turned: by 12 %", "lost"]


def test_images_of_alert_are_served_and_their_viewing_recorded(client: Client) -> None:
    widths = {}
    for name in ("snapshot", "thumbnail", "frame"):
        status, jpeg = client.get(f"/alerts/{client.id}/{name}.jpg")
        assert (
            status == 200 and client.headers["Content-Type"] == "image/jpeg" and client.headers["Cache-Control"] == "no-store"
        )
        widths[name] = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1]
    assert widths == {"snapshot": 120, "thumbnail": 30, "frame": 120}
    assert "127.0.0.1" in (client.box.folder / "viewings.jsonl").read_text()
    assert client.get(f"/alerts/{NOBODY}/snapshot.jpg")[0] == client.get(f"/api/alerts/{NOBODY}")[0] == 404


def test_clip_of_alert_is_served_whole_and_by_ranges_of_bytes(client: Client) -> None:
    path = f"/alerts/{client.id}/clip.mp4"
    assert client.get(path)[0] == 404 and json.loads(client.get(f"/api/alerts/{client.id}")[1])["has_clip"] is False
    video = bytes(range(200))
    client.box.outbox.put(clip_of(client.box.alert, -5.0, 10.0), video)
    details = json.loads(client.get(f"/api/alerts/{client.id}", VIEWER)[1])
    assert details["has_clip"] is True and details["events"][-1]["text"] == "clip, from 5.0 s before to 5.0 s after the alert"
    assert client.get(path, VIEWER) == (200, video)
    kept = ("Content-Type", "Accept-Ranges", "Cache-Control", "X-Content-Type-Options")
    assert [client.headers[name] for name in kept] == ["video/mp4", "bytes", "no-store", "nosniff"]
    for wanted, status, where, body in (
        ("bytes=0-1", 206, "bytes 0-1/200", b"\x00\x01"),  # what Safari asks first
        ("bytes=10-12", 206, "bytes 10-12/200", b"\x0a\x0b\x0c"),
        ("bytes=197-", 206, "bytes 197-199/200", b"\xc5\xc6\xc7"),
        ("bytes=-2", 206, "bytes 198-199/200", b"\xc6\xc7"),
        ("bytes=199-999", 206, "bytes 199-199/200", b"\xc7"),
        ("bytes=200-", 416, "bytes */200", b""),
        ("bytes=5-2", 416, "bytes */200", b""),
    ):
        assert client.ask(path, Range=wanted, Authorization=f"Bearer {OPERATOR}") == (status, body), wanted
        assert client.headers["Content-Range"] == where and "media-src 'self'" in client.headers["Content-Security-Policy"]
    assert client.get(f"/alerts/{NOBODY}/clip.mp4")[0] == 404


def test_viewer_sees_alert_but_neither_decides_nor_sees_frame(client: Client) -> None:
    assert client.get("/api/alerts", VIEWER)[0] == client.get(f"/alerts/{client.id}/snapshot.jpg", VIEWER)[0] == 200
    assert json.loads(client.get("/api/alerts", VIEWER)[1])["role"] == "viewer"
    assert json.loads(client.get(f"/api/alerts/{client.id}", VIEWER)[1])["has_frame"] is False
    status, body = client.decide(CONFIRM, VIEWER)
    assert status == 403 and b"operators" in body
    record = client.box.folder / "viewings.jsonl"
    viewings = record.read_text() if record.exists() else ""
    assert client.get(f"/alerts/{client.id}/frame.jpg", VIEWER)[0] == 403
    assert (record.read_text() if record.exists() else "") == viewings and client.verdict() is None


def test_session_has_role_of_its_token(client: Client) -> None:
    for token, want in ((VIEWER, 403), (OPERATOR, 200)):
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert client.ask("/login", "POST", f"token={token}".encode(), **form)[0] == 303
        cookie = client.headers["Set-Cookie"]
        assert token not in cookie and "SameSite=Lax" in cookie
        path = f"/api/alerts/{client.id}/verdict"
        json_ = {"Content_Type": "application/json", "Cookie": cookie.split(";")[0]}
        assert client.ask(path, "POST", json.dumps(CONFIRM).encode(), **json_)[0] == want


@pytest.mark.parametrize(
    "path", ["/api/alerts", "/api/alerts/{}", "/alerts/{}/snapshot.jpg", "/alerts/{}/frame.jpg", "/alerts/{}/clip.mp4"]
)
def test_nothing_about_alerts_is_shown_without_token(client: Client, path: str) -> None:
    for query in ("", f"?token={OPERATOR}"):  # a token in the address would stand in logs and histories
        status, body = client.ask(path.format(client.id) + query)
        assert status == 401 and b"gate" not in body


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},  # what a form of another site can send
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # such as another port of this machine
    ],
)
def test_request_that_another_site_makes_browser_send_is_rejected(client: Client, headers: dict[str, str]) -> None:
    assert client.decide(CONFIRM, **headers)[0] == 403 and client.verdict() is None


def test_link_of_another_site_shows_and_records_no_frame(client: Client) -> None:
    viewings = client.box.folder / "viewings.jsonl"
    before = viewings.read_text() if viewings.exists() else ""
    page, own = "text/html,application/xhtml+xml,*/*;q=0.8", "image/avif,image/*,*/*;q=0.8"
    login = {"Authorization": f"Bearer {OPERATOR}"}
    for link in ({"Sec_Fetch_Site": "cross-site", "Accept": own}, {"Sec_Fetch_Site": "same-site"}, {"Accept": page}):
        assert client.ask(f"/alerts/{client.id}/frame.jpg", **login, **link)[0] == 403
    assert (viewings.read_text() if viewings.exists() else "") == before
    for shown in ({"Sec_Fetch_Site": "same-origin", "Accept": own}, {"Sec_Fetch_Site": "none", "Accept": page}, {}):
        assert client.ask(f"/alerts/{client.id}/frame.jpg", **login, **shown)[0] == 200


def test_other_site_may_neither_read_answers_nor_ask_to_send_json(client: Client) -> None:
    preflight = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
    for token in (OPERATOR, ""):
        assert client.ask("/api/alerts", "OPTIONS", Authorization=f"Bearer {token}", **preflight)[0] in (401, 403, 405)
        assert "Access-Control-Allow-Origin" not in client.headers
    assert client.ask("/api/alerts", Origin="https://evil.example", Authorization=f"Bearer {OPERATOR}")[0] == 200
    assert "Access-Control-Allow-Origin" not in client.headers


@pytest.mark.parametrize("page", ["/alerts.html", "/api/alerts", "/login"])
def test_page_cannot_be_framed_and_runs_no_foreign_script(client: Client, page: str) -> None:
    client.get(page)
    policy = client.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert client.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        (b"\xff\xfe", 400),
        (b"[" * 3000, 400),
        (b'{"verdict": "confirmed", "comment": "' + b"x" * 501 + b'"}', 400),
        (b'{"comment": "' + b"x" * (1 << 20) + b'"}', 413),
        ({"verdict": "maybe"}, 400),
        ({"verdict": "confirmed", "by": "me"}, 400),
        ({"verdict": "false_alarm", "actual": "../../../etc/passwd"}, 409),
        ([], 400),
    ],
)
def test_unreadable_decision_is_rejected_and_changes_nothing(client: Client, decision: object, status: int) -> None:
    assert client.decide(decision)[0] == status and client.verdict() is None
    assert client.get("/api/alerts")[0] == 200


@pytest.mark.parametrize(
    "alert",
    ["..%2f..%2foutbox.db", "..", "%00", "gate_x", NOBODY.replace("0", "A"), f"{NOBODY}%2f..", "1;DROP TABLE x"],
)
def test_id_that_is_no_uuid_is_unknown(client: Client, alert: str) -> None:
    assert client.decide(CONFIRM, alert=alert.replace(" ", "%20"))[0] in (400, 404)
    for path in (f"/alerts/{alert}/frame.jpg", f"/alerts/{alert}/clip.mp4", f"/api/alerts/{alert}"):
        status, body = client.get(path.replace(" ", "%20"))
        assert status in (400, 404) and b"SQLite" not in body


def test_markup_in_comment_stays_text(client: Client) -> None:
    comment = "<script>alert(1)</script>\u202e\u0000"
    status, body = client.decide({"verdict": "confirmed", "comment": comment})
    assert status == 200 and client.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body)["comment"] == "<script>alert(1)</script>"  # test_page looks at it in a browser


def test_old_configuration_with_one_token_reads_and_viewer_needs_operator() -> None:
    assert WebConfig(token=OPERATOR).viewer_token is None
    for wrong in ({"viewer_token": VIEWER}, {"token": VIEWER, "viewer_token": VIEWER}):
        with pytest.raises(ValidationError, match="viewer_token needs a token for operators, which must be another one"):
            WebConfig(**wrong)
    assert VIEWER not in repr(WebConfig(token=OPERATOR, viewer_token=VIEWER))


def test_box_without_token_is_protected_from_other_sites(tmp_path: Path) -> None:
    box = Box(tmp_path, "none")
    server = WebServer(WebConfig(port=0), Status(), box.desk, Status())
    server.start()
    client = Client(box, server)
    path, body = f"/api/alerts/{client.id}/verdict", json.dumps(CONFIRM).encode()
    assert client.ask(path, "POST", body, Content_Type="text/plain")[0] == 403
    assert client.ask(path, "POST", body, Content_Type="application/json", Host="evil.example")[0] == 403
    assert client.ask(path, "POST", body, Content_Type="application/json", Sec_Fetch_Site="cross-site")[0] == 403
    assert client.verdict() is None
    assert client.ask(path, "POST", body, Content_Type="application/json", Sec_Fetch_Site="same-origin")[0] == 200
    assert client.get(f"/api/alerts?days={1 / 24}")[0] == 200
    assert server.stop(5.0)
    box.close()
