"""Messages to the outputs of an IoT Edge module, which the deployment's routes carry to IoT Hub."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.sinks.base import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.payload import encode
from ppe_edge.iot.hub import HubConnection, HubUnavailable

_MOST_BYTES = 256 * 1024  # of a message and its properties


class IotHubSinkConfig(BaseModel):
    """Messages go to IoT Hub, which finds the box by the variables that IoT Edge sets. Pictures stay on the box."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alerts_output: str = Field(default="alerts", min_length=1, description="Output for alerts and what closes them.")
    events_output: str = Field(default="events", min_length=1, description="Output for everything else.")
    timeout_s: float = Field(default=15.0, gt=0, le=120, description="For the hub's confirmation of a message.")


class IotHubSink:
    """Sends and waits for the hub's confirmation; consumers tell copies apart by the message id."""

    def __init__(self, config: IotHubSinkConfig, hub: HubConnection) -> None:
        self._config, self._hub = config, hub

    def send(self, body: dict[str, Any], snapshot: Path | None) -> None:
        """Sends one message; see `Sink.send`."""
        from azure.iot.device import Message  # slow to import, and not needed where there is no IoT Edge

        message = Message(encode(body), message_id=body["id"], content_encoding="utf-8", content_type="application/json")
        for name in ("kind", "camera", "schema_version", "redelivered"):  # for routes and filters
            if name in body:
                value = body[name]
                message.custom_properties[name] = str(value).lower() if isinstance(value, bool) else str(value)
        if message.get_size() > _MOST_BYTES:
            raise SinkRefused(f"{message.get_size()} bytes exceed the {_MOST_BYTES} that IoT Hub carries")
        alert = body["kind"] in ("alert", "alert_closed")
        output = self._config.alerts_output if alert else self._config.events_output
        try:
            self._hub.call(lambda client: client.send_message_to_output(message, output), self._config.timeout_s)
        except HubUnavailable as error:
            raise SinkFailed(str(error), error.outcome_unknown) from error

    def close(self) -> None:
        """The connection is closed by whoever opened it."""
