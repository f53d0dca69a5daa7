"""The part of the web server where people draw zones."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppe_edge.drawn_zones import Zones
from ppe_edge.web.answers import as_json, first_problem
from ppe_yolo.core.errors import UserError

MAX_ZONES = 32

_log = logging.getLogger(__name__)


class ZoneEditor(Protocol):
    """See `ppe_edge.control.Control`."""

    def rule_zones(self) -> dict[str, dict[str, Zones]]:
        """Returns camera -> rule -> zones that are in force."""
        ...

    def draw_zones(self, camera: str, rule: str, zones: Zones) -> None:
        """Replaces the zones of a rule; may raise `UserError` or `TimeoutError`."""
        ...

    def undo_zones(self) -> None:
        """Takes back the latest change; may raise `UserError` or `TimeoutError`."""
        ...


class _Drawing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    camera: str
    rule: str
    zones: Zones = Field(max_length=MAX_ZONES)


def add_zone_routes(app: web.Application, editor: ZoneEditor) -> None:
    """Adds the addresses below /api/zones."""

    def answer(request: web.Request) -> web.Response:
        return as_json({"zones": editor.rule_zones(), "role": request["role"]})

    async def change(request: web.Request, what: str, action: Callable[[], None]) -> web.Response:
        try:
            await asyncio.to_thread(action)
        except (UserError, TimeoutError) as error:
            raise web.HTTPConflict(text=f"{error}\n") from None
        _log.info("web: %s, by %s", what, request.remote)
        return answer(request)

    async def show(request: web.Request) -> web.Response:
        return answer(request)

    async def draw(request: web.Request) -> web.Response:
        try:
            drawing = _Drawing.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"{first_problem(error)}\n") from None
        camera, rule = drawing.camera, drawing.rule
        return await change(
            request, f"zones of {camera}, {rule}, were drawn", lambda: editor.draw_zones(camera, rule, drawing.zones)
        )

    async def undo(request: web.Request) -> web.Response:
        return await change(request, "a change of zones was taken back", editor.undo_zones)

    app.router.add_get("/api/zones", show)
    app.router.add_post("/api/zones", draw)
    app.router.add_post("/api/zones/undo", undo)
