"""The real azure-iot-device, as in production, against a mosquitto that answers like a hub."""

import gc
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from broker import HUB_PORT, Broker, Hub, needs_mosquitto
from example_messages import a_camera_event, an_alert
from helpers import HIDDEN, wait_until
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.delivery import sample_upload
from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.sample_upload import SampleUploader
from ppe_edge.delivery.sinks import SinkFailed, SinkRefused
from ppe_edge.delivery.sinks.iothub import IotHubSink, IotHubSinkConfig
from ppe_edge.errors import EdgeError
from ppe_edge.iot.hub import HubConnection, HubUnavailable
from ppe_edge.iot.twin import TwinClient, merge_patch
from ppe_edge.pictures.sampler import Sampler, SamplerConfig

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.data.device_samples import collect

THRESHOLDS = {"rule": {"alarm_threshold": 0.4}}


class Box:
    """A runtime that records what the twin applies."""

    def __init__(self) -> None:
        self.applied: list[dict[str, Any]] = []
        self.model = "old.onnx"

    def apply(self, desired: dict[str, Any]) -> None:
        if desired.get("rule", {}).get("alarm_threshold", 0) > 1:
            raise EdgeError("rule.alarm_threshold: expected at most 1")
        if "explode" in desired:
            raise RuntimeError("rtsp://user:hunter2@camera/")
        self.applied.append(desired)
        self.model = desired.get("model", {}).get("url", "old.onnx")

    def state(self) -> dict[str, Any]:
        return {"model": {"name": self.model}}

    def health(self, payload: Any) -> dict[str, Any]:
        return {"alive": True, "payload": payload}

    def snapshot(self, payload: Any) -> dict[str, Any]:
        if payload == "huge":
            return {"jpeg_base64": "A" * 200_000}
        raise EdgeError("no camera of this name")

    def reload(self, payload: Any) -> dict[str, Any]:
        raise RuntimeError("rtsp://user:hunter2@camera/")


