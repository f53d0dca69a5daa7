"""Posts messages to a web address."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_validator

from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks.base import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.payload import encode

if TYPE_CHECKING:
    import aiohttp

_REJECTED = {400, 409, 413, 415, 422}  # caused by the message; other statuses concern the address, the token or the server
_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)


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


class WebhookSink:
    """Posts a message and waits for a 2xx status."""

    def __init__(self, config: WebhookSinkConfig) -> None:
        self._config = config
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Posts one message; see `Sink.send`."""
        data = encode(message, snapshot if self._config.attach_snapshot else None, self._config.max_bytes)
        status = self._runner.run(self._post(data, message.id))
        if 200 <= status < 300:
            return
        if status in _REJECTED:
            raise SinkRefused(f"the webhook answered {status}")
        # a server may fail after it has processed the message
        raise SinkFailed(f"the webhook answered {status}", outcome_unknown=status >= 500)

    def close(self) -> None:
        """Closes the HTTP session."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    async def _post(self, data: bytes, message_id: str) -> int:
        import aiohttp  # takes a quarter of a second, and is only needed for a webhook

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout_s))
        headers = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        headers |= {"Content-Type": "application/json", "Idempotency-Key": message_id}
        url = self._config.url.get_secret_value()
        try:
            # a redirect could send the alert and the token to another host
            async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or type(error.os_error).__name__
            raise SinkFailed(f"cannot connect to the webhook: {reason}", outcome_unknown=False) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            # the error text may contain the address
            raise SinkFailed(f"the webhook did not answer: {type(error).__name__}", outcome_unknown=True) from error
