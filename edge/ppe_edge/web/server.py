"""The local web page: live images, the latest alerts, the state of the cameras; /healthz, /readyz and /metrics.

The server runs its own event loop in its own thread, and asks the runtime only for what a client requests. Slow or hostile
clients cannot block it: a connection that sends no whole request is closed after `IDLE_TIMEOUT` seconds, one that does not read
its response after `ANSWER_TIMEOUT`. If there are too many connections, those that would be closed next go first.

All addresses in the page and in redirects are relative, so that a reverse proxy may serve it below a path: it must remove that
path from the requests, and redirect the path without the final slash to the one with it.
"""

import asyncio
import hmac
import logging
import math
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from pydantic import SecretStr

from ppe_edge.compliance.periods import UNITS, Unit
from ppe_edge.compliance.report import to_csv
from ppe_edge.monitoring.telemetry import CONTENT_TYPE
from ppe_edge.verdicts.desk import AlertDesk
from ppe_edge.web.alerts import add_alert_routes
from ppe_edge.web.answers import as_json, require_own_site
from ppe_edge.web.config import WebConfig, is_loopback, listen
from ppe_edge.web.rules import RuleEditor, add_rule_routes
from ppe_edge.web.status import RuntimeStatus

IDLE_TIMEOUT = 10.0  # seconds
ANSWER_TIMEOUT = 300.0  # seconds; a change of rules waits for the cameras, and a clip takes minutes on a slow line
MAX_CONNECTIONS = 64
MAX_BYTES = 16_384  # of a request body
MAX_SESSIONS = 32
SESSION_SECONDS = 12 * 3600
LOG_INTERVAL = 60.0  # seconds between two records of the same kind about clients in the log
COOKIE = "ppe_edge_session"
Role = Literal["viewer", "operator"]
PAGES = {
    "index.html": "text/html",
    "login.html": "text/html",
    "alerts.html": "text/html",
    "rules.html": "text/html",
    "rules.js": "text/javascript",
    "zones.js": "text/javascript",
    "common.js": "text/javascript",
    "app.js": "text/javascript",
    "alerts.js": "text/javascript",
    "compliance.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
PARTS = ("head.html", "nav.html")  # of several pages, which have <!-- NAME --> in their place
PARTS_WITH_TOKEN = (*PARTS, "logout.html")
DESTINATIONS = ("alerts.html", "rules.html", "compliance.html")  # where a login may lead, besides the live view
# need no token: they reveal nothing about the site
OPEN = {"/healthz", "/readyz", "/login", "/logout", "/style.css", "/icon.svg"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

MAX_DAYS = 3660
DAYS: dict[Unit, int] = {"hour": 1, "shift": 7, "day": 30, "week": 182}  # shown by default

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Seldom(logging.Filter):
    """Lets one record per `LOG_INTERVAL` through: a stranger who sends nonsense must not fill the disk with the log."""

    _last = -math.inf
    _left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._last + LOG_INTERVAL:
            self._left_out += 1
            return False
        if record.exc_info and record.exc_info[0]:  # its text shows what was sent, such as a token with a line break
            record.msg, record.exc_info = f"{record.msg}: {record.exc_info[0].__name__}", None
        if self._left_out:
            record.msg = f"{record.msg} ({self._left_out} more like this since the last one)"
        self._last, self._left_out = now, 0
        return True


class WebServer:
    """Serves the page.

    Args:
        config: Where the page is served, and who may see it.
        status: What the page shows.
        desk: Where people decide about alerts.
        rules: Where people change rules and draw zones.
        listener: The socket to serve; by default `ppe_edge.web.config.listen` opens one.

    Everything but `start`, `stop` and `connections` runs in the server's thread, so it needs no locks.

    Attributes:
        port: TCP port of the page.

    Raises:
        EdgeError: The address cannot be bound.
    """

    def __init__(
        self,
        config: WebConfig,
        status: RuntimeStatus,
        desk: AlertDesk,
        rules: RuleEditor,
        listener: socket.socket | None = None,
    ) -> None:
        self.config = config
        self._listener = listener or listen(config)
        self.port: int = self._listener.getsockname()[1]
        self._status, self._desk, self._rules = status, desk, rules
        self._pages = _read_pages(PARTS if config.token is None else PARTS_WITH_TOKEN)
        self._clients, self._logins = _log.getChild("clients"), _log.getChild("logins")  # anybody may cause such records
        self._clients.filters, self._logins.filters = [_Seldom()], [_Seldom()]
        self._sessions: dict[str, tuple[float, Role]] = {}  # cookie -> when it expires, and whose it is
        self._deadlines: dict[object, float] = {}  # connection -> when it is closed unless it sends another request
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Starts the server; returns when it answers requests."""
        self._thread.start()
        self._started.wait()

    def stop(self, timeout: float = 1.0) -> bool:
        """Closes all connections and ends the thread; returns False if that takes longer than `timeout` seconds."""
        if self._thread.is_alive() and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def connections(self) -> int:
        """Number of open connections, as of the last check."""
        return len(self._deadlines)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BYTES)
        app.router.add_get("/", self._page("index.html"))
        for name in PAGES.keys() - {"login.html"}:
            app.router.add_get(f"/{name}", self._page(name))
        app.router.add_get("/login", self._page("login.html"))
        app.router.add_post("/login", self._login)
        app.router.add_post("/logout", self._logout)
        app.router.add_get("/healthz", self._health(self._status.alive))
        app.router.add_get("/readyz", self._health(self._status.ready))
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/cameras/{camera}/live.jpg", self._live)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/compliance", self._compliance)
        app.router.add_get("/compliance.csv", self._compliance_csv)
        app.router.add_get("/compliance.html", self._compliance_page)
        add_alert_routes(app, self._desk)
        add_rule_routes(app, self._rules)
        # the access log would record every path that a client invents
        runner = web.AppRunner(app, access_log=None, logger=self._clients, keepalive_timeout=IDLE_TIMEOUT, shutdown_timeout=0.2)
        await runner.setup()
        reaper = None
        try:
            await web.SockSite(runner, self._listener).start()
            self._started.set()
            _log.info("web page on http://%s:%d", self.config.host, self.port)
            reaper = asyncio.create_task(self._close_idle(runner))
            await self._stopping.wait()
        finally:
            if reaper is not None:
                reaper.cancel()
            await runner.cleanup()

    async def _close_idle(self, runner: web.AppRunner) -> None:
        """Closes connections that are overdue, and those that would be next if there are too many."""
        while True:
            now = time.monotonic()
            connections = {} if runner.server is None else {c: c.transport for c in runner.server.connections}
            self._deadlines = {c: self._deadlines.get(c, now + IDLE_TIMEOUT) for c in connections}
            next_first = sorted(connections, key=lambda c: self._deadlines[c])
            too_many = max(0, len(connections) - MAX_CONNECTIONS)
            for rank, connection in enumerate(next_first):
                transport = connections[connection]
                if transport is not None and (rank < too_many or now > self._deadlines[connection]):
                    transport.abort()  # close() would wait for a client that does not read
            await asyncio.sleep(0.25)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._deadlines[request.protocol] = time.monotonic() + IDLE_TIMEOUT
        try:
            if not self._allowed_host(request):
                raise web.HTTPForbidden(
                    text="unknown host name: open the page as http://127.0.0.1:PORT, or set web.token to allow other names "
                    "and proxies\n"
                )
            role = self._role_of(request)
            if request.path not in OPEN:
                self._require(request, role)
            request["role"] = role
            await request.read()  # a body that never comes must not hold the connection for long
            self._deadlines[request.protocol] = time.monotonic() + ANSWER_TIMEOUT  # aiohttp closes it if it is idle afterwards
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        except web.RequestPayloadError as error:
            raise web.HTTPBadRequest(text="the body cannot be read\n", headers=HEADERS) from error
        except ConnectionError:  # caused by the client: aiohttp reports it to `_clients`
            raise
        except Exception as error:
            _log.exception("web: cannot answer %s %s", request.method, request.path)
            raise web.HTTPInternalServerError(headers=HEADERS) from error
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _allowed_host(self, request: web.Request) -> bool:
        """Without a token, rejects unknown host names, to prevent DNS rebinding."""
        if self.config.token is not None:
            return True
        try:
            return is_loopback(urlsplit(f"//{request.host}").hostname or "")
        except ValueError:
            return False

    def _require(self, request: web.Request, role: Role | None) -> None:
        """Rejects a request that its sender may not make, or that another site made a browser send."""
        if role is None:
            if request.path == "/" or request.path.endswith(".html"):
                page = request.path[1:]
                raise web.HTTPSeeOther(f"login?to={page}" if page in DESTINATIONS else "login")
            raise web.HTTPUnauthorized(text="a token is required\n")
        if request.method in ("GET", "HEAD"):
            return
        # a page of another site can send a form without asking, but no JSON
        if request.content_type != "application/json":
            raise web.HTTPForbidden(text="expected JSON, sent by the page itself\n")
        require_own_site(request)
        if role != "operator":
            raise web.HTTPForbidden(text="viewers change nothing: sign in with the token of operators\n")

    def _role_of(self, request: web.Request) -> Role | None:
        if self.config.token is None:
            return "operator"
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (role := self._role_of_token(value)) is not None:
            return role
        now = time.monotonic()
        offered = request.cookies.get(_cookie(request), "").encode(errors="replace")
        for session, (end, role) in self._sessions.items():
            if end > now and hmac.compare_digest(session.encode(), offered):
                return role
        return None

    def _role_of_token(self, value: str) -> Role | None:
        # bytes, because compare_digest rejects non-ASCII text
        offered = value.strip().encode(errors="replace")
        tokens: tuple[tuple[Role, SecretStr | None], ...] = (
            ("operator", self.config.token),
            ("viewer", self.config.viewer_token),
        )
        for role, token in tokens:
            if token is not None and hmac.compare_digest(offered, token.get_secret_value().encode()):
                return role
        return None

    def _page(self, name: str) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=self._pages[name], content_type=PAGES[name], charset="utf-8")

        return answer

    def _health(self, ask: Callable[[], bool]) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            healthy, trouble = ask(), self._status.trouble()
            # trouble does not make the box unhealthy: a restart would lose what is in memory
            text = ("ok\n" if healthy else "unavailable\n") + (f"{trouble}\n" if trouble else "")
            return web.Response(text=text, status=200 if healthy else 503)

        return answer

    async def _login(self, request: web.Request) -> web.StreamResponse:
        """Exchanges the token, sent in the body and never in an address, for a session cookie."""
        require_own_site(request)
        form = parse_qs((await request.read()).decode(errors="replace"))
        role = self._role_of_token(form.get("token", [""])[0])
        if role is None:
            self._logins.warning("web: wrong token from %s", request.remote)
            page = self._pages["login.html"].replace(b' role="alert" hidden>', b' role="alert">')
            raise web.HTTPUnauthorized(body=page, content_type="text/html")
        now = time.monotonic()
        self._sessions = {s: kept for s, kept in self._sessions.items() if kept[0] > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now + SESSION_SECONDS, role
        to = request.query.get("to")
        # the browser keeps what follows #, such as the id of an alert, through both redirects and the form between them
        response = web.Response(status=303, headers={"Location": to if to in DESTINATIONS else "./"})
        # Without a path, the browser sends the cookie to this page alone, not to other boxes behind the same proxy. `Lax`, so
        # that the link of a notification that is read in a browser leads to its alert without another login.
        # A link of another site changes nothing (`_require`) and shows no frame (`_AlertRoutes.frame`).
        response.set_cookie(_cookie(request), session, path="", httponly=True, samesite="Lax", max_age=SESSION_SECONDS)
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        """Ends the session; its cookie is worth nothing from then on."""
        require_own_site(request)
        self._sessions.pop(request.cookies.get(_cookie(request), ""), None)
        return web.Response(status=303, headers={"Location": "login"})

    async def _state(self, request: web.Request) -> web.Response:
        return as_json({**self._status.state(), "role": request["role"]})

    async def _live(self, request: web.Request) -> web.Response:
        jpeg = await asyncio.to_thread(self._status.live, request.match_info["camera"])
        if jpeg is None:
            raise web.HTTPNotFound(text="no image\n")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _compliance(self, request: web.Request) -> web.Response:
        unit, days = _period(request)
        start, found = await _read(self._status.compliance, unit, days)
        time_format = "%m-%d %H:%M" if unit == "hour" else "%m-%d"
        rows = [
            {
                "start": row.start.isoformat(),
                "label": f"{row.start:{time_format}} {row.shift}".strip(),
                "camera": row.camera,
                "rule": row.rule,
                "zone": row.zone,
                **row.count._asdict(),
            }
            for row in found
        ]
        return as_json({"rows": rows, "shifts": self._status.shifts(), "start": f"{start:%Y-%m-%d %H:%M}"})

    async def _compliance_csv(self, request: web.Request) -> web.Response:
        _, rows = await _read(self._status.compliance, *_period(request))
        text = to_csv(rows)
        file = {"Content-Disposition": 'attachment; filename="compliance.csv"'}
        return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=file)

    async def _compliance_page(self, request: web.Request) -> web.Response:
        text = await _read(self._status.compliance_page, *_period(request))
        # the page carries its own style, because it is also sent and saved as one file
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=policy)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(self._status.metrics), headers={"Content-Type": CONTENT_TYPE})


def _cookie(request: web.Request) -> str:
    """Returns the name of the cookie, with the port: browsers send cookies to all ports of a host, such as tunnels to boxes."""
    port = request.host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isascii() and port.isdigit() else COOKIE


def _read_pages(parts: Sequence[str]) -> dict[str, bytes]:
    """Reads all pages at once, so that no request can name a file on the disk."""
    folder = files("ppe_edge.web") / "static"
    pages = {name: (folder / name).read_bytes() for name in PAGES}
    for part in parts:
        place, content = f"<!-- {part} -->\n".encode(), (folder / part).read_bytes()
        pages = {name: page.replace(place, content) for name, page in pages.items()}
    return pages


def _period(request: web.Request) -> tuple[Unit, int]:
    """Returns the unit and the number of days that a request asks for."""
    unit, days = request.query.get("unit", "hour"), request.query.get("days", "")
    for known in UNITS:
        if known == unit and (not days or (days.isascii() and days.isdigit() and len(days) < 5 and 1 <= int(days) <= MAX_DAYS)):
            return known, int(days or DAYS[known])
    raise web.HTTPBadRequest(text=f"expected unit, one of {', '.join(UNITS)}, and days, 1 to {MAX_DAYS}\n")


async def _read(ask: Callable[[Unit, int], _T], unit: Unit, days: int) -> _T:
    try:
        return await asyncio.to_thread(ask, unit, days)
    except sqlite3.Error as error:
        raise web.HTTPServiceUnavailable(text=f"the figures cannot be read: {error}\n") from error
