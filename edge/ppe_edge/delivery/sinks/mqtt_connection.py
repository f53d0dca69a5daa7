"""A single connection to an MQTT broker, which is not reopened when it breaks.

After a reconnection, paho would resend messages in flight, and a receiver could not tell such a copy from the original.
"""

import ssl
import threading
import time
from typing import Any

import paho.mqtt.client as paho

from ppe_edge.delivery.sinks.base import SinkFailed

_CONNACK_HINTS = {
    1: "the broker does not speak MQTT 3.1.1",
    2: "set another sinks.mqtt.client_id; some brokers accept none that is empty, or only one that belongs to the login",
    3: "the broker is overloaded or starting",
    4: "check sinks.mqtt.username and password",
    5: "check sinks.mqtt.username and password, and what the broker allows this client",
}
_WHY_DISCONNECTED = (
    "check sinks.mqtt.client_id, the client certificate (it may have expired, or be unknown to the broker), and whether the "
    "port expects TLS"
)
_SETTLE_S = 0.05  # the end of the connection arrives with the confirmation
_KEEP_ALIVE_S = 10  # also bounds the TLS handshake with a frozen broker


class MqttConnection:
    """Connects when created. Used by one thread.

    Leaves all writing to `_loop`: two threads that use one TLS connection corrupt the heap (Python 3.11 does not lock it).

    Args:
        address: Host and port.
        client_id: MQTT client id; if empty, the broker chooses one.
        login: User name and password, None for an anonymous connection.
        tls: TLS settings, None for an unencrypted connection.
        timeout_s: Timeout of the broker's answer and of each confirmation.
        will: Topic and payload that the broker publishes, retained, when the connection is lost.

    Raises:
        SinkFailed: The broker is unreachable, or rejects the connection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        client_id: str,
        login: tuple[str, str | None] | None,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._changed = threading.Condition()  # of `_answer`, `_confirmed` and `alive`, which `_loop` sets
        self._answer: int | None = None  # return code of the CONNACK
        self._confirmed = 0
        self._closing = False
        self._end = ""  # the error that ended the connection, if TLS names one
        self.alive = True
        self.opened_at = self.closed_at = time.monotonic()
        self._client = paho.Client(client_id=client_id, protocol=paho.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_socket_register_write = lambda client, userdata, socket: None  # paho only queues what is to be written
        if tls is not None:
            self._client.tls_set_context(tls)
        if will is not None:
            self._client.will_set(*will, qos=1, retain=True)
        if login is not None:
            self._client.username_pw_set(*login)
        self._thread = threading.Thread(target=self._loop, name="mqtt", daemon=True)
        try:
            self._connect(*address)
        except SinkFailed:
            self.close()
            raise

    def _connect(self, host: str, port: int) -> None:
        try:
            self._client.connect(host, port, keepalive=_KEEP_ALIVE_S)
        except (OSError, UnicodeError) as error:  # includes TLS errors, and names such as a..b
            reason = f"cannot connect to {host}:{port}: {error}{_tls_hint(error)}"
            raise SinkFailed(reason, outcome_unknown=False, reached=False) from error
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None or not self.alive, self._timeout_s)
        if self._answer != 0:
            reason = f"{host}:{port} rejected the connection: {self._rejection()}"
            raise SinkFailed(reason, outcome_unknown=False, reached=False)

    def _rejection(self) -> str:
        """Why the broker did not accept the connection, and what to check."""
        if self._answer is not None:
            hint = _CONNACK_HINTS.get(self._answer)
            return paho.connack_string(self._answer) + (f" {hint}" if hint else "")
        if self.alive:
            return f"no answer within {self._timeout_s:g} s"
        return f"it disconnected instead of answering: {self._end or _WHY_DISCONNECTED}"

    def publish(self, topic: str, data: bytes, retain: bool = False) -> None:
        """Publishes with quality of service 1.

        Args:
            topic: The topic.
            data: The payload.
            retain: Whether the broker keeps it for later subscribers.

        Raises:
            SinkFailed: The broker did not confirm in time. This connection must not be used again.
        """
        info = self._client.publish(topic, data, qos=1, retain=retain)
        with self._changed:
            self._changed.wait_for(lambda: self._confirmed == info.mid or not self.alive, self._timeout_s)
            if self._confirmed == info.mid:
                return
        reason = f"no confirmation within {self._timeout_s:g} s" if self.alive else "the connection was lost"
        raise SinkFailed(reason, outcome_unknown=True, reached=False)

    def stays_open(self) -> bool:
        """Returns False if the broker disconnects within `_SETTLE_S`: some confirm a message that they drop, and disconnect."""
        with self._changed:
            return not self._changed.wait_for(lambda: not self.alive, _SETTLE_S)

    def close(self, last: tuple[str, bytes] | None = None) -> None:
        """Disconnects; takes at most a few seconds, even if the broker is frozen.

        Args:
            last: Topic and payload to publish before, retained; nobody waits for its confirmation.
        """
        self._closing = True
        if last is not None and self.alive:
            self._client.publish(*last, qos=1, retain=True)
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(2.0)
        socket = self._client.socket()
        if socket is not None:
            socket.close()
        # paho closes its last two sockets when it is garbage-collected, which these references would delay
        self._client.on_connect = self._client.on_publish = None

    def _loop(self) -> None:
        """Replaces paho's own loop, which would reconnect."""
        deadline = None
        try:
            while self._client.loop(0.5) == paho.MQTT_ERR_SUCCESS:
                if self._closing:
                    deadline = deadline or time.monotonic() + 1.0
                    if time.monotonic() > deadline:
                        break
        except OSError as error:  # paho lets some errors of TLS through, such as a rejected certificate
            self._end = f"{error}{_tls_hint(error)}"
        with self._changed:
            self.alive = False
            self.closed_at = time.monotonic()
            self._changed.notify_all()

    def _on_connect(self, client: paho.Client, userdata: Any, flags: dict[str, int], answer: int) -> None:
        with self._changed:
            self._answer = answer
            self._changed.notify_all()

    def _on_publish(self, client: paho.Client, userdata: Any, number: int) -> None:
        with self._changed:
            self._confirmed = number
            self._changed.notify_all()


def _tls_hint(error: Exception) -> str:
    """What to do about an error of TLS; empty for other errors."""
    text = str(error)
    if "CERTIFICATE_REQUIRED" in text:
        return ": the broker requires a client certificate: set sinks.mqtt.cert_file and key_file"
    if "ALERT" in text and "CERTIFICATE" in text:
        return ": the broker does not accept the certificate in sinks.mqtt.cert_file: renew it if it has expired or was revoked"
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return f": {_WHY_DISCONNECTED}"
    if "certificate has expired" in text or "not yet valid" in text:
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return f": renew the broker's certificate, or set the clock of the box, which shows {now} UTC"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ": set sinks.mqtt.ca_file to the CA of the broker, and sinks.mqtt.host to a name in its certificate"
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return ": this port does not speak TLS: set another sinks.mqtt.port, or tls: false"
    return ""
