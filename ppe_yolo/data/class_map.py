"""Class maps: which names in a data set become which classes of the model. A class map belongs to the data set."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.sources.text import read_text

DEFAULT = "default"
_PACKAGED = resources.files("ppe_yolo.data") / "class_maps"
_REQUIRED, _OPTIONAL = {"class_names", "map"}, {"ignore", "display_names"}


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The meaning of each name in a data set.

    Attributes:
        name: Name of the packaged class map, or path of the file.
        class_names: Classes of the model, in the order of their labels.
        mapping: Name in the data set -> class.
        ignored: Names whose objects are left out.
        display_names: Class -> name that people read, such as `none` -> bare head. A class without one is shown by its name.
    """

    name: str
    class_names: tuple[str, ...]
    mapping: Mapping[str, str]
    ignored: frozenset[str] = frozenset()
    display_names: Mapping[str, str] = field(default_factory=dict)

    def knows(self, raw_name: str) -> bool:
        """Whether the class map mentions a name."""
        return raw_name in self.mapping or raw_name in self.ignored

    def apply(self, objects: Iterable[AnnotatedObject]) -> tuple[AnnotatedObject, ...]:
        """The objects with the classes of the model, without ignored ones. The class map must know all of their names."""
        renamed = ((o, self.mapping[o.class_name]) for o in objects if o.class_name not in self.ignored)
        return tuple([o if o.class_name == name else AnnotatedObject(name, o.box_xyxy, o.difficult) for o, name in renamed])

    def explain_unknown(self, raw_name: str) -> str:
        """The message about a name that the class map does not mention."""
        known = sorted({*self.mapping, *self.ignored})
        near = difflib.get_close_matches(raw_name.strip().lower(), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"class map {self.name} does not mention the name {raw_name!r} (it knows {', '.join(known)}){hint}"

    def check(self, counts: Mapping[str, int], root: str | Path) -> None:
        """Rejects a data set with names that the class map does not mention.

        Args:
            counts: Name in the data set -> number of objects.
            root: The data set, for the message.

        Raises:
            UserError: There are such names. Lists all names of the data set with their counts.
        """
        unknown = [name for name in counts if not self.knows(name)]
        if unknown:
            names = ", ".join(f"{name!r} {count}" for name, count in Counter(counts).most_common())
            raise UserError(
                f"{'; '.join(self.explain_unknown(name) for name in unknown)} (names in the data, with counts: {names})",
                setting="class_map",
                file=root,
                hint=f"choose another class map ({', '.join(bundled_names())}), or write your own YAML file",
            )

    def require_classes(self, class_names: Sequence[str], model: str | Path) -> Self:
        """Rejects a class map for other classes than those of a model.

        Returns:
            The class map.

        Raises:
            UserError: The classes or their order differ.
        """
        if self.class_names != tuple(class_names):
            raise UserError(
                setting="class_map",
                file=self.name,
                expected=f"the classes of the model {model} ({', '.join(class_names)})",
                got=", ".join(self.class_names),
                hint="choose another class map",
            )
        return self


def bundled_names() -> list[str]:
    """Names of the bundled class maps."""
    return sorted(p.name.removesuffix(".yaml") for p in _PACKAGED.iterdir() if p.name.endswith(".yaml"))


def load_class_map(name_or_file: str | Path | None = None) -> ClassMap:
    """Loads a bundled class map by its name, or a YAML file.

    The keys of a file are `class_names`, `map`, and optionally `ignore` and `display_names`.

    Args:
        name_or_file: Name or path; None for `default`.

    Raises:
        UserError: Neither a known name nor a file, or the content of the file is not valid.
    """
    name = str(name_or_file or DEFAULT)
    try:
        if name in bundled_names():
            text = (_PACKAGED / f"{name}.yaml").read_text(encoding="utf-8")
        elif Path(name).is_file():
            text = read_text(Path(name))
        else:
            raise UserError(
                setting="class_map",
                expected=f"one of {', '.join(bundled_names())}, or a YAML file",
                got=f"{name!r} ({'a folder' if Path(name).is_dir() else 'no such file'})",
            )
        values = yaml.load(text, _UniqueKeys)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read as YAML ({' '.join(str(error).split())})", setting="class_map", file=name) from error
    return _parse(name, values)


def _parse(name: str, values: object) -> ClassMap:
    def error(problem: str | None = None, **fields: str) -> UserError:
        return UserError(problem, setting="class_map", file=name, **fields)

    if not isinstance(values, dict) or not _REQUIRED <= set(values) <= _REQUIRED | _OPTIONAL:
        raise error(expected="the keys class_names and map, and optionally ignore and display_names", got=_keys(values))
    names, mapping = values["class_names"], values["map"]
    ignored, display_names = values.get("ignore") or [], values.get("display_names") or {}
    lists, mappings = (names, ignored), (mapping, display_names)
    if not all(isinstance(v, list) for v in lists) or not all(isinstance(v, dict) for v in mappings):
        raise error("class_names and ignore must be lists; map and display_names must be mappings")
    for value in (*names, *mapping, *mapping.values(), *ignored, *display_names, *display_names.values()):
        if not isinstance(value, str) or not value:
            raise error(expected="names as text", got=repr(value), hint="put it in quotes")
    if not names or len(set(names)) != len(names):
        raise error(item="class_names", expected="at least one name, and no name twice", got=repr(names))
    for raw, target in mapping.items():
        if target not in names:
            raise error(item="map", expected=f"{raw!r} mapped to one of class_names {names!r}", got=repr(target))
    both = set(mapping) & set(ignored)
    if both:
        raise error(f"{sorted(both)!r} cannot be both mapped and ignored")
    for class_name in display_names:
        if class_name not in names:
            raise error(item="display_names", expected=f"only names of class_names {names!r}", got=repr(class_name))
    shown = [display_names.get(class_name, class_name) for class_name in names]
    if len(set(shown)) != len(shown):
        raise error(item="display_names", expected="a different name for each class", got=repr(shown))
    return ClassMap(
        name=name,
        class_names=tuple(names),
        mapping=dict(mapping),
        ignored=frozenset(ignored),
        display_names=dict(display_names),
    )


class _UniqueKeys(yaml.SafeLoader):
    """Rejects duplicate keys; YAML itself silently takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        duplicates = [key for key, count in Counter(keys).items() if count > 1]
        if duplicates:
            raise yaml.YAMLError(f"duplicate keys {duplicates!r}")
        return super().construct_mapping(node, deep)


def _keys(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