class Site:
    """A hub with the connection, the sink and the twin of its module."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.box = broker, Box()
        self.hub = Hub(broker, THRESHOLDS)
        self.connection = HubConnection()
        self.twin = TwinClient(
            self.connection,
            self.box.apply,
            {"health": self.box.health, "snapshot": self.box.snapshot, "reload": self.box.reload},
            self.box.state,
        )
        self.sink = IotHubSink(IotHubSinkConfig(timeout_s=3), self.connection)
        self.connection.start()
        self.twin.start()
        wait_until(lambda: self.config().get("version") == 1, what="first report")

    def config(self) -> dict[str, Any]:
        return self.hub.reported.get("config") or {}

    def send(self, message: Message) -> dict[str, Any]:
        self.sink.send(message, None)
        return json.loads(message.to_json())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Broker(tmp_path_factory.mktemp("hub"), HUB_PORT) as broker:
        before = dict(os.environ)
        os.environ.update(broker.hub_environment())
        site = Site(broker)
        yield site
        site.twin.stop(2)
        site.connection.stop(5)
        site.hub.__exit__()
        os.environ.clear()
        os.environ.update(before)


@needs_mosquitto
def test_iothub_sink_chooses_output_and_sets_properties(site: Site) -> None:
    body = site.send(an_alert(1, redelivered=True))
    event = site.send(a_camera_event(2))
    wait_until(lambda: len(site.hub.telemetry) >= 2)
    assert site.hub.telemetry[-2:] == [("alerts", body), ("events", event)]
    topic = next(topic for topic, payload in site.hub.messages if body["id"].encode() in payload)
    assert f"%24.mid={body['id']}" in topic
    assert "%24.ct=application%2Fjson" in topic and "%24.ce=utf-8" in topic
    assert "kind=alert" in topic and "redelivered=true" in topic and "camera=gate" in topic
    assert "rule=" not in topic and "severity=" not in topic
    named = site.send(an_alert(3, schema_version=2, rule="lane", severity="critical"))
    wait_until(lambda: len(site.hub.telemetry) >= 3)
    topic = next(topic for topic, payload in site.hub.messages if named["id"].encode() in payload)
    assert "schema_version=2" in topic and "rule=lane" in topic and "severity=critical" in topic


@needs_mosquitto
def test_iothub_sink_check_waits_for_connection(site: Site) -> None:
    assert site.sink.check() == "connected"


def test_iothub_sink_check_reports_why_hub_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOTEDGE_WORKLOADURI", raising=False)
    monkeypatch.setenv("EdgeHubConnectionString", "HostName=hub.test")
    monkeypatch.setenv("EdgeModuleCACertificateFile", "/none.pem")
    connection = HubConnection()
    connection.start()
    with pytest.raises(SinkFailed, match=r"cannot connect: .*none\.pem"):
        IotHubSink(IotHubSinkConfig(), connection).check()
    connection.stop(5)


@needs_mosquitto
def test_iothub_sink_refuses_oversized_message(site: Site) -> None:
    with pytest.raises(SinkRefused, match="exceed the 262144"):
        site.send(a_camera_event(1, detail="x" * 262_144))


@needs_mosquitto
def test_samples_stay_until_the_hub_has_confirmed_them(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_upload, "_POLL_S", 0.05)
    sampler = Sampler(
        SamplerConfig(enabled=True, upload=True, per_hour=3600),
        tmp_path,
        ModelContract(("helmet", "none"), (64, 64)),
        hidden=HIDDEN,
    )
    for number, score in enumerate((0.9, 0.3, 0.9, 0.3)):  # sure and unsure
        image = np.random.default_rng(number).integers(0, 256, (100, 120, 3), dtype=np.uint8)
        frame = Frame(camera="gate", number=number, time=10.0 * number, monotonic=0.0, image=image)
        boxes_xyxy = np.array([[50, 20, 90, 80]], np.float32)
        detections = Detections(boxes_xyxy, np.array([score], np.float32), np.array([1]))
        if sampler.wants(frame, detections):
            sampler.keep(frame, detections)
    names = sorted(p.name for p in (sampler.folder / "JPEGImages").iterdir())
    assert len(names) == 2
    before = len(site.hub.telemetry)
    is_online, attempts = threading.Event(), []

    def call(action: Any, timeout_s: float) -> None:
        attempts.append(timeout_s)
        if not is_online.is_set():
            raise HubUnavailable("not connected to the hub", outcome_unknown=False)
        site.connection.call(action, timeout_s)

    uploader = SampleUploader(SimpleNamespace(call=call), lambda: sampler)  # type: ignore[arg-type]
    uploader.start()
    wait_until(lambda: len(attempts) >= 2, what="attempts without a connection")
    assert sorted(p.name for p in (sampler.folder / "JPEGImages").iterdir()) == names
    is_online.set()
    wait_until(lambda: not list(sampler.folder.rglob("*.jpg")), what="uploads")
    uploader.stop(2)
    wait_until(lambda: len(site.hub.telemetry) >= before + 2, what="samples at the hub")
    outputs, bodies = zip(*site.hub.telemetry[before:], strict=True)
    assert set(outputs) == {"samples"}
    assert [b["file"] for b in bodies] == names  # oldest first
    assert sum(b["frames"] for b in bodies) == 4 and sum(b["unsure_frames"] for b in bodies) == 2
    assert list((sampler.folder / "Annotations").iterdir()) == []
    (tmp_path / "storage").mkdir()  # what the hub writes to storage becomes a data set
    lines = [json.dumps({"Body": b, "SystemProperties": {"connectionDeviceId": "box"}}) for b in bodies]
    (tmp_path / "storage/00.json").write_text("\n".join(lines))
    found = collect(tmp_path / "storage", tmp_path / "out")
    assert (found.samples, found.unsure_share, found.unreadable) == (2, 0.5, 0)


@needs_mosquitto
def test_twin_applies_whole_document_and_reports_outcome(site: Site) -> None:
    version = site.hub.request({"cameras": {"gate": {"fps": 5}}})
    wait_until(lambda: site.config()["version"] == version)
    assert site.config() == {"version": version, "accepted": True, "reason": ""}
    assert site.box.applied[-1] == {**THRESHOLDS, "cameras": {"gate": {"fps": 5}}}
    count = len(site.box.applied)
    version = site.hub.request({"rule": {"alarm_threshold": 7}})
    wait_until(lambda: site.config()["version"] == version)
    assert site.config() == {"version": version, "accepted": False, "reason": "rule.alarm_threshold: expected at most 1"}
    assert len(site.box.applied) == count
    version = site.hub.request({"explode": True})
    version = site.hub.request({"explode": None, **THRESHOLDS})
    wait_until(lambda: site.config()["version"] == version)
    assert site.config()["accepted"] and "explode" not in site.box.applied[-1]
    assert "hunter2" not in json.dumps(site.hub.reported)


@needs_mosquitto
def test_twin_reports_active_model_after_each_change(site: Site) -> None:
    for model, name in (({"url": "new.onnx"}, "new.onnx"), (None, "old.onnx")):
        version = site.hub.request({"model": model})
        wait_until(lambda version=version: site.config()["version"] == version)
        assert site.config()["accepted"] and site.hub.reported["model"] == {"name": name}


@needs_mosquitto
def test_direct_methods_answer(site: Site) -> None:
    assert site.hub.invoke("health", {"n": 1}) == (200, {"alive": True, "payload": {"n": 1}})
    assert site.hub.invoke("snapshot", "x") == (400, {"error": "no camera of this name"})
    status, answer = site.hub.invoke("snapshot", "huge")
    assert status == 413 and "131072" in answer["error"]
    assert site.hub.invoke("reload") == (500, {"error": "internal error: RuntimeError"})
    assert site.hub.invoke("format_disk") == (
        404,
        {"error": "unknown method 'format_disk', expected one of health, reload, snapshot"},
    )


@needs_mosquitto
def test_connection_recovers_from_killed_hub_and_fetches_missed_patch(site: Site) -> None:
    site.broker.kill()
    wait_until(lambda: not site.connection.connected.is_set())
    with pytest.raises(SinkFailed, match="not connected") as failure:
        site.send(an_alert(1))
    assert not failure.value.outcome_unknown
    site.hub.desired = {
        **site.hub.desired,
        "batch": 2,
        "$version": site.hub.desired["$version"] + 1,
    }  # while the box is disconnected
    site.broker.start()
    wait_until(lambda: site.box.applied[-1].get("batch") == 2, 60, "the missed patch")
    body = site.send(an_alert(3))
    wait_until(lambda: ("alerts", body) in site.hub.telemetry)


@needs_mosquitto
def test_send_to_frozen_hub_fails_at_deadline(site: Site) -> None:
    wait_until(site.connection.connected.is_set, 60)
    site.broker.freeze()
    with pytest.raises(SinkFailed, match="no answer from the hub within 3 s") as failure:
        site.send(an_alert(4))
    assert failure.value.outcome_unknown
    site.broker.thaw()
    wait_until(site.connection.connected.is_set, 60)
    version = site.hub.request({"batch": 3})  # patches reach the new client
    wait_until(lambda: site.config()["version"] == version, 60)
    assert site.box.applied[-1]["batch"] == 3
    body = site.send(an_alert(5))
    wait_until(lambda: ("alerts", body) in site.hub.telemetry)


@needs_mosquitto
def test_reconnecting_leaks_no_descriptors(site: Site) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    wait_until(site.connection.connected.is_set, 60)  # so that its sockets are counted
    before = descriptors()
    for number in range(3):
        site.broker.kill()
        wait_until(lambda: not site.connection.connected.is_set())
        site.broker.start()
        wait_until(site.connection.connected.is_set, 60)
        version = site.hub.request({"batch": 10 + number})
        wait_until(lambda version=version: site.config()["version"] == version, 60)
    wait_until(lambda: descriptors() <= before, what="descriptors as before")


def test_hub_connection_without_iot_edge_names_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IOTEDGE_WORKLOADURI", "EdgeHubConnectionString"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EdgeError, match="IOTEDGE_WORKLOADURI"):
        HubConnection()


JSON = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text("ab", min_size=1, max_size=2), JSON, max_size=4)


@given(DOCUMENTS, DOCUMENTS)
def test_merge_patch_is_idempotent(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once
    assert merge_patch(document, {}) == document
    assert merge_patch({}, document) == document


def test_merge_patch_merges_objects_and_removes_nulls() -> None:
    before = {"rule": {"a": 1, "b": {"c": 2}}, "batch": 4}
    patch = {"rule": {"b": {"c": None, "d": 3}}, "batch": None, "$version": 7, "$metadata": {}}
    assert merge_patch(before, patch) == {"rule": {"a": 1, "b": {"d": 3}}}
    assert before == {"rule": {"a": 1, "b": {"c": 2}}, "batch": 4}
