"""Zones that people draw on the page: `state_dir`/zones.json. They replace those of edge.yaml, which stays as it is."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE, Polygon
from ppe_yolo.core.files import replacing

FILE = "zones.json"
MAX_UNDO = 20

Zones = dict[str, Polygon]  # name -> corners (x, y) as fractions of width and height
Drawn = dict[str, dict[str, Zones]]  # camera -> rule -> zones; what is not in it comes from edge.yaml


class DrawnZones(BaseModel):
    """What was drawn, and what was before.

    Attributes:
        zones: The zones in force.
        earlier: Those before each change, the latest last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    zones: Drawn = Field(default_factory=dict)
    earlier: tuple[Drawn, ...] = ()

    def changed(self, camera: str, rule: str, zones: Zones) -> "DrawnZones":
        """Returns this with other zones of one rule of a camera."""
        drawn = {**self.zones, camera: {**self.zones.get(camera, {}), rule: zones}}
        return DrawnZones(zones=drawn, earlier=(*self.earlier, self.zones)[-MAX_UNDO:])

    def undone(self) -> "DrawnZones":
        """Returns this as before the latest change.

        Raises:
            EdgeError: There is none, or it is too long ago.
        """
        if not self.earlier:
            raise EdgeError("there is no change of zones to undo")
        return DrawnZones(zones=self.earlier[-1], earlier=self.earlier[:-1])

    def save(self, state_dir: Path) -> None:
        """Writes the file.

        Raises:
            OSError: It cannot be written.
        """
        with replacing(state_dir / FILE) as temporary:
            temporary.write_text(self.model_dump_json(), encoding="utf-8")

    def over(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the content of edge.yaml with these zones. Cameras and rules that it no longer has are left out."""
        result = copy.deepcopy(dict(document))
        cameras = result.get("cameras")
        for name, rules in self.zones.items():
            camera = cameras.get(name) if isinstance(cameras, dict) else None
            if not isinstance(camera, dict):
                continue
            named = {*(result.get("rules") or {}), *(camera.get("rules") or {})}
            for rule, zones in rules.items():
                if rule in named:
                    _mapping(_mapping(camera, "rules"), rule)["zones"] = zones
                elif not named and rule == DEFAULT_RULE:
                    _mapping(camera, "rule")["zones"] = zones
        return result


def read_drawn_zones(state_dir: Path) -> DrawnZones:
    """Reads the file; there are no drawn zones without it.

    Raises:
        EdgeError: The file is damaged.
    """
    path = state_dir / FILE
    try:
        return DrawnZones.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return DrawnZones()
    except (OSError, ValidationError) as error:
        raise EdgeError(
            file=path,
            expected="the zones drawn on the page",
            got="a file that cannot be read",
            hint="delete it: the zones of edge.yaml apply then",
        ) from error


def _mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns a section, added if there is none."""
    if not isinstance(parent.get(key), dict):
        parent[key] = {}
    found: dict[str, Any] = parent[key]
    return found
