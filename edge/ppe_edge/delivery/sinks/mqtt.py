"""Publishes messages to an MQTT broker, with quality of service 1: the broker confirms each."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.delivery.sinks.payload import encode

if TYPE_CHECKING:
    from ppe_edge.delivery.sinks.mqtt_connection import MqttConnection


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
    client_id: str = Field(default="", description="MQTT client id; if empty, the broker chooses one.")
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
    max_bytes: int = Field(default=250_000, ge=1024, description="Maximum size of a message with its snapshot, in bytes.")

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
    """Publishes and waits for the broker's PUBACK; opens a new connection after a failure."""

    def __init__(self, config: MqttSinkConfig) -> None:
        self._config = config
        self._connection: MqttConnection | None = None

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Publishes one message; see `Sink.send`."""
        config = self._config
        data = encode(message, snapshot if config.attach_snapshot else None, config.max_bytes)
        if self._connection is None or not self._connection.alive:
            self.close()
            self._connection = self._connect()
        try:
            self._connection.publish(f"{config.topic}/{message.kind}", data)
        except SinkFailed:
            self.close()
            raise

    def _connect(self) -> "MqttConnection":
        from ppe_edge.delivery.sinks.mqtt_connection import MqttConnection  # imports paho, only needed for MQTT

        config = self._config
        password = config.password.get_secret_value() if config.password else None
        login = (config.username, password) if config.username is not None else None
        tls = _tls(config) if config.tls else None
        return MqttConnection((config.host, config.port), config.client_id, login, tls, config.timeout_s)

    def close(self) -> None:
        """Disconnects."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _tls(config: MqttSinkConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        files = ", ".join(str(file) for file in (config.ca_file, config.cert_file, config.key_file) if file)
        raise SinkFailed(f"cannot read the certificates {files}: {error}", outcome_unknown=False) from error
    return context
