"""Rules that people change on the page: `state_dir`/rules.json. They override those of edge.yaml, which stays as it is."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE
from ppe_yolo.core.files import replacing

FILE = "rules.json"
MAX_UNDO = 20


class PageRule(BaseModel):
    """A change of one rule of a camera.

    Attributes:
        settings: Settings of the rule that differ from edge.yaml, in the same structure.
        is_new: Whether edge.yaml has no such rule. A change of a rule that edge.yaml no longer has is void.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    is_new: bool = False


Changes = dict[str, dict[str, PageRule]]  # camera -> rule -> change


class PageRules(BaseModel):
    """What was changed on the page, and what was before.

    Attributes:
        changes: The changes in force.
        earlier: Those before each change, the latest last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    changes: Changes = Field(default_factory=dict)
    earlier: tuple[Changes, ...] = ()

    def changed(self, camera: str, rule: str, change: PageRule | None) -> "PageRules":
        """Returns this with another change of one rule of a camera; None takes its change away."""
        rules = {name: kept for name, kept in self.changes.get(camera, {}).items() if name != rule}
        if change is not None:
            rules[rule] = change
        return PageRules(changes={**self.changes, camera: rules}, earlier=(*self.earlier, self.changes)[-MAX_UNDO:])

    def undone(self) -> "PageRules":
        """Returns this as before the latest change.

        Raises:
            EdgeError: There is none, or it is too long ago.
        """
        if not self.earlier:
            raise EdgeError("there is no change to undo")
        return PageRules(changes=self.earlier[-1], earlier=self.earlier[:-1])

    def save(self, state_dir: Path) -> None:
        """Writes the file.

        Raises:
            OSError: It cannot be written.
        """
        with replacing(state_dir / FILE) as temporary:
            temporary.write_text(self.model_dump_json(), encoding="utf-8")

    def over(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the content of edge.yaml with these changes. Cameras and rules that it no longer has are left out."""
        result = copy.deepcopy(dict(document))
        cameras = result.get("cameras")
        for name, rules in self.changes.items():
            camera = cameras.get(name) if isinstance(cameras, dict) else None
            if not isinstance(camera, dict):
                continue
            in_file = {*(result.get("rules") or {}), *(camera.get("rules") or {})} or {DEFAULT_RULE}
            mine = {rule: change.settings for rule, change in rules.items() if change.is_new or rule in in_file}
            if in_file | mine.keys() == {DEFAULT_RULE} and not camera.get("rules") and not result.get("rules"):
                if mine:
                    _mapping(camera, "rule").update(mine[DEFAULT_RULE])
                continue
            if in_file == {DEFAULT_RULE}:
                mine = {DEFAULT_RULE: {}, **mine}  # beside named rules, it exists only if it is named too
            for rule, settings in mine.items():
                _mapping(_mapping(camera, "rules"), rule).update(settings)
        return result


def read_page_rules(state_dir: Path) -> PageRules:
    """Reads the file; without it, nothing was changed.

    Raises:
        EdgeError: The file is damaged.
    """
    path = state_dir / FILE
    try:
        return PageRules.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return PageRules()
    except (OSError, ValidationError) as error:
        raise EdgeError(
            file=path,
            expected="the rules changed on the page",
            got="a file that cannot be read",
            hint="delete it: the rules of edge.yaml apply then",
        ) from error


def _mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns a section, added if there is none."""
    if not isinstance(parent.get(key), dict):
        parent[key] = {}
    found: dict[str, Any] = parent[key]
    return found
