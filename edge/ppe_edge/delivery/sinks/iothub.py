"""Sends messages to the outputs of an IoT Edge module; the routes of the deployment carry them to IoT Hub."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.messages import Alert, AlertClip, AlertClosed, Message
from ppe_edge.delivery.sinks.base import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.payload import encode
from ppe_edge.iot.hub import HubConnection, HubUnavailable

_MAX_BYTES = 256 * 1024  # of a message and its properties


class IotHubSinkConfig(BaseModel):
    """Messages go to IoT Hub, whose address IoT Edge sets in the environment. Snapshots stay on the box."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alerts_output: str = Field(default="alerts", min_length=1, description="Output for alerts and closing messages.")
    events_output: str = Field(default="events", min_length=1, description="Output for all other messages.")
    timeout_s: float = Field(
        default=15.0, gt=0, le=120, description="How long to wait for the hub to confirm a message, in seconds."
    )


class IotHubSink:
    """Sends a message and waits for the hub's confirmation. Consumers recognise copies by the message id."""

    def __init__(self, config: IotHubSinkConfig, hub: HubConnection) -> None:
        self._config, self._hub = config, hub

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends one message; see `Sink.send`."""
        from azure.iot.device import Message as HubMessage  # slow to import, and only needed with IoT Edge

        hub_message = HubMessage(
            encode(message), message_id=message.id, content_encoding="utf-8", content_type="application/json"
        )
        hub_message.custom_properties.update(_properties(message))
        if hub_message.get_size() > _MAX_BYTES:
            raise SinkRefused(f"{hub_message.get_size()} bytes exceed the {_MAX_BYTES} bytes that IoT Hub carries")
        is_alert = isinstance(message, Alert | AlertClosed | AlertClip)
        output = self._config.alerts_output if is_alert else self._config.events_output
        try:
            self._hub.call(lambda client: client.send_message_to_output(hub_message, output), self._config.timeout_s)
        except HubUnavailable as error:
            raise SinkFailed(str(error), error.outcome_unknown, reached=error.outcome_unknown) from error

    def check(self) -> str:
        """Waits for the connection to the hub; see `Sink.check`."""
        try:
            self._hub.wait(self._config.timeout_s)
        except HubUnavailable as error:
            raise SinkFailed(str(error), error.outcome_unknown, reached=False) from error
        return "connected"

    def close(self) -> None:
        """Does nothing: whoever opened the connection closes it."""


def _properties(message: Message) -> dict[str, str]:
    """The properties that routes and filters may use."""
    properties = {
        "kind": message.kind,
        "schema_version": str(message.schema_version),
        "redelivered": str(message.redelivered).lower(),
    }
    # storage events concern the whole box; a box without named rules has neither rule nor severity
    more = {name: getattr(message, name, None) for name in ("camera", "rule", "severity")}
    return properties | {name: value for name, value in more.items() if value is not None}
