"""The reference of settings, messages and metrics: complete, and as the code has them."""

import re
from pathlib import Path
from typing import get_args

from ppe_edge.config import LIVE_FIELDS, EdgeSettings
from ppe_edge.delivery.messages import Message
from ppe_edge.reference import reference, setting_names

FILE = Path(__file__).parents[2] / "edge" / "REFERENCE.md"


def rows(document: str) -> dict[str, list[str]]:
    """Name in the first column -> the other columns."""
    cells = [line.strip("|").replace("\\|", "/").split(" | ") for line in document.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in cells}


def test_reference_file_is_what_the_code_generates() -> None:
    assert FILE.read_text() == reference() + "\n", "run: python -m ppe_edge.reference > edge/REFERENCE.md"


def test_reference_describes_values_defaults_and_whether_a_change_is_live() -> None:
    settings = rows(reference())
    assert settings["cameras.NAME.fps"][0] == "number above 0 up to 1000 (frames per s)"
    assert settings["cameras.NAME.fps"][3] == "yes"
    assert settings["cameras.NAME.transport"][:2] == ["`tcp`, `udp`", "`tcp`"]
    assert settings["web.token"][:2] == ["text, secret of 16 characters or more", "-"]
    assert settings["web.port"][1] == "`8080`" and settings["web.port"][3] == "no"
    assert settings["sinks.mqtt.tls"][:2] == ["true, false", "`true`"]
    assert settings["sinks.jsonl.path"][:2] == ["path", "required"]
    assert settings["rule.cooldown_s"][:2] == ["number from 0 up to 86400 (s)", "`10`"]


def test_reference_has_every_setting_with_a_description() -> None:
    settings, names = rows(reference()), setting_names()
    # a setting that occurs in several places is described where its name is shortest
    shared = re.compile(r".+\.rule\.|(.+\.)?rules\.NAME\.")  # described as `rule`
    assert not [name for name in names if name not in settings and not shared.match(name)]
    assert {name for name in settings if name in LIVE_FIELDS} == LIVE_FIELDS
    assert EdgeSettings.model_fields.keys() <= settings.keys()
    assert all(row[-2 if name in names else -1] for name, row in settings.items())


def test_reference_has_all_messages_and_labels_of_metrics() -> None:
    document = rows(reference())
    assert {m.model_fields["kind"].default for m in get_args(Message)} <= document.keys()
    assert "`class`" in document["alert"][1]  # as the JSON has it
    assert document["ppe_edge_alerts_total"][:2] == ["counter", "camera, kind"]
    assert document["ppe_edge_camera_state"][:2] == ["gauge", "camera, state"]
    assert document["ppe_edge_stage_seconds"][:2] == ["histogram", "stage"]
