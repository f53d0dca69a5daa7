"""Checks of single values that Azure accepts in a file and rejects, or misreads, when it runs it."""

import difflib
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ppe_yolo.azure.yaml.bindings import resolve_command
from ppe_yolo.azure.yaml.document import Document, Keys, Mistake

IDENTITY = "DEFAULT_IDENTITY_CLIENT_ID"  # of the cluster; Azure sets it for jobs with a managed identity
# https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu, and variables that jobs are known to have
_VARIABLES = frozenset(
    (
        *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "RANK", "LOCAL_RANK"),
        *(IDENTITY, "AZURE_CLIENT_ID"),
        *(f"AZUREML_ARM_{name}" for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME", "PROJECT_NAME")),
        *(f"AZUREML_{name}" for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME", "WORKSPACE_ID")),
        *(f"AZUREML_{name}" for name in ("EXPERIMENT_ID", "RUN_ID", "ROOT_RUN_ID", "NODE_COUNT", "DATASTORE_NAME")),
    )
)
ASSET_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")


def check_asset_name(document: Document) -> list[Mistake]:
    """Checks the name of an environment, a data asset or a schedule; Azure allows no dots in it."""
    name = document.value.get("name")
    if name is None or ASSET_NAME.fullmatch(str(name)):
        return []
    return [document.mistake("illegal-name", f"name: expected letters, digits, - and _, got {name!r}", "name")]


def check_shell(document: Document, command: str, *keys: str) -> list[Mistake]:
    """Checks a command with `bash -n`, and the names of Azure's variables in it."""
    mistakes = []
    for name in set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", command)) - _own_variables(document, command):
        near = difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0.9)
        if near and name not in _VARIABLES:  # others may exist, so only misspellings are reported
            what = f"{name}: Azure ML sets no such variable: did you mean {near[0]}?"
            mistakes.append(document.mistake("unknown-variable", what, *keys, needle=name))
    if reason := _refuse_shell(resolve_command(command, lambda own: "x")):
        mistakes.append(document.mistake("invalid-command", f"{'.'.join(keys)}: bash: {reason}", *keys))
    return mistakes


def _own_variables(document: Document, command: str) -> set[str]:
    """The variables that a command and its component set: by X=, `for X in`, `read X` and `environment_variables`."""
    given = document.value.get("environment_variables")
    return {
        *re.findall(r"\b(\w+)=", command),
        *re.findall(r"\bfor\s+(\w+)\s+in\b", command),
        *(word for words in re.findall(r"\bread\s([^;&|<>\n]*)", command) for word in words.split()),
        *(given if isinstance(given, Mapping) else ()),
    }


@cache  # schedules check the components of their pipelines again
def _refuse_shell(command: str) -> str | None:
    if shutil.which("bash") is None:
        return None
    result = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    return result.stderr.strip().splitlines()[0].removeprefix("bash: -c: ") if result.returncode else None


@dataclass(frozen=True)
class _Setting:
    """What a setting may be, in a component, a job or a pipeline.

    Attributes:
        is_valid: Whether a value is allowed.
        expected: What is allowed, in words.
        kind: Kind of the mistake if the value is not allowed.
    """

    is_valid: Callable[[Any], bool]
    expected: str
    kind: str = "wrong-value"


def check_settings(document: Document, value: Mapping[str, Any], keys: Keys) -> list[Mistake]:
    """Checks the settings that have the same form in a component, a job, a pipeline and an asset.

    Args:
        document: The file.
        value: The mapping that holds the settings.
        keys: The path of keys to it.
    """
    mistakes = []
    for path, setting in _SETTINGS.items():
        given: Any = value
        for key in path:
            given = given.get(key) if isinstance(given, Mapping) else None
        if given is not None and not setting.is_valid(given):
            what = f"{'.'.join(path)}: expected {setting.expected}, got {given!r}"
            mistakes.append(document.mistake(setting.kind, what, *keys, *path))
    distribution = value.get("distribution")
    if isinstance(distribution, Mapping) and distribution.get("type") is None:
        what = "distribution: expected type, which a distribution must have"
        mistakes.append(document.mistake("missing-key", what, *keys, "distribution"))
    for side in ("inputs", "outputs"):
        ports = value.get(side)
        for name, given in ports.items() if isinstance(ports, Mapping) else ():
            mode = given.get("mode") if isinstance(given, Mapping) else None
            if mode is not None and mode not in _MODES[side]:
                what = f"{side[:-1]} {name}: expected one of the modes {', '.join(_MODES[side])}, got {mode!r}"
                mistakes.append(document.mistake("unknown-mode", what, *keys, side, name, "mode"))
    return mistakes


def _is_whole(value: Any, least: int, most: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most)


def _seconds(most: int) -> _Setting:
    return _Setting(lambda v: _is_whole(v, 1, most), f"seconds from 1 to {most}")


def _count(least: int) -> _Setting:
    return _Setting(lambda v: _is_whole(v, least), f"a whole number of {least} or more", "wrong-count")


def _one_of(*words: str, kind: str = "wrong-value") -> _Setting:
    return _Setting(lambda v: str(v).lower() in words, f"one of {', '.join(words)}", kind)


def _matching(pattern: str, expected: str) -> _Setting:
    return _Setting(lambda v: re.fullmatch(pattern, str(v), re.IGNORECASE) is not None, expected)


_BOOLEAN = _Setting(lambda v: isinstance(v, bool), "true or false")
_FAILURES = _Setting(lambda v: _is_whole(v, -1), "-1 (any number) or more")
_SETTINGS: Mapping[tuple[str, ...], _Setting] = {
    ("distribution", "type"): _one_of("pytorch", "mpi", "tensorflow", "ray", kind="unknown-distribution"),
    ("distribution", "process_count_per_instance"): _count(1),
    ("resources", "instance_count"): _count(1),
    ("resources", "shm_size"): _matching(r"\d+(\.\d+)?[bkmg]", "a number with b, k, m or g, such as 8g"),
    ("retry_settings", "max_retries"): _count(0),
    ("retry_settings", "timeout"): _seconds(259_200),
    ("limits", "timeout"): _seconds(2_592_000),
    ("task", "type"): _one_of("run_function", kind="unknown-type"),
    ("is_deterministic",): _BOOLEAN,
    ("settings", "continue_on_step_failure"): _BOOLEAN,
    ("settings", "force_rerun"): _BOOLEAN,
    ("settings", "default_datastore"): _matching(
        r"(azureml:)?[a-z0-9_]{1,255}", "azureml: and a name of letters, digits and _"
    ),
    ("identity", "type"): _one_of("managed", "managed_identity", "user_identity", "aml_token"),
    ("logging_level",): _one_of("info", "warning", "debug"),
    ("max_concurrency_per_instance",): _count(1),
    ("mini_batch_error_threshold",): _FAILURES,
    ("error_threshold",): _FAILURES,
    ("mini_batch_size",): _matching(r"[1-9]\d*(kb|mb|gb)?", "a number of files, or a size such as 10mb"),
    ("version",): _matching(r"[a-z0-9._-]{1,255}", "letters, digits, dots, - and _"),
    ("image",): _matching(r"\S+", "the name of an image without spaces"),
}
_MODES = {
    "inputs": ("ro_mount", "download", "direct", "eval_mount", "eval_download"),
    "outputs": ("rw_mount", "upload", "direct"),
}
