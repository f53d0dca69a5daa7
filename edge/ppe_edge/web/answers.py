"""Answers that several parts of the web server give."""

import json
from typing import Any

from aiohttp import web
from pydantic import ValidationError

_OWN_SITE = ("same-origin", "none")  # the latter: no page made the browser send it


def as_json(value: Any) -> web.Response:
    """Returns a value as JSON."""
    return web.Response(text=json.dumps(value, allow_nan=False), content_type="application/json")


def require_own_site(request: web.Request) -> None:
    """Rejects a request that another site made a browser send. Not every browser says where a request is from."""
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
        raise web.HTTPForbidden(text="expected a request by the page itself\n")


def first_problem(error: ValidationError) -> str:
    """Returns what is wrong with a request, in one line and without its values."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
