"""Publishes messages to an MQTT broker, with quality of service 1: the broker confirms each.

| The broker | The box |
| --- | --- |
| is unreachable, or its certificate has expired or is not trusted | tries again; the log names the cause |
| disconnects or refuses while connecting | tries again; the log names the login, the client id or the certificate |
| disconnects during a message | sends it without its snapshot, then sets it aside (`ppe_edge.delivery.dispatcher`) |
| confirms a message and disconnects at once, as mosquitto does with one that it drops | as above |
| disconnects between messages, repeatedly | reconnects for the next message; the log names a second client of the same id |
| confirms a message that it drops and stays connected | not detectable: in MQTT 3.1.1 a broker cannot reject a single message |
| does not confirm in time | reconnects, and marks the message as redelivered |
| keeps a session of this client id from earlier | discards it: the box subscribes to nothing, and opens clean sessions |

Messages are not retained, so a subscriber that connects later gets no old alerts. With `home_assistant`, the box stays
connected and also keeps the topics of `ppe_edge.delivery.sinks.home_assistant` up to date.
"""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.delivery.sinks.home_assistant import OFFLINE, ONLINE, HomeAssistant, Retained, Topology
from ppe_edge.delivery.sinks.payload import SizeLimit

if TYPE_CHECKING:
    from ppe_edge.delivery.sinks.mqtt_connection import MqttConnection

_TAKEN_OVER = 3  # connections in a row that the broker closed within `_SHORT_S`, after which the log names the likely cause
_SHORT_S = 60.0
_IDLE_RETRY_S = 15.0  # between attempts to connect while there are no messages

_log = logging.getLogger(__name__)


