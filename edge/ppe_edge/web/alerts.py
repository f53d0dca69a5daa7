"""The part of the web server where people look at alerts and decide about them."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from aiohttp import web
from pydantic import ValidationError

from ppe_edge.common.clock import DAY_S
from ppe_edge.delivery.alert_history import AlertQuery, PastAlert
from ppe_edge.delivery.messages import Alert, AlertClip, AlertClosed, AlertVerdict, Judgement, Message
from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE, DEFAULT_SEVERITY
from ppe_edge.verdicts.desk import AlertDesk, Decision
from ppe_edge.web.answers import as_json, first_problem, require_own_site
from ppe_yolo.core.errors import UserError

PER_PAGE = 30
MAX_DAYS = 3660.0
_ID = "{alert:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}}"  # a UUID: no request can name another file
_VERDICTS: tuple[Judgement | Literal["open"], ...] = ("open", "confirmed", "false_alarm")

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def add_alert_routes(app: web.Application, desk: AlertDesk) -> None:
    """Adds the addresses below /api/alerts and /alerts."""
    routes = _AlertRoutes(desk)
    app.router.add_get("/api/alerts", routes.alerts)
    app.router.add_get(f"/api/alerts/{_ID}", routes.alert)
    app.router.add_post(f"/api/alerts/{_ID}/verdict", routes.decide)
    app.router.add_get(f"/alerts/{_ID}/thumbnail.jpg", routes.thumbnail)
    app.router.add_get(f"/alerts/{_ID}/snapshot.jpg", routes.snapshot)
    app.router.add_get(f"/alerts/{_ID}/frame.jpg", routes.frame)
    app.router.add_get(f"/alerts/{_ID}/clip.mp4", routes.clip)


class _AlertRoutes:
    def __init__(self, desk: AlertDesk) -> None:
        self._desk = desk

    async def alerts(self, request: web.Request) -> web.Response:
        query = _query(request)
        history = self._desk.history
        found = await _in_thread(lambda: history.alerts(query))
        precision = await _in_thread(lambda: history.precision(query))
        topology = self._desk.topology()
        return as_json(
            {
                "alerts": [self._summary(past) for past in found],
                "before": found[-1].sequence if len(found) == query.limit else None,
                "precision": {
                    "confirmed": precision.confirmed,
                    "false_alarms": precision.false_alarms,
                    "value": precision.value,
                    "interval": precision.interval,
                },
                "causes": self._desk.causes(),
                "cameras": sorted(topology),
                "rules": sorted({rule for rules in topology.values() for rule in rules}),
                "trouble": self._desk.trouble,
                "time_zone": self._desk.time_zone(),
                "role": request["role"],
            }
        )

    async def alert(self, request: web.Request) -> web.Response:
        return as_json(await self._details(request))

    async def decide(self, request: web.Request) -> web.Response:
        try:
            decision = Decision.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"{first_problem(error)}\n") from None
        alert_id = request.match_info["alert"]
        try:
            past = await _in_thread(lambda: self._desk.decide(alert_id, decision))
        except EdgeError as error:
            raise web.HTTPConflict(text=f"{error}\n") from None
        except (UserError, OSError) as error:
            _log.warning("the verdict on alert %s is stored, but not its training data: %s", alert_id, error)
            raise web.HTTPInsufficientStorage(text=f"the verdict is stored, but not its training data: {error}\n") from None
        if past is None:
            raise web.HTTPNotFound(text="no such alert, or it was deleted\n")
        return as_json(await self._details(request))

    async def thumbnail(self, request: web.Request) -> web.Response:
        return _jpeg(await self._image(request, cv2.IMREAD_REDUCED_COLOR_4))

    async def snapshot(self, request: web.Request) -> web.Response:
        return _jpeg(await self._image(request, None))

    async def frame(self, request: web.Request) -> web.Response:
        if request["role"] != "operator":
            raise web.HTTPForbidden(text="only operators see frames\n")
        require_own_site(request)
        # without TLS, browsers do not say which site has the link, but ask for a page when they follow it
        if "Sec-Fetch-Site" not in request.headers and "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPForbidden(text="frames are shown on the page Alerts\n")
        try:
            jpeg = await _in_thread(lambda: self._desk.frame(request.match_info["alert"], request.remote or "unknown"))
        except OSError as error:
            raise web.HTTPServiceUnavailable(text=f"the viewing cannot be recorded: {error.strerror}\n") from error
        return _jpeg(jpeg)

    async def clip(self, request: web.Request) -> web.StreamResponse:
        file = await _in_thread(lambda: self._desk.clip(request.match_info["alert"]))
        if file is None:
            raise web.HTTPNotFound(text="no clip\n")
        # it answers requests for a range of bytes: Safari and phones play nothing else
        return web.FileResponse(file, headers={"Content-Type": "video/mp4"})

    async def _image(self, request: web.Request, reduced: int | None) -> bytes | None:
        def read() -> bytes | None:
            file = self._desk.snapshot(request.match_info["alert"])
            if file is None or not file.is_file():
                return None
            jpeg = file.read_bytes()
            if reduced is None:
                return jpeg
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), reduced)
            if image is None:  # the disk is damaged
                return None
            done, small = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])
            return bytes(small) if done else None

        return await _in_thread(read)

    async def _details(self, request: web.Request) -> dict[str, Any]:
        alert_id = request.match_info["alert"]
        history = self._desk.history
        past = await _in_thread(lambda: history.alert(alert_id))
        if past is None:
            raise web.HTTPNotFound(text="no such alert, or it was deleted\n")
        alert = past.alert
        messages = await _in_thread(lambda: history.messages_about(alert_id))
        return {
            **self._summary(past),
            "box_xyxy": alert.box_xyxy,
            "frame_size": alert.frame_size,
            "track": alert.track,
            "threshold": self._desk.threshold(alert),
            "model": alert.model.model_dump(mode="json"),
            "has_clip": await _in_thread(lambda: self._desk.clip(alert_id)) is not None,
            "has_frame": request["role"] == "operator" and self._desk.has_frame(alert),
            "events": [self._event(message) for message in messages],
            "sightings": [
                {"offset": seen.offset_s, "what": self._desk.contract.display_name(seen.class_name), "score": seen.score}
                for message in messages
                if isinstance(message, AlertClip)
                for seen in message.sightings
            ],
        }

    def _summary(self, past: PastAlert) -> dict[str, Any]:
        alert, verdict = past.alert, past.verdict
        return {
            "id": alert.id,
            "time": alert.time.timestamp(),
            "time_uncertain": alert.time_uncertain,
            "camera": alert.camera,
            "rule": alert.rule or DEFAULT_RULE,
            "severity": alert.severity or DEFAULT_SEVERITY,
            "zone": alert.zone,
            "what": self._desk.contract.display_name(alert.class_name),
            "class": alert.class_name,
            "score": alert.score,
            "has_snapshot": alert.snapshot is not None,
            "duration": None if past.closed is None else past.closed.duration_s,
            "verdict": None if verdict is None else verdict.verdict,
            "verdict_id": None if verdict is None else verdict.id,
            "actual": None if verdict is None else verdict.actual,
            "acknowledged": verdict is not None and verdict.acknowledged,
            "comment": "" if verdict is None else verdict.comment,
        }

    def _event(self, message: Message) -> dict[str, Any]:
        match message:
            case Alert():
                text = "raised"
            case AlertClosed():
                text = f"{message.in_words()}, open for {message.duration_s:.1f} s"
            case AlertClip():
                end_s = message.offset_s + message.duration_s  # the time of the message is that of the alert
                text = f"clip, from {-message.offset_s:.1f} s before to {end_s:.1f} s after the alert"
            case AlertVerdict():
                text = message.in_words(self._desk.contract.display_name) + (f": {message.comment}" if message.comment else "")
            case _:
                text = message.kind
        return {"time": message.time.timestamp(), "text": text}


def _query(request: web.Request) -> AlertQuery:
    """Reads the query of a request, such as `?camera=gate&verdict=open&days=7`; raises HTTPBadRequest."""
    wanted = request.query
    try:
        days, before = float(wanted.get("days") or MAX_DAYS), int(wanted["before"]) if wanted.get("before") else None
    except ValueError:
        days, before = math.nan, None
    verdict = next((known for known in _VERDICTS if known == wanted.get("verdict")), None)
    if (wanted.get("verdict") and verdict is None) or not 0 < days <= MAX_DAYS or not 0 <= (before or 0) < 2**63:
        raise web.HTTPBadRequest(text=f"expected verdict, one of {', '.join(_VERDICTS)}, days and before as numbers\n")
    return AlertQuery(
        camera=wanted.get("camera") or None,
        rule=wanted.get("rule") or None,
        verdict=verdict,
        since=max(0.0, time.time() - days * DAY_S),
        before=before,
        limit=PER_PAGE,
    )


async def _in_thread(ask: Callable[[], _T]) -> _T:
    try:
        return await asyncio.to_thread(ask)
    except sqlite3.Error as error:
        raise web.HTTPServiceUnavailable(text=f"the alerts cannot be read: {error}\n") from error


def _jpeg(data: bytes | None) -> web.Response:
    if data is None:
        raise web.HTTPNotFound(text="no image\n")
    return web.Response(body=data, content_type="image/jpeg")
