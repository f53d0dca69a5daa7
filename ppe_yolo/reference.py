"""`python -m ppe_yolo.reference > ppe_yolo/REFERENCE.md`: all commands and their options, as Markdown.

They are read from the command line itself, so that the document cannot name one that does not exist.
"""

from collections.abc import Iterator

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from ppe_yolo.cli import app

_HEAD = """# Reference of the commands

Written by `python -m ppe_yolo.reference`; do not edit it. [GUIDE.md](GUIDE.md) explains how to use the commands.
`ppe-yolo COMMAND --help` prints the same for the installed version, `ppe-yolo fit --help` all options of a training.

A mistake of the user ends a command with one line and exit code 2.
"""


def reference() -> str:
    """Returns the document."""
    commands = _commands(typer.main.get_command(app), "ppe-yolo")
    return "\n".join([_HEAD, *(line for name, command in commands for line in _section(name, command))])


def _commands(command: object, name: str) -> Iterator[tuple[str, TyperCommand]]:
    """Yields the name and the command of each command that is no group."""
    if isinstance(command, TyperGroup):
        for key, below in sorted(command.commands.items()):
            yield from _commands(below, f"{name} {key}")
    elif isinstance(command, TyperCommand):
        yield name, command


def _section(name: str, command: TyperCommand) -> Iterator[str]:
    arguments = [p for p in command.params if isinstance(p, TyperArgument)]
    options = [p for p in command.params if isinstance(p, TyperOption) and not p.hidden]
    yield from (f"## `{' '.join([name, *(p.metavar or str(p.name).upper() for p in arguments)])}`", "")
    yield from (" ".join((command.help or "").split()), "")
    if options:
        yield from ("| option | default | meaning |", "|---|---|---|", *map(_row, options), "")


def _row(option: TyperOption) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    values = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    value = option.default
    if isinstance(value, bool):  # without a name for false there is no choice to show
        value = (option.opts if value else option.secondary_opts)[0] if option.secondary_opts else None
    default = "required" if option.required else f"`{value}`" if value not in (None, ()) else "-"
    cells = (names + values, default, " ".join((option.help or "").split()))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    print(reference())
