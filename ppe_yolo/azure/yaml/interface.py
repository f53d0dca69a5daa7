"""Inputs and outputs of components and pipelines: their types and the values they accept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ppe_yolo.azure.yaml.document import Document, Keys, Mistake

PATH_TYPES = ("uri_file", "uri_folder", "mltable", "mlflow_model", "triton_model", "custom_model")
LITERAL_TYPES = ("string", "integer", "number", "boolean")


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output.

    Attributes:
        name: Its name.
        type: One of PATH_TYPES or LITERAL_TYPES.
        optional: Whether it may be omitted.
        default: Value if none is given; None if there is no default.
        minimum: Smallest number allowed, or None.
        maximum: Largest number allowed, or None.
        enum: Allowed values; empty if all are allowed.
        mode: How Azure makes the data available on the node, or None.
    """

    name: str
    type: str
    optional: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[Any, ...] = ()
    mode: str | None = None

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return not self.optional and self.default is None

    @property
    def is_path(self) -> bool:
        """Whether it is a file or folder."""
        return self.type in PATH_TYPES

    def refusal(self, value: Any) -> str | None:
        """Why it does not accept a literal value; None if it does."""
        if self.is_path:
            return f"expected {self.type}, got the value {value!r}"
        if not fits(self.type, value):
            return f"expected {self.type}, got {value!r} ({_name_of_type(value)})"
        if self.enum and value not in self.enum:
            return f"expected one of {', '.join(map(str, self.enum))}, got {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"expected {self.minimum:g} or more, got {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"expected at most {self.maximum:g}, got {value!r}"
        return None

    def takes(self, given: str) -> bool:
        """Whether a value of the type `given` may be bound to it."""
        return given == self.type or (self.type, given) == ("number", "integer")


def fits(kind: str, value: Any) -> bool:
    """Whether a literal has a type. `yes` and `on` are booleans in YAML, not strings."""
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, int | float)
    return isinstance(value, str)


def literal_type(value: Any) -> str:
    """The type of a pipeline input that is written as a bare value."""
    return next((kind for kind in ("boolean", "integer", "number") if fits(kind, value)), "string")


def read_ports(document: Document, side: str, mistakes: list[Mistake], *keys: str | int) -> dict[str, Port]:
    """Reads `inputs` or `outputs`. Invalid ones are reported and left out.

    Args:
        document: A component or pipeline.
        side: `inputs` or `outputs`.
        mistakes: List that receives the mistakes.
        keys: Path of keys to the mapping that holds them.
    """
    holder = document.value
    for key in keys:
        holder = holder[key]
    declared = holder.get(side) or {}
    if not isinstance(declared, Mapping):
        mistakes.append(document.mistake("wrong-shape", f"{side}: expected names with their types", *keys, side))
        return {}
    ports = {}
    for name, given in declared.items():
        if (port := _read_port(document, side, str(name), given, mistakes, keys)) is not None:
            ports[port.name] = port
    return ports


def _read_port(document: Document, side: str, name: str, given: Any, mistakes: list[Mistake], keys: Keys) -> Port | None:
    path = (*keys, side, name)
    if not isinstance(given, Mapping):
        if side == "inputs" and isinstance(given, str | int | float | bool):
            return Port(name=name, type=literal_type(given), default=given)
        if side == "outputs" and given is None:
            return Port(name=name, type="uri_folder")
        mistakes.append(document.mistake("wrong-shape", f"{side[:-1]} {name}: expected a type, got {given!r}", *path))
        return None
    # Azure's default: an input with a path and no type is a folder
    kind = given.get("type", "uri_folder" if "path" in given or side == "outputs" else None)
    known = PATH_TYPES + LITERAL_TYPES if side == "inputs" else PATH_TYPES
    if kind not in known:
        what = f"{side[:-1]} {name}: type: expected one of {', '.join(known)}, got {kind!r}"
        mistakes.append(document.mistake("unknown-type", what, *path, "type"))
        return None
    port = Port(
        name=name,
        type=kind,
        optional=bool(given.get("optional", False)),
        default=given.get("default"),
        minimum=given.get("min"),
        maximum=given.get("max"),
        enum=tuple(given.get("enum") or ()),
        mode=given.get("mode"),
    )
    if port.default is not None and (reason := port.refusal(port.default)):
        mistakes.append(document.mistake("wrong-default", f"default of {name}: {reason}", *path, "default"))
    return port


def _name_of_type(value: Any) -> str:
    return {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )
