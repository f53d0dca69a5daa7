"""Answers that several parts of the web server give."""

import json
from typing import Any

from aiohttp import web
from pydantic import ValidationError


def as_json(value: Any) -> web.Response:
    """Returns a value as JSON."""
    return web.Response(text=json.dumps(value, allow_nan=False), content_type="application/json")


def first_problem(error: ValidationError) -> str:
    """Returns what is wrong with a request, in one line and without its values."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
