"""The local web page: live pictures, the last alerts, the cameras' states; /healthz, /readyz and /metrics.

It runs on a loop in a thread of its own, and asks the runtime (`Window`) only for what somebody looks at. Nobody who is slow
or hostile can hold it: a connection that asks for nothing, or does not take its answer, is cut off after `PATIENCE` seconds,
and of too many connections the longest idle goes first.
"""

import asyncio
import hmac
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from ppe_edge.telemetry import CONTENT_TYPE
from ppe_edge.web.config import WebConfig, is_loopback, listen

PATIENCE = 10.0  # seconds
MOST_CONNECTIONS = 64
MOST_BYTES = 4096  # of a request's body
MOST_SESSIONS = 32
SESSION_SECONDS = 12 * 3600
COOKIE = "ppe_edge_session"
PAGES = {
    "index.html": "text/html",
    "login.html": "text/html",
    "app.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
# need no token; they tell nothing about the site
OPEN = {"/healthz", "/readyz", "/login", "/login.html", "/style.css", "/icon.svg"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Window(Protocol):
    """What the page may ask of the runtime; called from threads that are not the runtime's own."""

    def alive(self) -> bool:
        """Whether frames are still looked at: the processing loop turns."""
        ...

    def ready(self) -> bool:
        """Whether the model is loaded and a camera is live."""
        ...

    def trouble(self) -> str:
        """What somebody must see to although the box works on; empty when all is well. Tells nothing about the site."""
        ...

    def state(self) -> dict[str, Any]:
        """What the page shows, as plain values without secrets."""
        ...

    def live(self, camera: str) -> bytes | None:
        """The camera's last picture, annotated, as JPEG; None if there is none, or no such camera."""
        ...

    def metrics(self) -> bytes:
        """Prometheus' text."""
        ...


class WebServer:
    """Serves a `Window`.

    Args:
        config: Where, and to whom.
        window: What to show.
        door: What `ppe_edge.web.config.listen` gave; by default that is asked now.

    Raises:
        EdgeError: The address cannot be listened on.
    """

    def __init__(self, config: WebConfig, window: Window, door: socket.socket | None = None) -> None:
        self.config = config
        self._door = door or listen(config)
        self.port: int = self._door.getsockname()[1]
        self._window = window
        folder = files("ppe_edge.web") / "static"
        self._pages = {name: (folder / name).read_bytes() for name in PAGES}  # no request names a file on the disk
        self._sessions: dict[str, float] = {}  # cookie -> when it ends
        self._last_request: dict[object, float] = {}  # connection -> when it last asked for something, or came
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event | None = None
        self._started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Listens; returns when requests are answered."""
        self._thread.start()
        self._started.wait()

    def stop(self, timeout: float = 1.0) -> None:
        """Cuts everybody off."""
        if self._thread.is_alive() and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=MOST_BYTES)
        app.router.add_get("/", self._page("index.html"))
        for name in PAGES:
            app.router.add_get(f"/{name}", self._page(name))
        app.router.add_get("/login", self._page("login.html"))
        app.router.add_post("/login", self._login)
        app.router.add_get("/healthz", self._verdict(self._window.alive))
        app.router.add_get("/readyz", self._verdict(self._window.ready))
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/cameras/{camera}/live.jpg", self._live)
        app.router.add_get("/metrics", self._metrics)
        # the default access log would write every path that a stranger makes up
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=PATIENCE, shutdown_timeout=0.2)
        await runner.setup()
        reaper = None
        try:
            await web.SockSite(runner, self._door).start()
            self._started.set()
            _log.info("web page on http://%s:%d", self.config.host, self.port)
            reaper = asyncio.create_task(self._cut_off(runner))
            await self._stopping.wait()
        finally:
            if reaper is not None:
                reaper.cancel()
            await runner.cleanup()

    async def _cut_off(self, runner: web.AppRunner) -> None:
        """Ends connections that have asked for nothing for `PATIENCE`, and the longest idle of too many."""
        while True:
            now = time.monotonic()
            connections = {} if runner.server is None else {c: c.transport for c in runner.server.connections}
            self._last_request = {c: self._last_request.get(c, now) for c in connections}
            longest_idle_first = sorted(connections, key=lambda c: self._last_request[c])
            too_many = max(0, len(connections) - MOST_CONNECTIONS)
            for place, connection in enumerate(longest_idle_first):
                transport = connections[connection]
                if transport is not None and (place < too_many or now - self._last_request[connection] > PATIENCE):
                    transport.abort()  # close() would wait until a reader who does not read has taken everything
            await asyncio.sleep(0.25)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._last_request[request.protocol] = time.monotonic()
        try:
            if not self._allowed_host(request):
                raise web.HTTPForbidden(text="no such site here\n")
            if request.path not in OPEN and not self._known(request):
                if request.path == "/":
                    raise web.HTTPSeeOther("/login")
                raise web.HTTPUnauthorized(text="a token is needed\n")
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        response.headers.update(HEADERS)
        return response

    def _allowed_host(self, request: web.Request) -> bool:
        """Without a token, a page of another site must not reach us under a name that it has bent to 127.0.0.1."""
        if self.config.token is not None:
            return True
        try:
            return is_loopback(urlsplit(f"//{request.host}").hostname or "")
        except ValueError:
            return False

    def _known(self, request: web.Request) -> bool:
        if self.config.token is None:
            return True
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(value):
            return True
        now = time.monotonic()
        offered = request.cookies.get(COOKIE, "").encode(errors="replace")
        return any(hmac.compare_digest(s.encode(), offered) for s, end in self._sessions.items() if end > now)

    def _is_token(self, value: str) -> bool:
        # bytes, since compare_digest refuses text beyond ASCII
        return self.config.token is not None and hmac.compare_digest(
            value.strip().encode(errors="replace"), self.config.token.get_secret_value().encode()
        )

    def _page(self, name: str) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=self._pages[name], content_type=PAGES[name], charset="utf-8")

        return answer

    def _verdict(self, ask: Callable[[], bool]) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            good, trouble = ask(), self._window.trouble()
            # trouble is no reason to start the box again: that would lose what is in memory
            text = ("ok\n" if good else "not now\n") + (f"{trouble}\n" if trouble else "")
            return web.Response(text=text, status=200 if good else 503)

        return answer

    async def _login(self, request: web.Request) -> web.StreamResponse:
        """The token comes in the body, never in an address, and goes back as a cookie that is not the token."""
        form = await request.post()
        if not self._is_token(str(form.get("token", ""))):
            _log.warning("web: a wrong token from %s", request.remote)
            page = self._pages["login.html"].replace(b' role="alert" hidden>', b' role="alert">')
            raise web.HTTPUnauthorized(body=page, content_type="text/html")
        now = time.monotonic()
        self._sessions = {s: end for s, end in self._sessions.items() if end > now}
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now + SESSION_SECONDS
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, session, httponly=True, samesite="Strict", max_age=SESSION_SECONDS)
        return response

    async def _state(self, request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self._window.state(), allow_nan=False), content_type="application/json")

    async def _live(self, request: web.Request) -> web.Response:
        jpeg = await asyncio.to_thread(self._window.live, request.match_info["camera"])
        if jpeg is None:
            raise web.HTTPNotFound(text="no picture\n")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(self._window.metrics), headers={"Content-Type": CONTENT_TYPE})
