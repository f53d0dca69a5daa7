"""The rules by which alarm thresholds are chosen, and their notation: `[CLASS:]RULE`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.evaluation.metrics.domain_figures import PER

Kind = Literal["recall", "worst-recall", "false-alarms"]
EXAMPLES = "recall>=0.9 or false-alarms<=20, worst-recall>=0.9 or recall>=0.9@95%"
_KINDS: dict[str, Kind] = {"recall>=": "recall", "worst-recall>=": "worst-recall", "false-alarms<=": "false-alarms"}
_RULE = re.compile(
    r"(?:(?P<name>.+?):)?\s*(?P<kind>(?:worst-)?recall\s*>=|false-alarms\s*<=)\s*(?P<limit>[0-9.eE+-]+)\s*"
    r"(?:@\s*(?P<confidence>[0-9.]+)\s*%\s*)?"
)


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        kind: `recall`: the best precision at a recall of at least `limit` over all images. `worst-recall`: the same, with the
            recall of the worst domain that has objects of the class. `false-alarms`: the best recall with at most `limit`
            false alarms per 1,000 images.
        limit: The recall, or the number of false alarms.
        confidence: For recalls: the probability with which recall on new images of the same kind is at least `limit`, see
            `guarantee`. None: recall on the given images is.
    """

    kind: Kind
    limit: float
    confidence: float | None = None

    def __str__(self) -> str:
        [kind] = (text for text, kind in _KINDS.items() if kind == self.kind)
        return f"{kind}{self.limit:g}" + ("" if self.confidence is None else f"@{100 * self.confidence:g}%")

    def in_words(self) -> str:
        """The rule as people read it."""
        match self.kind:
            case "false-alarms":
                return f"the best recall with at most {self.limit:g} false alarms per {PER:,} images"
            case "recall":
                where = ""
            case "worst-recall":
                where = " in every domain"
            case _:
                assert_never(self.kind)
        text = f"the best precision with a recall of at least {100 * self.limit:g} %{where}"
        if self.confidence is not None:
            text += f", which holds on new images of the same kind with {100 * self.confidence:g} % confidence"
        return text


DEFAULT_THRESHOLD_RULE = Rule("recall", 0.9)


def parse_rules(texts: Sequence[str], class_names: Sequence[str]) -> dict[str, Rule]:
    """The rule of each class, from rules for all classes (`recall>=0.9`) or one (`none:false-alarms<=20`).

    Raises:
        UserError: Not a rule, an unknown class, or two rules for one class.
    """
    given: dict[str | None, Rule] = {}
    for text in texts:
        match = _RULE.fullmatch(text)
        limit = _number(match["limit"]) if match else np.nan
        confidence = _number(match["confidence"]) / 100 if match and match["confidence"] else None
        if match is None or not np.isfinite(limit):
            raise UserError(setting="rule", expected=f"{EXAMPLES}, optionally for one class (none:...)", got=repr(text))
        kind = _KINDS["".join(match["kind"].split())]
        if limit < 0 or (kind != "false-alarms" and not 0 < limit <= 1):
            expected = "0 or more" if kind == "false-alarms" else "a recall above 0 and up to 1"
            raise UserError(setting="rule", expected=expected, got=repr(text))
        if confidence is not None and (kind not in ("recall", "worst-recall") or not 0.5 <= confidence < 1 or limit == 1):
            raise UserError(
                setting="rule", expected="a recall below 1 with a confidence from 50 % to below 100 %", got=repr(text)
            )
        name = match["name"]
        if name is not None and name not in class_names:
            raise UserError(
                setting="rule", expected=f"one of the classes {', '.join(class_names)}", got=f"{name!r} in {text!r}"
            )
        if name in given:
            raise UserError(
                setting="rule",
                expected=f"one rule {f'for {name}' if name else 'for all classes'}",
                got=f"{given[name]} and {text}",
            )
        given[name] = Rule(kind, limit, confidence)
    return {name: given.get(name, given.get(None, DEFAULT_THRESHOLD_RULE)) for name in class_names}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
