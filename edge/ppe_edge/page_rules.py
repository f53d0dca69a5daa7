"""Rules that people change on the page: `state_dir`/rules.json. They override those of edge.yaml, which stays as it is."""

import copy
from collections.abc import Callable, Mapping, Sequence
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
        is_new: Whether edge.yaml has no such rule. A change to a rule that has since been removed from edge.yaml is ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    is_new: bool = False


Changes = dict[str, dict[str, PageRule]]  # camera -> rule -> change


class PageRules(BaseModel):
    """The changes made on the page, and those before each of them.

    Attributes:
        changes: The active changes.
        earlier: Those before each change, the latest last.
        numbers: The number of each change that `earlier` can undo; no two changes ever have the same one.
        count: How many changes there have been, undone or not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    changes: Changes = Field(default_factory=dict)
    earlier: tuple[Changes, ...] = ()
    numbers: tuple[int, ...] = ()
    count: int = 0

    @property
    def latest(self) -> int:
        """Number of the change that can be undone now; 0 if there is none."""
        return self.numbers[-1] if self.numbers else 0

    def changed(self, camera: str, rule: str, change: PageRule | None) -> "PageRules":
        """Returns the state after another change of a rule of a camera; None removes its change."""
        rules = {name: kept for name, kept in self.changes.get(camera, {}).items() if name != rule}
        if change is not None:
            rules[rule] = change
        return PageRules(
            changes={**self.changes, camera: rules},
            earlier=(*self.earlier, self.changes)[-MAX_UNDO:],
            numbers=(*self.numbers, self.count + 1)[-MAX_UNDO:],
            count=self.count + 1,
        )

    def undone(self) -> "PageRules":
        """Returns the state before the latest change.

        Raises:
            EdgeError: There is none, or it is too long ago.
        """
        if not self.latest:
            raise EdgeError("there is nothing left to undo")
        return PageRules(changes=self.earlier[-1], earlier=self.earlier[:-1], numbers=self.numbers[:-1], count=self.count)

    def save(self, state_dir: Path) -> None:
        """Writes the file.

        Raises:
            OSError: It cannot be written.
        """
        with replacing(state_dir / FILE) as temporary:
            temporary.write_text(self.model_dump_json(), encoding="utf-8")

    def over(self, document: Mapping[str, Any], rule_names: Callable[[str], Sequence[str]]) -> dict[str, Any]:
        """Returns the content of edge.yaml with these changes. Cameras and rules that are no longer set are left out.

        Args:
            document: The content of edge.yaml.
            rule_names: Returns the names of a camera's rules that are set without the page: by the file, environment variables
                or the twin.
        """
        result = copy.deepcopy(dict(document))
        cameras = result.get("cameras")
        for name, rules in self.changes.items():
            camera = cameras.get(name) if isinstance(cameras, dict) else None
            if isinstance(camera, dict):
                _change_rules(camera, rules, set(rule_names(name)))
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
            got="a file that is damaged or unreadable",
            hint="delete it, then reload or restart, to use the rules of edge.yaml (changes made on the page are lost)",
        ) from error


def hint_for_page_rules(state_dir: Path) -> str:
    """Returns what to do if a change made on the page no longer fits edge.yaml or the model."""
    return f"changed on the page Rules: correct edge.yaml, or delete {state_dir / FILE}, then reload or restart"


def _change_rules(camera: dict[str, Any], changes: Mapping[str, PageRule], names: set[str]) -> None:
    """Changes the section of a camera in place.

    Args:
        camera: The section.
        changes: Rule -> change.
        names: Names of the camera's rules without the page.
    """
    changed = {rule: change.settings for rule, change in changes.items() if change.is_new or rule in names}
    if names | changed.keys() == {DEFAULT_RULE} and not camera.get("rules"):
        if changed:
            _section(camera, "rule").update(changed[DEFAULT_RULE])
        return
    if names == {DEFAULT_RULE}:
        changed = {DEFAULT_RULE: {}, **changed}  # once a camera has named rules, the default rule must be named as well
    for rule, settings in changed.items():
        _section(_section(camera, "rules"), rule).update(settings)


def _section(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns a section, added if there is none."""
    if not isinstance(parent.get(key), dict):
        parent[key] = {}
    section: dict[str, Any] = parent[key]
    return section
