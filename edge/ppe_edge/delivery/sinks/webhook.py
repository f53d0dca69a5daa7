"""Posts messages to a web address.

| The answer | The box |
| --- | --- |
| 2xx | continues with the next message; warns once if the answer is a web page, such as that of a login |
| 413 | sends the message without its snapshot, else sets it aside |
| 400, 409, 415, 422 | sets the message aside (`ppe_edge.delivery.dispatcher`), continues with the next |
| 429, 503 with Retry-After | waits that long, at most 15 minutes, then sends the same message |
| 401, 403, 404, other 3xx and 4xx | tries again, then the next messages: if one of them is accepted, sets the message aside |
| 5xx, no answer in time, disconnects | as above, and marks the message as redelivered |
| unreachable | tries again until it is delivered |
"""

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_validator

from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks.base import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.payload import SizeLimit

if TYPE_CHECKING:
    import aiohttp

_HINTS = {
    401: "check the token in sinks.webhook.url or headers",
    403: "check the token in sinks.webhook.url or headers, and what it allows",
    404: "check sinks.webhook.url",
    405: "check sinks.webhook.url: the address does not accept POST",
    407: "a proxy requires a login",
    408: "the line is too slow for a message of this size, or the server is overloaded",
    413: "the message exceeds the server's limit",
    429: "too many requests: the server limits their rate",
}
_REJECTED = {400, 409, 413, 415, 422}  # caused by the message; other statuses concern the address, the token or the server
_CANNOT_WORK = {401, 407, 502, 503, 504}  # whatever the method
_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)
_PAGE = (
    "the answer is a web page, perhaps of a login or a portal, and counts as a confirmation: "
    "check sinks.webhook.url, and that messages arrive"
)
_PAGE_BYTES = 1024  # a web page begins within this many bytes
_PAGE_TIMEOUT_S = 1.0  # other messages wait meanwhile

_log = logging.getLogger(__name__)


