"""Scores the same videos with other settings of rule and tracker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ppe_edge.config import boolean_for_number
from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.tracker import TrackerConfig
from ppe_edge.scoring.figures import Figures

Value = float | int | str | None
DEFAULT_GRID: Mapping[str, tuple[Value, ...]] = {
    "alarm_threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "seconds": (0.5, 1.0, 1.5, 2.0, 3.0),
}
_TRACKER = "tracker."

_Config = TypeVar("_Config", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of settings.

    Attributes:
        changes: Setting -> its value; empty for the settings as they are.
        figures: Of all videos together.
    """

    changes: Mapping[str, Value]
    figures: Figures

    def is_better_than(self, other: "Trial") -> bool:
        """Whether it is at least as good in every figure, and better in one."""
        mine, others = _costs(self.figures), _costs(other.figures)
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Parses settings such as `seconds=1,1.5,3`; those that are empty stand for `DEFAULT_GRID`.

    Raises:
        EdgeError: A text has another form.
    """
    grid: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not text:
            grid |= DEFAULT_GRID
            continue
        if not separator or not values:
            raise EdgeError(setting="sweep", expected="SETTING=VALUE,VALUE,... or nothing", got=text)
        try:
            grid[name.removeprefix("rule.")] = tuple(yaml.safe_load(f"[{values}]"))
        except yaml.YAMLError:
            raise EdgeError(setting="sweep", item=name, expected="values with commas between them", got=values) from None
    return grid


def combinations(grid: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """Returns all combinations; those with the same tracker follow each other."""
    names = sorted(grid, key=lambda name: not name.startswith(_TRACKER))
    return [dict(zip(names, values, strict=True)) for values in product(*(grid[name] for name in names))]


def changed(tracker: TrackerConfig, rule: RuleConfig, changes: Mapping[str, Value]) -> tuple[TrackerConfig, RuleConfig]:
    """Returns the settings with changes.

    Raises:
        EdgeError: There is no such setting, or the value is invalid.
    """
    of_tracker = {name.removeprefix(_TRACKER): value for name, value in changes.items() if name.startswith(_TRACKER)}
    of_rule = {name: value for name, value in changes.items() if not name.startswith(_TRACKER)}
    return _validated(tracker, of_tracker), _validated(rule, of_rule)


def _validated(config: _Config, changes: Mapping[str, Value]) -> _Config:
    if not changes:
        return config
    try:
        result = type(config).model_validate({**config.model_dump(), **changes})
    except ValidationError as error:
        entry = error.errors(include_url=False, include_context=False)[0]
        if entry["type"] == "extra_forbidden":
            known = ", ".join(type(config).model_fields)
            raise EdgeError(setting="sweep", expected=f"one of {known}", got=str(entry["loc"][0])) from None
        name = ".".join(map(str, entry["loc"])) or ", ".join(changes)
        raise EdgeError(entry["msg"].removeprefix("Value error, "), setting="sweep", item=name) from None
    if location := boolean_for_number(changes, result):
        raise EdgeError(setting="sweep", item=".".join(location), expected="a number", got="true or false")
    return result


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that no other one is better than; of those with equal figures, the first."""
    chosen: list[Trial] = []
    for trial in trials:
        is_known = any(_costs(trial.figures) == _costs(other.figures) for other in chosen)
        if not is_known and not any(other.is_better_than(trial) for other in trials):
            chosen.append(trial)
    return sorted(chosen, key=lambda trial: _costs(trial.figures))


def _costs(figures: Figures) -> tuple[float, ...]:
    """Returns figures of which less is better."""
    nothing = float("inf")
    return (
        figures.missed,
        figures.false_alerts,
        figures.alerts_per_violation or 1.0,
        nothing if figures.median_delay_s is None else round(figures.median_delay_s, 3),
    )
