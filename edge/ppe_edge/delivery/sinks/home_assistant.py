"""State topics and discovery messages for Home Assistant, in the layout that Frigate's users know.

| Topic, all retained | Payload |
| --- | --- |
| TOPIC/available | online, or offline after the connection was lost |
| TOPIC/CAMERA/connected | ON while the camera delivers frames, else OFF |
| TOPIC/CAMERA/RULE | ON while a violation of the rule is open, else OFF |
| TOPIC/CAMERA/RULE/attributes | class, severity, zone, score and time of the latest alert as JSON |
| TOPIC/CAMERA/RULE/snapshot | the JPEG of the latest alert, if `attach_snapshot` is on |
| PREFIX/COMPONENT/BOX/OBJECT/config | discovery: an entity per topic, on one device per box |

BOX is TOPIC with _ for /, so each box needs a topic of its own. A rule named `connected` has no entity and no topics.
"""

import json
import logging
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ppe_edge.delivery.messages import Alert, AlertClosed, CameraEventMessage, Message
from ppe_edge.rules.config import DEFAULT_RULE, DEFAULT_SEVERITY

Topology = Mapping[str, Sequence[str]]  # camera -> its rules

ONLINE, OFFLINE, ON, OFF = b"online", b"offline", b"ON", b"OFF"
_CONNECTED = {"connected": ON, "resumed": ON, "lost": OFF, "frozen": OFF, "ended": OFF}
CONNECTED = "connected"  # not for a rule: the state of the camera has this topic
_LATE_ALERTS = 1000  # closed violations to remember, in case an alert that was set aside arrives after its end

_log = logging.getLogger(__name__)


class Retained(NamedTuple):
    """A message that the broker keeps for later subscribers; an empty payload deletes it."""

    topic: str
    payload: bytes


class HomeAssistant:
    """Derives states from messages, and describes the entities of the box.

    Args:
        topic: Topic prefix of the box.
        prefix: Prefix under which Home Assistant expects discovery messages.
    """

    def __init__(self, topic: str, prefix: str) -> None:
        self._topic, self._prefix = topic, prefix
        self._box = re.sub(r"[^A-Za-z0-9_-]", "_", topic)
        self._open: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # (camera, rule) -> violations
        self._connected: dict[str, bytes] = {}  # camera -> its latest state
        self._closed: deque[str] = deque(maxlen=_LATE_ALERTS)

    @property
    def availability(self) -> str:
        """Topic that tells whether the box is connected."""
        return f"{self._topic}/available"

    def discovery(self, topology: Topology, before: Topology) -> list[Retained]:
        """Returns the descriptions of all entities, and what deletes those of rules and cameras that are gone.

        Logs a rule that cannot have an entity, unless it was there before.
        """
        for camera, rules in topology.items():
            if CONNECTED in rules and CONNECTED not in before.get(camera, ()):
                _log.warning("%s: Home Assistant does not show the rule %s: choose another name", camera, CONNECTED)
        entities = dict(self._entities(topology))
        return [
            *(Retained(topic, b"") for topic, _ in self._entities(before) if topic not in entities),
            *(Retained(topic, json.dumps(entity).encode()) for topic, entity in entities.items()),
        ]

    def first_states(self, topology: Topology) -> list[Retained]:
        """Returns the states of all cameras and rules, as far as they are known, for a broker that may have missed some."""
        rules = [self._state(camera, rule) for camera, rules in topology.items() for rule in _shown(rules)]
        return [*rules, *(self._camera(name, self._connected[name]) for name in topology if name in self._connected)]

    def states(self, message: Message, snapshot: Path | None) -> list[Retained]:
        """Returns the states that a message changes. Calling it again for the same message changes nothing."""
        if isinstance(message, CameraEventMessage):
            state = _CONNECTED.get(message.event)
            if state is None:
                return []
            self._connected[message.camera] = state
            return [self._camera(message.camera, state)]
        if not isinstance(message, Alert | AlertClosed) or message.rule == CONNECTED:
            return []
        place = message.camera, message.rule or DEFAULT_RULE
        if isinstance(message, AlertClosed):
            self._open[place].discard(message.violation)
            self._closed.append(message.violation)
            return [self._state(*place)]
        if message.violation not in self._closed:
            self._open[place].add(message.violation)
        return [*self._details(message, self._rule_topic(*place), snapshot), self._state(*place)]

    def _details(self, alert: Alert, topic: str, snapshot: Path | None) -> Iterator[Retained]:
        attributes = {
            "class": alert.class_name,
            "severity": alert.severity or DEFAULT_SEVERITY,
            "zone": alert.zone,
            "score": round(alert.score, 3),
            "time": alert.time.isoformat(),
        }
        yield Retained(f"{topic}/attributes", json.dumps(attributes).encode())
        if snapshot is not None:
            try:
                yield Retained(f"{topic}/snapshot", snapshot.read_bytes())
            except FileNotFoundError:  # dropped by the limits of the outbox since the message was claimed
                return

    def _camera(self, camera: str, state: bytes) -> Retained:
        return Retained(f"{self._topic}/{camera}/connected", state)

    def _state(self, camera: str, rule: str) -> Retained:
        return Retained(self._rule_topic(camera, rule), ON if self._open[camera, rule] else OFF)

    def _rule_topic(self, camera: str, rule: str) -> str:
        return f"{self._topic}/{camera}/{rule}"

    def _entities(self, topology: Topology) -> Iterator[tuple[str, dict[str, object]]]:
        for camera, rules in topology.items():
            state = {"state_topic": f"{self._topic}/{camera}/connected", "device_class": "connectivity"}
            yield self._entity("binary_sensor", f"{camera}_connected", f"{camera} connected", state)
            for rule in _shown(rules):
                # a name has no __, so that the entities of camera a_b and rule c differ from those of camera a and rule b_c
                topic, name = self._rule_topic(camera, rule), f"{camera} {'violation' if rule == DEFAULT_RULE else rule}"
                state = {"state_topic": topic, "json_attributes_topic": f"{topic}/attributes", "device_class": "safety"}
                yield self._entity("binary_sensor", f"{camera}__{rule}", name, state)
                image = {"image_topic": f"{topic}/snapshot", "content_type": "image/jpeg"}
                yield self._entity("image", f"{camera}__{rule}_snapshot", f"{name} snapshot", image)

    def _entity(self, component: str, key: str, name: str, more: Mapping[str, object]) -> tuple[str, dict[str, object]]:
        return f"{self._prefix}/{component}/{self._box}/{key}/config", {
            "name": name,
            "unique_id": f"{self._box}_{key}",
            "availability_topic": self.availability,
            "device": {"identifiers": [self._box], "name": self._topic, "manufacturer": "ppe_yolo", "model": "ppe_edge"},
            "origin": {"name": "ppe_edge"},
            **more,
        }


def _shown(rules: Sequence[str]) -> Sequence[str]:
    return [rule for rule in rules if rule != CONNECTED]
