"""Checks of the version of Python and of the pip section of an environment's conda file."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata

from ppe_yolo.azure.yaml.document import Document, Mistake

_PIP_OPTIONS = (
    *("--extra-index-url", "--find-links", "-f", "--no-index", "--no-binary", "--only-binary", "--prefer-binary", "--pre"),
    *("--require-hashes", "--trusted-host", "--requirement", "-r", "--constraint", "-c", "--editable", "-e"),
)


def check_requirements(conda: Document) -> list[Mistake]:
    """Checks the version of Python and the pip section of an environment's conda file."""
    mistakes = []
    dependencies = conda.value["dependencies"]
    for number, entry in enumerate(dependencies):
        if isinstance(entry, str) and (reason := _refuse_python(entry)):
            mistakes.append(conda.mistake("invalid-requirement", reason, "dependencies", number))
        if not isinstance(entry, Mapping):
            continue
        if not any(isinstance(d, str) and re.match(r"pip\b", d) for d in dependencies):
            mistakes.append(
                conda.mistake("missing-pip", "dependencies: expected pip in addition to its section", "dependencies", number)
            )
        names: set[str] = set()
        for position, line in enumerate(entry.get("pip") or ()):
            if reason := _refuse_requirement(str(line), names):
                what = f"pip: {reason}"
                mistakes.append(conda.mistake("invalid-requirement", what, "dependencies", number, "pip", position))
    return mistakes


def _refuse_python(entry: str) -> str | None:
    """Why ppe-yolo does not run in this version of Python; None if the entry is not Python, or the version is allowed."""
    match = re.fullmatch(r"python\s*==?\s*(\d+\.\d+)(\.\d+|\.\*)?", entry)
    if match is None:
        return None
    try:
        from packaging.specifiers import SpecifierSet

        required = metadata("ppe-yolo")["Requires-Python"]
    except (ImportError, PackageNotFoundError):
        return None
    return None if SpecifierSet(required).contains(match[1]) else f"python: ppe-yolo requires {required}, got {match[1]}"


def _refuse_requirement(line: str, names: set[str]) -> str | None:
    """Why pip rejects a line, or why it makes the section ambiguous; adds the name of the package to `names`."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name
    except ImportError:  # not a declared dependency
        return None
    if line.startswith("-"):
        option = re.split(r"[ =]", line, maxsplit=1)[0]
        if option in ("-i", "--index-url"):
            return f"{option} hides PyPI from every other line: use --extra-index-url"
        return None if option in _PIP_OPTIONS else f"expected an option of a requirements file, got {option}"
    if line.startswith((".", "/")) or "://" in line:
        return None
    try:
        name = canonicalize_name(Requirement(line).name)
    except InvalidRequirement as error:
        return f"expected a requirement, got {line!r} ({str(error).splitlines()[0]})"
    if name in names:
        return f"{name} is listed twice"
    names.add(name)
    return None
