"""Checks the options of `ppe-yolo ...`, `python -m ppe_yolo ...` and `python scripts/NAME.py ...` in commands of components."""

import difflib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ppe_yolo.azure.yaml.bindings import Own, resolve_command
from ppe_yolo.azure.yaml.document import Mistake
from ppe_yolo.azure.yaml.pipeline import Component
from ppe_yolo.core.errors import UserError

VALUE = "PLACEHOLDER"  # stands for each ${{...}} without a default
_OPERATOR = re.compile(r"[;&|<>()]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_WRAPPED = re.compile(r"""main\(\[((?:"[\w-]+", )+)\*sys\.argv\[1:\]\]\)""")
_FREE = "ignore_unknown_options"  # a command that parses its options itself


def check_own_commands(component: Component, commands: Any) -> list[Mistake]:
    """Checks every call of this package's commands, and the arguments of an entry script that declares them with argparse.

    Args:
        component: A component.
        commands: The command line `ppe-yolo`, a group of click or of the copy of click in typer.
    """
    mistakes = []

    def default_of(name: str) -> Any:
        port = component.inputs.get(name)
        return None if port is None else port.default

    for call in calls_of(component, default_of):
        if reason := refuse_call(call, commands):
            option = next((word for word in reason.split() if word.startswith("--")), " ".join(call[:1]))
            mistakes.append(component.document.mistake("unknown-option", reason, "command", needle=option))
    return [*mistakes, *_check_entry_script(component)]


def calls_of(component: Component, input_of: Callable[[str], Any]) -> list[list[str]]:
    """The calls of ppe-yolo in the command of a component, as the arguments of `ppe-yolo`.

    Args:
        component: A component.
        input_of: The value of an input, None if it is not known.
    """

    def value_of(own: Own) -> str:
        value = input_of(own.name) if own.side == "inputs" else None
        return VALUE if value is None else str(value)

    return list(calls(resolve_command(str(component.value.get("command", "")), value_of), component.code or Path()))


def _check_entry_script(component: Component) -> list[Mistake]:
    task = component.value.get("task")
    arguments = str(task.get("program_arguments", "")) if isinstance(task, dict) else ""
    script = (component.code or Path()) / str(task.get("entry_script")) if isinstance(task, dict) else Path()
    if not script.is_file():
        return []
    declared = re.findall(r"""add_argument\(\s*"(--[\w-]+)""", script.read_text(encoding="utf-8"))
    return [
        component.document.mistake(
            "unknown-option",
            f"{script.name}: no such option {option}: expected {', '.join(declared)}",
            *("task", "program_arguments"),
            needle=option,
        )
        for option in re.findall(r"(?<!\S)--[\w-]+", arguments)
        if declared and option not in declared
    ]


def calls(shell: str, folder: Path) -> Iterator[list[str]]:
    """The calls of ppe-yolo in a shell command, as the arguments of `ppe-yolo`.

    Args:
        shell: The command.
        folder: The folder that it runs in, with the scripts.
    """
    for words in _simple_commands(shell):
        while words and (_ASSIGNMENT.fullmatch(words[0]) or words[0] == "export"):
            words = words[1:]
        match words:
            case ["ppe-yolo", *rest]:
                yield rest
            case [python, "-m", "ppe_yolo" | "ppe_yolo.cli", *rest] if python.startswith("python"):
                yield rest
            case [python, script, *rest] if python.startswith("python") and (folder / script).is_file():
                wrapped = _WRAPPED.search((folder / script).read_text(encoding="utf-8"))
                if wrapped is not None:
                    yield [*re.findall(r'"([\w-]+)"', wrapped[1]), *rest]


def refuse_call(call: Sequence[str], commands: Any) -> str | None:
    """Why `ppe-yolo` rejects these arguments, in one line; None if it accepts their names. Values are not checked."""
    try:
        parse_call(call, commands)
    except UserError as error:
        return str(error)
    return None


def parse_call(call: Sequence[str], commands: Any) -> dict[str, Any]:
    """Parses the arguments of `ppe-yolo`.

    Returns:
        The values as text, by the name of the parameter; None or nothing for an omitted one. Empty for `fit`.

    Raises:
        UserError: There is no such command or option, or an argument is missing or too many.
    """
    command, rest, name = commands, list(call), "ppe-yolo"
    while hasattr(command, "commands"):
        word = rest.pop(0) if rest else ""
        if word not in command.commands:
            near = difflib.get_close_matches(word, command.commands, n=1)
            raise UserError(f"{name}: no such command {word}{f': did you mean {near[0]}?' if near else ''}")
        name, command = f"{name} {word}", command.commands[word]
    if command.context_settings.get(_FREE):
        if reason := _refuse_fit(rest):
            raise UserError(reason)
        return {}
    try:
        context = command.context_class(command, info_name=name, **commands.context_settings)
        values, positional, _ = command.make_parser(context).parse_args(rest)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's errors about options
            raise
        raise UserError(f"{name}: {error.format_message()}") from error
    missing = [max(p.opts, key=len) for p in command.params if p.required and values.get(p.name) in (None, (), [])]
    if missing:
        raise UserError(f"{name}: expected {', '.join(missing)}, got none")
    if positional:
        raise UserError(f"{name}: unexpected argument {positional[0]}")
    return dict(values)


def _refuse_fit(arguments: Sequence[str]) -> str | None:
    from ppe_yolo.training.arguments import underscored
    from ppe_yolo.training.fit import option_names

    known = option_names()
    for word in underscored(arguments):
        name = ".".join(word.partition("=")[0].removeprefix("--").split(".")[:2])
        if word.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            return f"ppe-yolo fit: No such option: --{name}{f' Did you mean --{near[0]}?' if near else ''}"
    return None


def _simple_commands(shell: str) -> Iterator[list[str]]:
    """The words of each command between `&&`, `||`, `|` and `;`."""
    text = re.sub(r"\$\(\([^()]*\)\)|\$\([^()]*\)", VALUE, shell.replace("\\\n", " "))
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:  # an unbalanced quote, which `bash -n` reports
            return
        command: list[str] = []
        for word in words:
            if _OPERATOR.fullmatch(word):
                yield command
                command = []
            else:
                command.append(word)
        yield command