class WebhookSinkConfig(BaseModel):
    """Messages are posted as JSON, with the message id as Idempotency-Key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr = Field(description="Address (http or https). May contain a token, so it is never shown.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers to add, such as Authorization.")
    timeout_s: float = Field(
        default=10.0, gt=0, le=120, description="Timeout of the whole request, from connecting to the answer, in seconds."
    )
    attach_snapshot: bool = Field(default=False, description="Whether to include the snapshot as snapshot_base64, if it fits.")
    max_bytes: int = Field(default=1_000_000, ge=1024, description="Maximum size of a body with its snapshot, in bytes.")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        try:
            _URL.validate_python(url.get_secret_value())
        except ValueError:
            raise ValueError("expected an http:// or https:// address") from None  # the address may be secret
        return url

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError("expected names of letters, digits and -, such as Authorization")
            if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value.get_secret_value()):  # which may be a password
                raise ValueError(f"expected a value of {name} in one line, got a line break or a control character")
        return headers


class WebhookSink:
    """Posts a message and waits for a 2xx status."""

    def __init__(self, config: WebhookSinkConfig) -> None:
        self._config = config
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._limit = SizeLimit("sinks.webhook.max_bytes", config.max_bytes)
        self._is_page_reported = False

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Posts one message; see `Sink.send`."""
        data = self._limit.encode(message, snapshot if self._config.attach_snapshot else None)
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.id}
        status, retry_after_s = self._runner.run(self._request("POST", data, headers))
        if 200 <= status < 300:
            self._limit.succeeded()
            return
        lower = ": lower sinks.webhook.max_bytes" if status == 413 and self._limit.attached else ""
        reason = f"the webhook answered {status} to {len(data)} bytes{_hint(status)}{lower}"
        if status in _REJECTED:
            if status == 413:
                self._limit.failed()
            raise SinkRefused(reason, maybe_too_large=self._limit.attached)
        # one that asks to wait may accept this message later; a server may fail after it has processed the message
        busy = status == 429 or retry_after_s is not None
        raise SinkFailed(reason, outcome_unknown=status >= 500, reached=not busy, retry_after_s=retry_after_s)

    def check(self) -> str:
        """Sends a HEAD request with the configured headers; see `Sink.check`. Many receivers know POST only, and refuse it."""
        status, _ = self._runner.run(self._request("HEAD", b"", {}))
        if status in _CANNOT_WORK:
            raise SinkFailed(f"the webhook answered {status}{_hint(status)}", outcome_unknown=False, reached=True)
        doubt = "" if status < 300 or status in (405, 501) else f"{_hint(status)}, unless it is so for HEAD only"
        return f"reached, answered {status} to HEAD{doubt}"

    def close(self) -> None:
        """Closes the HTTP session."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    async def _request(self, method: str, data: bytes, more_headers: Mapping[str, str]) -> tuple[int, float | None]:
        """Returns the status, and the seconds that the server asks to wait."""
        import aiohttp  # takes a quarter of a second, and is only needed for a webhook

        if self._session is None:
            total = self._config.timeout_s
            # less for the name and the connection than in all, to tell a server that is unreachable from one that is slow
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=total, connect=0.8 * total))
        headers = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        headers |= more_headers
        url = self._config.url.get_secret_value()
        try:
            # a redirect could send the alert and the token to another host
            async with self._session.request(method, url, data=data or None, headers=headers, allow_redirects=False) as answer:
                if 200 <= answer.status < 300 and not self._is_page_reported and await _is_page(answer):
                    self._is_page_reported = True
                    _log.warning("webhook: %s", _PAGE)
                return answer.status, _seconds(answer.headers.get("Retry-After"), answer.headers.get("Date"))
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            reason = f"cannot connect to the webhook: {_why_not_connected(error)}"
            raise SinkFailed(reason, outcome_unknown=False, reached=False) from error
        except TimeoutError as error:
            reason = f"the webhook did not answer within {self._config.timeout_s:g} s: the server or the line is too slow"
            reason += f" for {len(data)} bytes: raise sinks.webhook.timeout_s, or lower max_bytes" if data else ""
            raise SinkFailed(reason, outcome_unknown=True, reached=True) from error
        except aiohttp.ClientError as error:
            # the error text may contain the address
            reason = f"the webhook did not answer: {type(error).__name__}"
            raise SinkFailed(reason, outcome_unknown=True, reached=True) from error


def _why_not_connected(error: "aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError") -> str:
    import aiohttp

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):  # has no os_error
        text = getattr(error.certificate_error, "verify_message", type(error.certificate_error).__name__)
        return f"{text}: check its certificate, and the clock of the box"
    reason = error.os_error.strerror or type(error.os_error).__name__
    # asyncio's own text, which lacks the cause
    return os.strerror(error.os_error.errno or 0) if reason.startswith("Connect call failed") else reason


async def _is_page(answer: "aiohttp.ClientResponse") -> bool:
    """Whether an answer is a web page; False if it does not arrive in time: the message is confirmed in any case."""
    import aiohttp

    if answer.content_type != "text/html":
        return False
    try:
        async with asyncio.timeout(_PAGE_TIMEOUT_S):
            return b"<html" in (await answer.content.read(_PAGE_BYTES)).lower()
    except (aiohttp.ClientError, TimeoutError):
        return False


def _hint(status: int) -> str:
    """What to do about a status, to be appended to it; empty if unknown."""
    if 300 <= status < 400:
        return ": set sinks.webhook.url to the final address: redirects are not followed"
    return f": {_HINTS[status]}" if status in _HINTS else ""


def _seconds(retry_after: str | None, server_time: str | None) -> float | None:
    """Parses a Retry-After header (RFC 9110, section 10.2.3).

    Args:
        retry_after: Seconds, or a date by the clock of the server.
        server_time: The Date header; None if there is none: then the clock of the box counts, which may be wrong.

    Returns:
        Seconds to wait; None if the header is missing or invalid.
    """
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        now = datetime.now(UTC) if server_time is None else parsedate_to_datetime(server_time)
        return max(0.0, (parsedate_to_datetime(retry_after) - now).total_seconds())
    except (TypeError, ValueError):
        return None
