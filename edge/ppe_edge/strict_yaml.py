"""Reads YAML strictly: refuses what YAML 1.1 reads as something other than people mean, and keys that would be lost."""

from pathlib import Path
from typing import Any

import yaml

from ppe_edge.errors import EdgeError

MAX_BYTES = 1024**2  # of a file
_NOT_DECIMAL = (
    "this number is not written in decimal (YAML reads 010 as 8, 1:30 as 90, 0x10 as 16): "
    "write it in decimal, or put it in quotes"
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        EdgeError: The file is missing, too large, not YAML, or not a mapping.
    """
    if not path.is_file():
        raise EdgeError(file=path, expected="a configuration", got="a folder" if path.is_dir() else "no such file")
    if path.stat().st_size > MAX_BYTES:
        raise EdgeError(file=path, expected=f"a configuration of at most {MAX_BYTES} bytes", got=str(path.stat().st_size))
    try:
        document = yaml.load(path.read_bytes(), _StrictLoader)
    except yaml.reader.ReaderError as error:
        raise EdgeError(file=path, expected="text in UTF-8", got=f"something else at position {error.position}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise EdgeError(file=path, expected="YAML", got=f"an error{line}: {problem}") from None
    if not isinstance(document, dict) or not all(isinstance(k, str) for k in document):
        raise EdgeError(file=path, expected="keys (model, state_dir, cameras, ...)", got=kind_of(document))
    return document


def kind_of(value: Any) -> str:
    """Returns what a value is, for messages that must not show it."""
    return "nothing" if value is None else type(value).__name__


class _StrictLoader(yaml.SafeLoader):
    """Refuses keys that would be lost, and keys that YAML reads as something other than text, such as on (true) or 1.

    PyYAML keeps the last of two equal keys: the first camera of a name would disappear.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Reads a mapping, before what it merges is inserted."""
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = "<<" if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key, deep=True)
            if name is None or isinstance(name, bool | int | float):
                raise _error(_explain_key(name, key, value), key)
            if name in first:
                hint = ": merge a list instead, such as <<: [*a, *b]" if name == "<<" else ""
                raise _error(f"the key {name} occurs twice, first in line {first[name]}{hint}", key)
            first[name] = key.start_mark.line + 1
        return node

    def construct_yaml_str(self, node: Any) -> str:
        """Reads a text. JSON writes an emoji as two escapes, which PyYAML does not join."""
        try:
            return super().construct_yaml_str(node).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problem = "this text has half a character, such as \\ud83d without the second half: correct it"
            raise _error(problem, node) from None

    def construct_yaml_int(self, node: Any) -> int:
        """Reads a whole number. In YAML 1.1, 010 is 8 and 1:30 is 90; YAML 1.2 and people disagree."""
        value = int(super().construct_yaml_int(node))
        if value and node.value.replace("_", "").removeprefix("+") != str(value):  # which may be a password
            raise _error(_NOT_DECIMAL, node)
        return value

    def construct_yaml_float(self, node: Any) -> float:
        """Reads a number with a fraction. In YAML 1.1, 1:30.5 is 90.5."""
        if ":" in node.value:
            raise _error(_NOT_DECIMAL, node)
        return super().construct_yaml_float(node)

    def construct_yaml_timestamp(self, node: Any) -> Any:
        """Reads a date or a time."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            problem = "there is no such date: correct it, or put it in quotes if it is a text"  # perhaps a password
            raise _error(problem, node) from None


def _explain_key(name: bool | float | None, key: yaml.ScalarNode, value: yaml.Node) -> str:
    """Returns what is wrong with a key that YAML does not read as text, and what to do.

    Args:
        name: The key as YAML reads it.
        key: The key as it is written.
        value: Its value.
    """
    kind = "true or false" if isinstance(name, bool) else "nothing" if name is None else "a number"
    problem = f"YAML reads the name {key.value or 'before the colon'} as {kind}: put it in quotes"
    is_comma = kind == "a number" and isinstance(value, yaml.ScalarNode) and not value.value  # fps: 5,5 within { }
    return problem + (", or write a decimal number with a point" if is_comma else "")


def _error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_StrictLoader.add_constructor("tag:yaml.org,2002:str", _StrictLoader.construct_yaml_str)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_yaml_timestamp)