class MqttSinkConfig(BaseModel):
    """Messages are published to TOPIC/KIND, such as ppe/gate/alert."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    host: str = Field(min_length=1, description="Name or address of the broker.")
    port: int = Field(default=8883, ge=1, le=65535, description="TCP port of the broker.")
    topic: str = Field(
        default="ppe_edge",
        min_length=1,
        pattern=r"^[^#+\x00]+$",
        description="Topic prefix; the message kind is appended.",
    )
    client_id: str = Field(default="", description="MQTT client id, different for each box; if empty, the broker chooses one.")
    tls: bool = Field(
        default=True, description="Whether to encrypt the connection; without, everything is readable, including the password."
    )
    ca_file: Path | None = Field(default=None, description="CA certificates to trust instead of the system's.")
    cert_file: Path | None = Field(default=None, description="Client certificate of the box.")
    key_file: Path | None = Field(default=None, description="Private key of the client certificate.")
    username: str | None = Field(default=None, description="User name at the broker.")
    password: SecretStr | None = Field(default=None, description="Password at the broker.")
    timeout_s: float = Field(
        default=10.0, gt=0, le=120, description="Timeout of the connection and of each confirmation, in seconds."
    )
    attach_snapshot: bool = Field(default=False, description="Whether to include the snapshot as snapshot_base64, if it fits.")
    max_bytes: int = Field(
        default=128_000,
        ge=1024,
        description="Maximum size of a message with its snapshot, in bytes; large cloud brokers disconnect above 128 KiB.",
    )

    home_assistant: str | None = Field(
        default=None,
        pattern=r"^[^#+\x00]+$",
        description="Discovery prefix of Home Assistant, usually homeassistant: entities for each camera and rule, and "
        "retained state topics. Each box then needs a topic of its own. Default: none.",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> "MqttSinkConfig":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need tls: true")
        if self.password is not None and self.username is None:
            raise ValueError("a password needs a username")
        return self


class MqttSink:
    """Publishes and waits for the broker's PUBACK; opens a new connection after a failure.

    Args:
        config: The settings.
        topology: Returns the cameras and their rules, for Home Assistant.
    """

    def __init__(self, config: MqttSinkConfig, topology: Callable[[], Topology] = dict) -> None:
        self._config, self._topology = config, topology
        self._home = None if config.home_assistant is None else HomeAssistant(config.topic, config.home_assistant)
        self._announced: Topology = {}  # what Home Assistant knows
        self._next_idle_attempt = 0.0
        self._connection: MqttConnection | None = None
        self._limit = SizeLimit("sinks.mqtt.max_bytes", config.max_bytes)
        self._short_connections = 0  # in a row

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Publishes one message; see `Sink.send`."""
        config = self._config
        data = self._limit.encode(message, snapshot if config.attach_snapshot else None)
        topic_of_message = f"{config.topic}/{message.kind}"
        connection = self._connected()
        try:
            # states first: they may be published again, and the confirmation of the message says that all has arrived
            for topic, payload in self._states(message, snapshot if config.attach_snapshot else None):
                self._publish(connection, topic, payload, retain=True)
            self._publish(connection, topic_of_message, data)
            if not connection.stays_open():
                reason = "the broker confirmed the message and disconnected at once, so it may have dropped it"
                reason += f": {self._cause(topic_of_message, len(data))}"
                raise SinkFailed(reason, outcome_unknown=True, reached=True)
        except SinkFailed as error:
            too_large = self._limit.attached and not connection.alive
            self.close()
            self._limit.failed()
            raise SinkFailed(str(error), outcome_unknown=True, reached=True, maybe_too_large=too_large) from error
        self._limit.succeeded()

    def check(self) -> str:
        """Connects and logs in; see `Sink.check`. A running box with the same client id then has to connect again."""
        self._connect().close()
        return f"connected to {self._config.host}:{self._config.port}"

    def idle(self) -> None:
        """Keeps the connection and the entities of Home Assistant up to date while there are no messages."""
        if self._home is None or time.monotonic() < self._next_idle_attempt:
            return
        try:
            connection = self._connected()
            if self._topology() != self._announced:
                self._announce(connection, self._home)
        except SinkFailed:
            self._next_idle_attempt = time.monotonic() + _IDLE_RETRY_S
            self.close()
            raise

    def _states(self, message: Message, snapshot: Path | None) -> list[Retained]:
        if self._home is None:
            return []
        fits = snapshot is not None and snapshot.exists() and snapshot.stat().st_size <= self._limit.max_bytes
        return self._home.states(message, snapshot if fits else None)

    def _connected(self) -> "MqttConnection":
        """Returns the connection, a new one if there is none."""
        if self._connection is not None and not self._connection.alive:
            self._note_closed_between_messages(self._connection)
        if self._connection is None or not self._connection.alive:
            self.close()
            self._connection = self._connect()
            if self._home is not None:
                try:
                    self._announce(self._connection, self._home)
                except SinkFailed:
                    self.close()
                    raise
        return self._connection

    def _publish(self, connection: "MqttConnection", topic: str, payload: bytes, retain: bool = False) -> None:
        """Publishes; the error names what may be wrong with this topic or size."""
        try:
            connection.publish(topic, payload, retain)
        except SinkFailed as error:
            cause = "" if connection.alive else f": {self._cause(topic, len(payload))}"
            raise SinkFailed(f"{error}{cause}", outcome_unknown=True, reached=True) from error

    def _announce(self, connection: "MqttConnection", home: HomeAssistant) -> None:
        topology = self._topology()
        retained = [*home.discovery(topology, self._announced), *home.first_states(topology)]
        for topic, payload in [*retained, Retained(home.availability, ONLINE)]:
            try:
                self._publish(connection, topic, payload, retain=True)
            except SinkFailed as error:
                raise SinkFailed(f"Home Assistant: {error}", outcome_unknown=False, reached=False) from error
        self._announced = topology

    def _cause(self, topic: str, size: int) -> str:
        """Why a broker may have closed the connection during a message to a topic."""
        config = self._config
        causes = [
            f"{size} bytes exceed the broker's limit (lower sinks.mqtt.max_bytes)" if self._limit.attached else "",
            f"this client may not publish to {topic}",
            f"another client uses the id {config.client_id!r}" if config.client_id else "",
            "" if self._limit.attached else f"{size} bytes exceed the broker's limit",
        ]
        return "the broker stopped, or " + ", or ".join(cause for cause in causes if cause)

    def _note_closed_between_messages(self, connection: "MqttConnection") -> None:
        is_short = connection.closed_at - connection.opened_at < _SHORT_S
        self._short_connections = self._short_connections + 1 if is_short else 0
        if self._short_connections == _TAKEN_OVER:
            config = self._config
            cause = "the broker or a firewall closes idle connections: raise its idle timeout"
            if config.client_id:
                same = f"probably another client uses the same id {config.client_id!r}"
                cause = f"{same}: set a different sinks.mqtt.client_id on each box"
            _log.warning(
                "mqtt: %s:%d closed %d connections in a row, each less than %g s old and between two messages: %s",
                config.host, config.port, _TAKEN_OVER, _SHORT_S, cause,
            )  # fmt: skip

    def _connect(self) -> "MqttConnection":
        from ppe_edge.delivery.sinks.mqtt_connection import MqttConnection  # imports paho, only needed for MQTT

        config = self._config
        password = config.password.get_secret_value() if config.password else None
        login = (config.username, password) if config.username is not None else None
        tls = _tls(config) if config.tls else None
        will = None if self._home is None else (self._home.availability, OFFLINE)
        return MqttConnection((config.host, config.port), config.client_id, login, tls, config.timeout_s, will)

    def close(self) -> None:
        """Disconnects."""
        if self._connection is not None:
            self._connection.close(None if self._home is None else (self._home.availability, OFFLINE))
            self._connection = None


def _tls(config: MqttSinkConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        files = ", ".join(str(file) for file in (config.ca_file, config.cert_file, config.key_file) if file)
        raise SinkFailed(f"cannot read the certificates {files}: {error}", outcome_unknown=False, reached=False) from error
    return context
