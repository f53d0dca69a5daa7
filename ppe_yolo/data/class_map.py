"""Class maps: which names of a data set become which classes of the model. They belong to the data set, and are data."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage

DEFAULT = "default"
_PACKAGED = resources.files("ppe_yolo.data") / "class_maps"


@dataclass(frozen=True)
class ClassMap:
    """What each name of a data set means.

    Attributes:
        name: Name of the packaged map, or the file.
        class_names: The model's classes, in the order of their labels.
        mapping: Name in the data set -> class.
        ignored: Names whose objects are left out.
    """

    name: str
    class_names: tuple[str, ...]
    mapping: Mapping[str, str]
    ignored: frozenset[str]

    def knows(self, raw_name: str) -> bool:
        """Whether the map says what becomes of this name."""
        return raw_name in self.mapping or raw_name in self.ignored

    def apply(self, image: AnnotatedImage) -> AnnotatedImage:
        """The photo with the model's class names, ignored objects left out. All its names must be known."""
        kept = (o for o in image.objects if o.class_name not in self.ignored)
        return replace(image, objects=tuple(replace(o, class_name=self.mapping[o.class_name]) for o in kept))

    def explain_unknown(self, raw_name: str) -> str:
        """What to tell about a name that the map does not mention."""
        known = sorted({*self.mapping, *self.ignored})
        near = difflib.get_close_matches(raw_name.strip().lower(), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"class map {self.name} does not mention the name {raw_name!r} (it knows {', '.join(known)}){hint}"

    def check(self, counts: Counter[str], where: object, flag: str = "--class-map") -> None:
        """Refuses a data set with names that the map does not mention.

        Args:
            counts: How often each name was found.
            where: The data set, for the message.
            flag: What chooses a class map in the user's command, for the message.

        Raises:
            UserError: Lists all names found, with their counts.
        """
        unknown = [name for name in counts if not self.knows(name)]
        if unknown:
            found = ", ".join(f"{name!r} {count}" for name, count in counts.most_common())
            raise UserError(
                f"{where}: {'; '.join(self.explain_unknown(n) for n in unknown)}. Names found, with counts: {found}. "
                f"Choose another with {flag} ({', '.join(packaged_names())}) or write your own YAML"
            )

    def require_classes_of(self, class_names: Sequence[str], model: str | Path) -> None:
        """Refuses a class map that makes other classes than a model finds.

        Raises:
            UserError: Names both.
        """
        if self.class_names != tuple(class_names):
            raise UserError(
                f"{model}: the model finds {', '.join(class_names)}, the class map {self.name} makes "
                f"{', '.join(self.class_names)}: choose the class map with --class-map"
            )


def packaged_names() -> list[str]:
    """Names of the class maps that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _PACKAGED.iterdir() if p.name.endswith(".yaml"))


def load_class_map(name_or_file: str | Path | None = None) -> ClassMap:
    """A packaged class map by its name, or the user's own YAML with class_names, map and ignore.

    Raises:
        UserError: Neither a known name nor a file, or a file that contradicts itself.
    """
    name = str(name_or_file or DEFAULT)
    packaged = _PACKAGED / f"{name}.yaml"
    try:
        if name in packaged_names():
            text = packaged.read_text(encoding="utf-8")
        elif Path(name).is_file():
            text = Path(name).read_text(encoding="utf-8")
        else:
            raise UserError(
                f"class map: expected one of {', '.join(packaged_names())} or a YAML file, got {name!r} (no such file)"
            )
        values = yaml.load(text, _UniqueKeys)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"class map {name}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict) or not {"class_names", "map"} <= set(values) <= {"class_names", "map", "ignore"}:
        raise UserError(f"class map {name}: expected the keys class_names, map and perhaps ignore, got {_keys(values)}")
    names, mapping, ignored = values["class_names"], values["map"], values.get("ignore") or []
    if not isinstance(names, list) or not isinstance(mapping, dict) or not isinstance(ignored, list):
        raise UserError(f"class map {name}: class_names and ignore must be lists, map must be name: class")
    for value in (*names, *mapping, *mapping.values(), *ignored):
        if not isinstance(value, str) or not value:
            raise UserError(f"class map {name}: expected names in text, got {value!r}: put it in quotes")
    if not names or len(set(names)) != len(names):
        raise UserError(f"class map {name}: class_names must be different names, at least one, got {names!r}")
    for raw, target in mapping.items():
        if target not in names:
            raise UserError(f"class map {name}: {raw!r} is mapped to {target!r}, which is none of class_names {names!r}")
    both = set(mapping) & set(ignored)
    if both:
        raise UserError(f"class map {name}: {sorted(both)!r} cannot be both mapped and ignored")
    return ClassMap(name, tuple(names), dict(mapping), frozenset(ignored))


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice; YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"{twice!r} is given more than once")
        return super().construct_mapping(node, deep)


def _keys(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
