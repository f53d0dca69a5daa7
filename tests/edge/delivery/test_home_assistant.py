"""The topics and entities of Home Assistant, at a real broker."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Receiver, needs_mosquitto
from example_messages import NOON, an_alert
from hangup_broker import HangupBroker
from helpers import wait_until
from ppe_edge.config import load_settings
from ppe_edge.delivery.messages import Alert, AlertClosed, CameraEventMessage, close_unseen, utc
from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.delivery.sinks.home_assistant import OFF, ON, HomeAssistant, Topology
from ppe_edge.delivery.sinks.mqtt import MqttSink, MqttSinkConfig
from ppe_edge.runtime import Runtime
from running_box import configure

from conftest import GREY, RED  # isort: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as broker:
        yield broker


def settings(broker: Broker, **more: Any) -> dict[str, Any]:
    return {
        "host": "localhost",
        "port": broker.port,
        "ca_file": str(broker.ca_file),
        "topic": "site/box7",
        "home_assistant": "homeassistant",
        **more,
    }


def alert(number: int = 1, **more: Any) -> Alert:
    return an_alert(number, schema_version=2, rule="lane", severity="critical", zone="door", **more)


def latest(receiver: Receiver) -> dict[str, bytes]:
    return dict(list(receiver.messages))


def states_of(home: HomeAssistant, *messages: Alert | AlertClosed) -> bytes:
    states = [dict(home.states(message, None))["t/gate/lane"] for message in messages]
    return states[-1]


def test_rule_is_on_until_its_last_violation_ends() -> None:
    home, first, second = HomeAssistant("t", "homeassistant"), alert(1), alert(2)
    assert states_of(home, first, second) == ON
    assert states_of(home, close_unseen(first, NOON)) == ON
    assert states_of(home, close_unseen(second, NOON)) == OFF


def test_alert_that_arrives_after_its_end_does_not_switch_rule_on() -> None:
    home = HomeAssistant("t", "homeassistant")
    assert states_of(home, close_unseen(alert(), NOON), alert()) == OFF


def test_entities_of_cameras_and_rules_with_similar_names_differ() -> None:
    entities = HomeAssistant("t", "homeassistant").discovery({"a_b": ["c"], "a": ["b_c"]}, {})
    assert (
        len({entity.topic for entity in entities if entity.payload}) == 6
    )  # per camera: whether it is connected, its rule, the snapshot


def test_rule_named_as_state_of_camera_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    home, topology = HomeAssistant("t", "ha"), {"gate": ["connected", "lane"]}
    keys = [topic.split("/")[3] for topic, payload in home.discovery(topology, {}) if payload]
    assert keys == ["gate_connected", "gate__lane", "gate__lane_snapshot"]
    assert home.discovery(topology, topology) == home.discovery({"gate": ["lane"]}, topology)
    [warning] = caplog.messages
    assert warning == "gate: Home Assistant does not show the rule connected: choose another name"
    raised = alert().model_copy(update={"rule": "connected"})
    assert home.states(raised, None) == home.states(close_unseen(raised, NOON), None) == []
    assert home.first_states(topology) == [("t/gate/lane", OFF)]


def test_repeated_alert_counts_once() -> None:
    home = HomeAssistant("t", "homeassistant")
    assert states_of(home, alert(), alert(), close_unseen(alert(), NOON)) == OFF


@pytest.mark.parametrize(
    ("event", "state"), [("connected", ON), ("resumed", ON), ("lost", OFF), ("frozen", OFF), ("ended", OFF), ("slow", None)]
)
def test_camera_event_changes_state_of_connection(event: str, state: bytes | None) -> None:
    message = CameraEventMessage(time=utc(NOON), camera="gate", event=event)
    home = HomeAssistant("t", "homeassistant")
    expected = [] if state is None else [("t/gate/connected", state)]
    assert home.states(message, None) == expected
    assert home.first_states({"gate": []}) == expected  # for a broker that has lost what it kept


@needs_mosquitto
def test_entities_and_states_are_retained(broker: Broker, tmp_path: Path) -> None:
    snapshot = tmp_path / "a.jpg"
    snapshot.write_bytes(b"\xff\xd8 an image")
    sink = MqttSink(MqttSinkConfig(**settings(broker, attach_snapshot=True)), lambda: {"gate": ["lane"]})
    sink.send(alert(score=0.75), snapshot)
    with Receiver(broker, "#") as receiver:  # connects later
        wait_until(lambda: len(latest(receiver)) >= 7)
        got = latest(receiver)
    assert {k: v for k, v in got.items() if not k.startswith("homeassistant/")} == {
        "site/box7/available": b"online",
        "site/box7/gate/lane": b"ON",
        "site/box7/gate/lane/attributes": got["site/box7/gate/lane/attributes"],
        "site/box7/gate/lane/snapshot": b"\xff\xd8 an image",
    }
    attributes = json.loads(got["site/box7/gate/lane/attributes"])
    assert (attributes["zone"], attributes["severity"], attributes["score"]) == ("door", "critical", 0.75)
    entity = json.loads(got["homeassistant/binary_sensor/site_box7/gate__lane/config"])
    assert (entity["state_topic"], entity["availability_topic"]) == ("site/box7/gate/lane", "site/box7/available")
    assert (entity["unique_id"], entity["device_class"]) == ("site_box7_gate__lane", "safety")
    assert entity["device"]["identifiers"] == ["site_box7"]
    image = json.loads(got["homeassistant/image/site_box7/gate__lane_snapshot/config"])
    assert (image["image_topic"], image["content_type"]) == ("site/box7/gate/lane/snapshot", "image/jpeg")
    sink.close()


@needs_mosquitto
def test_lost_box_is_offline_until_it_reconnects_on_its_own(broker: Broker) -> None:
    sink = MqttSink(MqttSinkConfig(**settings(broker)), lambda: {"gate": ["lane"]})
    with Receiver(broker, "site/box7/available") as receiver:
        sink.idle()
        wait_until(lambda: receiver.messages[-1:] == [("site/box7/available", b"online")])
        assert sink._connection is not None
        sink._connection._client.socket().shutdown(socket.SHUT_RDWR)  # as when the line is cut
        wait_until(lambda: receiver.messages[-1][1] == b"offline")
        wait_until(lambda: sink._connection is None or not sink._connection.alive)
        sink.idle()
        wait_until(lambda: receiver.messages[-1][1] == b"online")
        sink.close()
        wait_until(lambda: receiver.messages[-1][1] == b"offline")


@needs_mosquitto
def test_changed_rules_change_entities(broker: Broker) -> None:
    topology: dict[str, Topology] = {"now": {"gate": ["lane"]}}
    sink = MqttSink(MqttSinkConfig(**settings(broker)), lambda: topology["now"])
    with Receiver(broker, "homeassistant/#") as receiver:
        sink.idle()
        wait_until(lambda: len(receiver.messages) == 3)
        topology["now"] = {"gate": ["night"]}
        sink.idle()
        wait_until(lambda: len(receiver.messages) == 8)  # two deleted, three described
        gone = {topic for topic, payload in list(receiver.messages)[3:] if not payload}
        assert gone == {
            "homeassistant/binary_sensor/site_box7/gate__lane/config",
            "homeassistant/image/site_box7/gate__lane_snapshot/config",
        }
        sink.idle()
    sink.close()
    assert len(receiver.messages) == 8


@needs_mosquitto
def test_running_box_switches_rule_on_and_off(
    broker: Broker, tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 30), (GREY, 40)])
    config = configure(tmp_path, tiny_model, {"gate": clip}, sinks={"mqtt": settings(broker)})
    with Receiver(broker, "site/box7/#") as receiver:
        runtime = Runtime(load_settings(config))
        runtime.start()
        assert runtime.wait(60.0)
        wait_until(lambda: "site/box7/alert_closed" in latest(receiver))
        runtime.stop()
        wait_until(lambda: latest(receiver)["site/box7/available"] == b"offline")
        states = [payload for topic, payload in receiver.messages if topic == "site/box7/gate/default"]
    assert states == [b"OFF", b"ON", b"OFF"]
    assert latest(receiver)["site/box7/gate/connected"] == b"OFF"  # the video has ended


def test_broker_that_refuses_description_of_entities_is_named() -> None:
    with HangupBroker(max_bytes=200) as broker:
        plain = {"host": "127.0.0.1", "port": broker.port, "tls": False, "home_assistant": "homeassistant"}
        sink = MqttSink(MqttSinkConfig(**plain), lambda: {"gate": ["lane"]})
        with pytest.raises(SinkFailed, match=r"Home Assistant: .* this client may not publish to homeassistant/binary_sensor/"):
            sink.send(alert(), None)


def test_broker_that_refuses_state_is_reported_with_its_topic(tmp_path: Path) -> None:
    """It disconnects at the image of the alert, which is published before the message."""
    with HangupBroker(max_bytes=5000) as broker:
        plain = {"host": "127.0.0.1", "port": broker.port, "tls": False, "home_assistant": "homeassistant"}
        sink = MqttSink(MqttSinkConfig(**plain, attach_snapshot=True), lambda: {"gate": ["lane"]})
        (tmp_path / "snapshot.jpg").write_bytes(bytes(6000))
        with pytest.raises(
            SinkFailed, match=r" 6000 bytes .* this client may not publish to ppe_edge/gate/lane/snapshot"
        ) as error:
            sink.send(alert(), tmp_path / "snapshot.jpg")
    assert error.value.maybe_too_large and error.value.reached


@needs_mosquitto
def test_close_does_not_wait_for_frozen_broker(broker: Broker) -> None:
    sink = MqttSink(MqttSinkConfig(**settings(broker, timeout_s=60)), lambda: {"gate": ["lane"]})
    sink.idle()
    broker.freeze()
    closing = threading.Thread(target=sink.close, daemon=True)
    closing.start()
    closing.join(20.0)  # a confirmation would be waited for 60 s
    broker.thaw()
    assert not closing.is_alive()
