"""Destinations of messages: IoT Hub, MQTT, a webhook, a file, and people."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.sinks.base import Sink, SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.escalate import EscalateSink, EscalateSinkConfig
from ppe_edge.delivery.sinks.home_assistant import Topology
from ppe_edge.delivery.sinks.iothub import IotHubSink, IotHubSinkConfig
from ppe_edge.delivery.sinks.jsonl import JsonlSink, JsonlSinkConfig
from ppe_edge.delivery.sinks.mqtt import MqttSink, MqttSinkConfig
from ppe_edge.delivery.sinks.notify import NotifySink, NotifySinkConfig, Site, open_addresses
from ppe_edge.delivery.sinks.webhook import WebhookSink, WebhookSinkConfig
from ppe_edge.iot.hub import HubConnection

__all__ = ["Sink", "SinkFailed", "SinkRefused", "SinksConfig", "build_sinks"]


class SinksConfig(BaseModel):
    """Every configured sink gets every message, except `notify` and `escalate`, which send people what concerns them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iothub: IotHubSinkConfig | None = Field(default=None, description="Azure IoT Hub, through IoT Edge.")
    mqtt: MqttSinkConfig | None = Field(default=None, description="Any MQTT broker.")
    webhook: WebhookSinkConfig | None = Field(default=None, description="HTTP POST requests.")
    jsonl: JsonlSinkConfig | None = Field(default=None, description="A file with one JSON object per line.")
    notify: NotifySinkConfig | None = Field(default=None, description="E-mail, chat and push notifications to people.")
    escalate: EscalateSinkConfig | None = Field(default=None, description="The same for alerts that nobody acknowledges.")


def build_sinks(
    config: SinksConfig,
    hub: HubConnection | None,
    topology: Callable[[], Topology] = dict,
    site: Callable[[], Site] = lambda: Site(ZoneInfo("UTC"), str),
    is_acknowledged: Callable[[str], bool] = lambda alert: False,
) -> dict[str, Sink]:
    """Builds the configured sinks.

    Args:
        config: The sinks to build.
        hub: The connection to IoT Edge; only needed for `iothub`.
        topology: Returns the cameras and their rules, for Home Assistant.
        site: Returns the names and times of the site, for notifications.
        is_acknowledged: Whether an alert has a verdict or is acknowledged; for `escalate`.

    Returns:
        Name -> sink.

    Raises:
        EdgeError: A sink cannot be used.
    """
    sinks: dict[str, Sink] = {}
    if config.iothub is not None:
        if hub is None:
            raise ValueError("the iothub sink needs a HubConnection")
        sinks["iothub"] = IotHubSink(config.iothub, hub)
    if config.mqtt is not None:
        sinks["mqtt"] = MqttSink(config.mqtt, topology)
    if config.webhook is not None:
        sinks["webhook"] = WebhookSink(config.webhook)
    if config.jsonl is not None:
        sinks["jsonl"] = JsonlSink(config.jsonl)
    if config.notify is not None:
        addresses = open_addresses(config.notify.urls, "notify")
        sinks |= {name: NotifySink(config.notify, site, address) for name, address in addresses.items()}
    if config.escalate is not None:
        addresses = open_addresses(config.escalate.urls, "escalate")
        sinks |= {name: EscalateSink(config.escalate, site, address, is_acknowledged) for name, address in addresses.items()}
    return sinks
