"""Which classes are states of one object, so that they are tracked together."""

import difflib
from collections.abc import Collection, Mapping

from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import RuleConfig


def tracked_classes(
    rules: Mapping[str, RuleConfig], class_names: Collection[str], keys: Mapping[str, str] | None = None
) -> dict[str, frozenset[str]]:
    """Returns the classes that the tracker follows together for each rule of a camera.

    They are the violation class and the compliant classes: a head with and without helmet. Rules that share a class share all
    classes, so that an object has one track.

    Args:
        rules: The rules by name.
        class_names: Classes of the model.
        keys: Rule -> where it is set, for errors; by default its name.

    Raises:
        EdgeError: The model has no such class, or it is unclear which classes are compliant.
    """
    keys = keys or {name: name for name in rules}
    for name, rule in rules.items():
        _require_known_classes(rule, class_names, keys[name])
    groups = {name: _own_classes(name, rules, class_names, keys) for name in rules}
    for _ in groups:  # repeated, since a group that grows may reach others
        groups = {name: frozenset().union(*(g for g in groups.values() if g & mine)) for name, mine in groups.items()}
    return groups


def _require_known_classes(rule: RuleConfig, class_names: Collection[str], key: str) -> None:
    named: dict[str, tuple[str | None, ...]] = {
        "violation_class": (rule.violation_class,),
        "compliant_classes": rule.compliant_classes or (),
        "inside": (rule.inside,),
        "without": (rule.without,),
    }
    for setting, name in ((setting, name) for setting, names in named.items() for name in names):
        if name is not None and name not in class_names:
            nearest = difflib.get_close_matches(name, class_names, n=1)
            raise EdgeError(
                setting=f"{key}.{setting}",
                expected=f"one of the model's classes {', '.join(class_names)}",
                got=repr(name),
                hint=f"did you mean {nearest[0]}?" if nearest else None,
            )


def _own_classes(
    name: str, rules: Mapping[str, RuleConfig], class_names: Collection[str], keys: Mapping[str, str]
) -> frozenset[str]:
    rule = rules[name]
    if rule.without is not None:
        return frozenset((rule.violation_class,))
    if rule.compliant_classes is not None:
        return frozenset((rule.violation_class, *rule.compliant_classes))
    used: set[str | None] = set()
    rivals = []
    for other, config in rules.items():
        # a helmet, worn at the head, remains a state of the head
        used |= {config.inside, config.without if config.worn_at == "body" else None}
        if config.violation_class != rule.violation_class:
            used |= {config.violation_class, *(config.compliant_classes or ())}
            if config.without is None and config.compliant_classes is None:
                rivals.append(other)
    rest = frozenset(class_names) - used
    if rivals and len(rest) > 1:
        raise EdgeError(
            f"it is unclear whether {', '.join(sorted(rest - {rule.violation_class}))} belongs to this rule or to {rivals[0]}",
            setting=f"{keys[name]}.compliant_classes",
            hint="name the classes of the same object without the violation, such as helmet, or [] for none",
        )
    return rest | {rule.violation_class}
