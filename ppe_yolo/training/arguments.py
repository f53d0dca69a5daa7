"""Arguments of `ppe-yolo fit` before they are parsed: recipes by name, and dashes in option names."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ppe_yolo.core.errors import UserError

_RECIPES = resources.files("ppe_yolo") / "configs"
_OPTION = re.compile(r"--[a-z][\w./-]*")
_MAPPING = "--data.extra_roots."  # the user's own names follow: --data.extra_roots.my-folder CLASSMAP


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in _RECIPES.iterdir() if p.name.endswith(".yaml"))


def underscored(arguments: Sequence[str]) -> list[str]:
    """Option names with underscores, as the parser knows them: `--run-dir` -> `--run_dir`. Values do not change."""
    normalised = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if _OPTION.fullmatch(name):
            own = len(_MAPPING) if name.replace("-", "_")[2:].startswith(_MAPPING[2:]) else len(name)
            name = "--" + name[2:own].replace("-", "_") + name[own:]
        normalised.append(f"{name}{equals}{value}")
    return normalised


def expand_recipes(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Replaces `--config NAME` by the path of the bundled recipe.

    Returns:
        The arguments, and the recipe's name (for the run folder).

    Raises:
        UserError: Neither a recipe nor a file.
    """
    expanded, recipe = list(arguments), "run"
    for i, argument in enumerate(arguments):
        if argument in ("--config", "-c") and i + 1 < len(arguments):
            expanded[i + 1] = _recipe_path(arguments[i + 1])
            recipe = Path(arguments[i + 1]).stem
        elif argument.startswith("--config="):
            value = argument.removeprefix("--config=")
            expanded[i] = f"--config={_recipe_path(value)}"
            recipe = Path(value).stem
    return expanded, recipe


def _recipe_path(name_or_file: str) -> str:
    if name_or_file in recipe_names():
        return str(_RECIPES / f"{name_or_file}.yaml")
    if not Path(name_or_file).is_file():
        expected = f"a recipe ({', '.join(recipe_names())}) or a YAML file"
        raise UserError(setting="config", expected=expected, got=repr(name_or_file))
    return name_or_file
