"""Checks of components: name, command, script, and inputs and outputs that the command does not use."""

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from ppe_yolo.azure.lint.references import check_reference
from ppe_yolo.azure.lint.settings import IDENTITY, check_settings, check_shell
from ppe_yolo.azure.yaml.assets import Asset
from ppe_yolo.azure.yaml.bindings import expressions, optional_parts, without_optional_parts
from ppe_yolo.azure.yaml.document import Keys, Mistake
from ppe_yolo.azure.yaml.pipeline import Component, ignored_names

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,254}")
_SCRIPT = re.compile(r"[\w./-]+\.py")


def check_component(component: Component, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks one component, except for its keys and the types of its inputs and outputs."""
    document, value = component.document, component.value
    mistakes = []
    name = value.get("name")
    if name is not None and not _NAME.fullmatch(str(name)):
        what = f"expected lower-case letters, digits and _, not starting with a digit, got {name!r}"
        mistakes.append(document.mistake("illegal-name", f"name: {what}", "name"))
    if value.get("type") == "parallel":
        mistakes += _check_parallel(component, assets)
    elif value.get("type") == "command":
        for key in ("command", "environment"):
            if value.get(key) is None:
                mistakes.append(document.mistake("missing-key", f"expected {key}, which a command component must have"))
        mistakes += check_reference(document, value.get("environment"), "environment", assets, "environment")
        mistakes += _check_code(component, ("code",), _scripts(str(value.get("command", ""))), ("command",))
        mistakes += _check_modules(component)
        mistakes += check_shell(document, str(value.get("command", "")), "command")
        mistakes += _check_expressions(component, {("command",): str(value.get("command", ""))})
        # what the identity can read may change between runs
        if IDENTITY in str(value.get("command")) and value.get("is_deterministic", True) is True:
            what = f"is_deterministic: expected false, since the command uses {IDENTITY}"
            what += ": otherwise Azure ML would reuse the outputs of an earlier run"
            mistakes.append(document.mistake("wrong-value", what, "is_deterministic"))
    elif value.get("type") is not None:
        mistakes.append(document.mistake("unknown-type", f"type: expected command or parallel, got {value['type']!r}", "type"))
    mistakes += check_settings(document, value, ())
    return mistakes


def _check_parallel(component: Component, assets: Sequence[Asset]) -> list[Mistake]:
    document, value = component.document, component.value
    mistakes = []
    task = value.get("task")
    if not isinstance(task, Mapping):
        return [document.mistake("missing-key", "expected task, which a parallel component must have")]
    for keys in (("input_data",), ("mini_batch_size",), ("task", "entry_script"), ("task", "append_row_to")):
        holder: Any = value if len(keys) == 1 else task
        if holder.get(keys[-1]) is None:
            what = f"expected {'.'.join(keys)}, which a parallel component must have"
            mistakes.append(document.mistake("missing-key", what, *keys[:-1]))
    mistakes += check_reference(document, task.get("environment"), "environment", assets, "task", "environment")
    script = task.get("entry_script")
    mistakes += _check_code(component, ("task", "code"), [str(script)] if script else [], ("task", "entry_script"))
    texts: dict[Keys, str] = {
        ("input_data",): str(value.get("input_data", "")),
        ("task", "program_arguments"): str(task.get("program_arguments", "")),
        ("task", "append_row_to"): str(task.get("append_row_to", "")),
    }
    return mistakes + _check_expressions(component, texts)


def _check_expressions(component: Component, texts: Mapping[Keys, str]) -> list[Mistake]:
    """Finds invalid expressions, and inputs and outputs that no expression uses."""
    document, mistakes, used = component.document, [], set()
    for keys, text in texts.items():
        for written, own in expressions(text):
            ports = {"inputs": component.inputs, "outputs": component.outputs}[own.side] if own else {}
            if own is None:
                what = f"expected ${{{{inputs.NAME}}}} or ${{{{outputs.NAME}}}}, got {written}"
                mistakes.append(document.mistake("unknown-binding", what, *keys, needle=written))
            elif own.name not in ports:
                known = ", ".join(ports) or "none"
                what = f"{written}: no such {own.side[:-1]} is declared; declared: {known}"
                mistakes.append(document.mistake("undeclared-in-command", what, *keys, needle=written))
            used.add(own)
        for written in _optional_inputs(component, without_optional_parts(text)):
            what = f"{written} is optional: put the part of the command that needs it into $[[ ]]"
            mistakes.append(document.mistake("optional-not-bracketed", what, *keys, needle=written))
        for part in optional_parts(text):
            if not _optional_inputs(component, part):
                what = f"$[[{part}]]: expected an optional input in it, got none"
                mistakes.append(document.mistake("optional-not-bracketed", what, *keys, needle=f"$[[{part}"))
    for side, ports in (("inputs", component.inputs), ("outputs", component.outputs)):
        names = {own.name for own in used if own and own.side == side}
        for name in ports.keys() - names:
            what = f"{side[:-1]} {name} is declared, but the command does not use it"
            mistakes.append(document.mistake("unused-port", what, side, name))
    return mistakes


def _optional_inputs(component: Component, text: str) -> list[str]:
    """The expressions in a text, as written, that stand for optional inputs."""
    optional = {name for name, port in component.inputs.items() if port.optional}
    return [written for written, own in expressions(text) if own and own.side == "inputs" and own.name in optional]


def _check_code(component: Component, code_keys: Keys, scripts: list[str], keys: Keys) -> list[Mistake]:
    document, code = component.document, component.code
    if code is None:
        return [document.mistake("missing-script", f"{s}: the component has no code folder", *keys) for s in scripts]
    if not code.is_dir():
        return [document.mistake("missing-code", f"code: no such folder {code}", *code_keys)]
    ignored = ignored_names(code)
    for script in scripts:
        if Path(script).parts[0] in ignored:
            what = f"{script}: .amlignore excludes {Path(script).parts[0]}, so Azure ML does not upload it"
            return [document.mistake("missing-script", what, *keys, needle=script)]
    return [
        document.mistake("missing-script", f"{script}: no such file in the code folder {code}", *keys, needle=script)
        for script in dict.fromkeys(scripts)
        if not (code / script).is_file()
    ]


def _check_modules(component: Component) -> list[Mistake]:
    """Checks that `python -m ppe_yolo...` names a module."""
    command = str(component.value.get("command", ""))
    hint = "correct the name, or install the package version that has it"
    return [
        component.document.mistake("missing-script", f"python -m {name}: no such module: {hint}", "command", needle=name)
        for name in re.findall(r"\bpython3? -m (ppe_yolo[\w.]*)", command)
        if find_spec(name) is None
    ]


def _scripts(command: str) -> list[str]:
    """Python files that a command runs."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unbalanced quote
        words = command.split()
    return [
        word
        for before, word in pairwise(words)
        if before.startswith("python") and _SCRIPT.fullmatch(word) and not Path(word).is_absolute()
    ]
