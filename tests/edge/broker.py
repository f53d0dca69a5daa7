"""A real mosquitto with TLS that stands in for the hub of IoT Edge, and can be killed, frozen and restarted."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from helpers import free_port, is_listening, wait_until

HUB_PORT = 8883  # the only port that azure-iot-device uses
MODULE = "gate/ppe_edge"  # device and module of `hub_environment`
needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None or shutil.which("openssl") is None,
    reason="needs mosquitto and openssl",
)


class Broker:
    """A broker that is started when it is created.

    Args:
        folder: For its certificate and its persistent state.
        port: None chooses a free one; for HUB_PORT, waits until no other test uses it.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder, self.port = folder, port or free_port()
        self._port_lock = None
        if port == HUB_PORT:  # other tests may run at the same time
            self._port_lock = os.open(Path(tempfile.gettempdir()) / "ppe_edge_hub_port.lock", os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._port_lock, fcntl.LOCK_EX)
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file, key = folder / "broker.pem", folder / "broker.key"
        names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 {names}"
        subprocess.run([*make.split(), "-keyout", str(key), "-out", str(self.ca_file)], check=True, capture_output=True)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\ncertfile {self.ca_file}\nkeyfile {key}\n"
            f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
            "user root\nmax_queued_messages 0\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        log = (self._folder / "mosquitto.log").open("ab")
        self._process = subprocess.Popen([command, "-c", str(self._folder / "mosquitto.conf")], stdout=log, stderr=log)
        wait_until(self._accepts, what="mosquitto's port")

    def _accepts(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self._folder / "mosquitto.log").read_text()[-2000:]
        return is_listening(self.port)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def alive(self) -> bool:
        return self._process is not None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def hub_environment(self) -> dict[str, str]:
        """Returns the environment variables with which create_from_edge_environment() connects to this broker."""
        device, module = MODULE.split("/")
        return {
            "EdgeHubConnectionString": f"HostName=hub.test;GatewayHostName=localhost;DeviceId={device};"
            f"ModuleId={module};SharedAccessKey=c2VjcmV0",
            "EdgeModuleCACertificateFile": str(self.ca_file),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        if self._port_lock is not None:
            os.close(self._port_lock)


class Receiver:
    """A subscriber with a persistent session; `messages` are (topic, payload) in order of arrival."""

    def __init__(self, broker: Broker, topics: str, name: str = "receiver") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._topics = topics
        self._client = paho.Client(client_id=name, clean_session=False)
        self._client.tls_set(str(broker.ca_file))
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, data, flags, answer: client.subscribe(topics, qos=1)
        self._subscribed = False
        self._client.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        self._client.connect("localhost", broker.port, keepalive=5)
        self._client.loop_start()
        wait_until(lambda: self._subscribed, what="subscription")

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if not (message.dup and (message.topic, message.payload) in self.messages):  # a copy made by the broker itself
            self._receive(message.topic, message.payload)

    def _receive(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for _, payload in list(self.messages)]

    def publish(self, topic: str, payload: Any) -> None:
        self._client.publish(topic, json.dumps(payload), qos=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Hub(Receiver):
    """Answers like a hub: module twin and direct methods on the $iothub topics."""

    def __init__(self, broker: Broker, desired: dict[str, Any] | None = None) -> None:
        self.desired: dict[str, Any] = {**(desired or {}), "$version": 1}
        self.reported: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, Any]] = {}
        self.telemetry: list[tuple[str, dict[str, Any]]] = []  # output, body
        self.fetched = 0
        super().__init__(broker, "#", "hub")
        self._client.subscribe(
            [("$iothub/twin/GET/#", 1), ("$iothub/twin/PATCH/properties/reported/#", 1), ("$iothub/methods/res/#", 1)]
        )

    def _receive(self, topic: str, payload: bytes) -> None:
        super()._receive(topic, payload)
        request = topic.rpartition("$rid=")[2]
        if topic.startswith("$iothub/twin/GET/"):
            self.fetched += 1
            self.publish(f"$iothub/twin/res/200/?$rid={request}", {"desired": self.desired, "reported": self.reported})
        elif topic.startswith("$iothub/twin/PATCH/properties/reported/"):
            self.reported.update(json.loads(payload))
            self.publish(f"$iothub/twin/res/204/?$rid={request}&$version=2", None)
        elif topic.startswith("$iothub/methods/res/"):
            self.answers[request] = (int(topic.split("/")[3]), json.loads(payload))
        elif topic.startswith(f"devices/{MODULE.replace('/', '/modules/')}/messages/events/"):
            output = topic.partition("%24.on=")[2].partition("&")[0]
            self.telemetry.append((output, json.loads(payload)))

    def request(self, patch: dict[str, Any]) -> int:
        """Changes desired properties (top-level keys) and sends the patch to the module; returns their version."""
        version = self.desired["$version"] + 1
        self.desired = {k: v for k, v in {**self.desired, **patch, "$version": version}.items() if v is not None}
        self.publish(f"$iothub/twin/PATCH/properties/desired/?$version={version}", {**patch, "$version": version})
        return int(version)

    def invoke(self, name: str, payload: Any = None, timeout_s: float = 20.0) -> tuple[int, Any]:
        """Calls a direct method."""
        request = f"m{len(self.messages)}-{time.monotonic_ns()}"
        self.publish(f"$iothub/methods/POST/{name}/?$rid={request}", payload)
        return wait_until(lambda: self.answers.get(request), timeout_s, f"answer of {name}")
