"""`${{ ... }}` expressions, which stand for values that another part of a pipeline provides."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_NAME = r"([A-Za-z_][A-Za-z0-9_]*)"
_PARENT_INPUT = re.compile(rf"parent\.inputs\.{_NAME}")
_PARENT_OUTPUT = re.compile(rf"parent\.outputs\.{_NAME}")
_JOB_OUTPUT = re.compile(rf"parent\.jobs\.{_NAME}\.outputs\.{_NAME}")
_OWN = re.compile(rf"(inputs|outputs)\.{_NAME}(?:\.path)?")


@dataclass(frozen=True)
class ParentInput:
    """An input of the pipeline."""

    name: str


@dataclass(frozen=True)
class ParentOutput:
    """An output of the pipeline."""

    name: str


@dataclass(frozen=True)
class JobOutput:
    """An output of another job of the pipeline."""

    job: str
    name: str


@dataclass(frozen=True)
class Own:
    """An input or output of the component itself, as used in its command."""

    side: str  # inputs or outputs
    name: str


Binding = ParentInput | ParentOutput | JobOutput


def is_expression(value: Any) -> TypeGuard[str]:
    """Whether a value of a job contains an expression, valid or not."""
    return isinstance(value, str) and "${{" in value


def parse_binding(value: str) -> Binding | None:
    """What a value of a job is bound to; None if it is not a valid binding."""
    whole = _EXPRESSION.fullmatch(value.strip())
    if whole is None:
        return None
    if match := _PARENT_INPUT.fullmatch(whole[1]):
        return ParentInput(match[1])
    if match := _PARENT_OUTPUT.fullmatch(whole[1]):
        return ParentOutput(match[1])
    if match := _JOB_OUTPUT.fullmatch(whole[1]):
        return JobOutput(match[1], match[2])
    return None


def expressions(text: str) -> list[tuple[str, Own | None]]:
    """Every `${{ ... }}` of a command as written, with what it stands for; None if it is not valid."""
    found: list[tuple[str, Own | None]] = []
    for match in _EXPRESSION.finditer(text):
        own = _OWN.fullmatch(match[1])
        found.append((match[0], Own(own[1], own[2]) if own else None))
    rest = _EXPRESSION.sub("", text)
    return found + [(piece, None) for piece in re.findall(r"\$\{\{\S*", rest)]  # never closed


def optional_parts(text: str) -> list[str]:
    """The contents of each `$[[ ... ]]`, which Azure leaves out of the command if an input in it is not given."""
    return _OPTIONAL.findall(text)


def without_optional_parts(text: str) -> str:
    """The command with every `$[[ ... ]]` removed."""
    return _OPTIONAL.sub("", text)


def resolve_command(command: str, value_of: Callable[[Own], str | None]) -> str:
    """Replaces every expression by its value and drops each `$[[ ... ]]` that has an input without a value."""

    def part(match: re.Match[str]) -> str:
        given = [value_of(own) for _, own in expressions(match[1]) if own is not None]
        return match[1] if all(value is not None for value in given) else ""

    def value(match: re.Match[str]) -> str:
        own = _OWN.fullmatch(match[1])
        found = None if own is None else value_of(Own(own[1], own[2]))
        return match[0] if found is None else found

    return _EXPRESSION.sub(value, _OPTIONAL.sub(part, command))
