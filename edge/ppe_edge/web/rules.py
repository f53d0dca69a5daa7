"""The part of the web server where people change rules and draw zones."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from ppe_edge.rules.config import RuleConfig
from ppe_edge.web.answers import as_json, first_problem
from ppe_edge.web.state import Editable
from ppe_yolo.core.errors import UserError

# shown next to the settings, as in the reference
HELP = {name: field.description for name, field in RuleConfig.model_fields.items()}
OPTIONS = {name: field["enum"] for name, field in RuleConfig.model_json_schema()["properties"].items() if "enum" in field}

_Body = TypeVar("_Body", bound=BaseModel)
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class RuleEditor(Protocol):
    """See `ppe_edge.control.Control`. Each change may raise `UserError` or `TimeoutError`; nothing has changed then."""

    def editable(self) -> Editable:
        """Returns the active rules."""
        ...

    def change_rule(self, camera: str, rule: str, settings: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
        """Replaces a rule of a camera, or adds one."""
        ...

    def remove_rule(self, camera: str, rule: str, before: Mapping[str, Any] | None = None) -> None:
        """Removes a rule of a camera."""
        ...

    def undo_rules(self, number: int | None = None) -> None:
        """Undoes the latest change."""
        ...


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    camera: str
    rule: str
    before: dict[str, Any] | None = None  # the settings that the page shows; absent if any may be replaced


class _Change(_Place):
    settings: dict[str, Any]


class _Undo(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    change: int | None = None  # `latest_change` that the page shows; absent if any change may be undone


def add_rule_routes(app: web.Application, editor: RuleEditor) -> None:
    """Adds the addresses below /api/rules."""

    async def apply(request: web.Request, what: str, action: Callable[[], None], place: _Place | None = None) -> web.Response:
        await _in_thread(action)
        _log.info("web: %s%s, by %s", what, f" {place.rule!r} of {place.camera!r}" if place else "", request.remote)
        return await show(request)

    async def show(request: web.Request) -> web.Response:
        return as_json({**await _in_thread(editor.editable), "help": HELP, "options": OPTIONS, "role": request["role"]})

    async def change(request: web.Request) -> web.Response:
        wanted = await _body(request, _Change)
        action = partial(editor.change_rule, wanted.camera, wanted.rule, wanted.settings, wanted.before)
        return await apply(request, "changed the rule", action, wanted)

    async def remove(request: web.Request) -> web.Response:
        place = await _body(request, _Place)
        return await apply(
            request, "removed the rule", partial(editor.remove_rule, place.camera, place.rule, place.before), place
        )

    async def undo(request: web.Request) -> web.Response:
        number = (await _body(request, _Undo)).change
        return await apply(request, "undid the last rule change", partial(editor.undo_rules, number))

    app.router.add_get("/api/rules", show)
    app.router.add_post("/api/rules", change)
    app.router.add_post("/api/rules/remove", remove)
    app.router.add_post("/api/rules/undo", undo)


async def _body(request: web.Request, kind: type[_Body]) -> _Body:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        raise web.HTTPBadRequest(text=f"{first_problem(error)}\n") from None


async def _in_thread(ask: Callable[[], _T]) -> _T:
    try:
        return await asyncio.to_thread(ask)
    except (UserError, TimeoutError) as error:
        setting = error.setting if isinstance(error, UserError) and error.setting in HELP else None
        refusal = {"setting": setting, "message": str(error).removeprefix(f"{setting}: ")}
        raise web.HTTPConflict(text=json.dumps(refusal), content_type="application/json") from None
