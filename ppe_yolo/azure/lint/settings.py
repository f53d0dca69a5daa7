"""Checks of single values that Azure accepts in a file and rejects, or misreads, when it runs it."""

import difflib
import re
import shutil
import subprocess
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from ppe_yolo.azure.lint.vm_sizes import gpu_count
from ppe_yolo.azure.yaml.assets import Asset
from ppe_yolo.azure.yaml.bindings import resolve_command
from ppe_yolo.azure.yaml.document import Document, Mistake
from ppe_yolo.azure.yaml.pipeline import ASSET, Pipeline

# https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu, and variables that jobs are known to have
_AZUREML_VARIABLES = frozenset(
    f"AZUREML_{name}"
    for name in (
        "ARM_SUBSCRIPTION", "ARM_RESOURCEGROUP", "ARM_WORKSPACE_NAME", "ARM_PROJECT_NAME", "EXPERIMENT_ID", "RUN_ID",
        "NODE_COUNT", "ROOT_RUN_ID", "WORKSPACE_ID", "DATASTORE_NAME", "SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME",
    )
)  # fmt: skip
ASSET_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")
_EXPERIMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")
_PIP_OPTIONS = (
    *("--extra-index-url", "--find-links", "-f", "--no-index", "--no-binary", "--only-binary", "--prefer-binary", "--pre"),
    *("--require-hashes", "--trusted-host", "--requirement", "-r", "--constraint", "-c", "--editable", "-e"),
)
_SHM_SIZE = re.compile(r"\d+(\.\d+)?[bkmg]", re.IGNORECASE)


def check_asset_name(document: Document) -> list[Mistake]:
    """Checks the name of an environment, a data asset or a schedule; Azure allows no dots in it."""
    name = document.value.get("name")
    if name is None or ASSET_NAME.fullmatch(str(name)):
        return []
    return [document.mistake("illegal-name", f"name: expected letters, digits, - and _, got {name!r}", "name")]


def check_shell(document: Document, command: str, *keys: str) -> list[Mistake]:
    """Checks a command with `bash -n`, and the names of Azure's variables in it."""
    mistakes = []
    for name in re.findall(r"\$\{?(AZUREML_\w+)", command):
        near = difflib.get_close_matches(name, _AZUREML_VARIABLES, n=1, cutoff=0.9)
        if near and name not in _AZUREML_VARIABLES:  # others may exist, so only misspellings are reported
            what = f"{name}: Azure ML sets no such variable: did you mean {near[0]}?"
            mistakes.append(document.mistake("unknown-variable", what, *keys, needle=name))
    if shutil.which("bash") is not None:
        text = resolve_command(command, lambda own: "x")
        result = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
        if result.returncode:
            reason = result.stderr.strip().splitlines()[0].removeprefix("bash: -c: ")
            mistakes.append(document.mistake("invalid-command", f"{'.'.join(keys)}: bash: {reason}", *keys))
    return mistakes


def check_values(document: Document, value: Mapping[str, Any], keys: tuple[str, ...]) -> list[Mistake]:
    """Checks single values of a component, job or pipeline, which Azure's schemas describe."""
    mistakes = []
    for path, (is_valid, expected) in _VALUES.items():
        given: Any = value
        for key in path:
            given = given.get(key) if isinstance(given, Mapping) else None
        if given is not None and not is_valid(given):
            what = f"{'.'.join(path)}: expected {expected}, got {given!r}"
            mistakes.append(document.mistake("wrong-value", what, *keys, *path))
    return mistakes


def _seconds(most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 < v <= most, f"seconds from 1 to {most}"


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda v: str(v).lower() in words, f"one of {', '.join(words)}"


_BOOLEAN = (lambda v: isinstance(v, bool), "true or false")
_FAILURES = (lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= -1, "-1 (any number) or more")
_VALUES: Mapping[tuple[str, ...], tuple[Callable[[Any], bool], str]] = {
    ("resources", "shm_size"): (
        lambda v: bool(_SHM_SIZE.fullmatch(str(v))),
        "a number with b, k, m or g, such as 8g",
    ),
    ("retry_settings", "timeout"): _seconds(259_200),
    ("limits", "timeout"): _seconds(2_592_000),
    ("is_deterministic",): _BOOLEAN,
    ("settings", "continue_on_step_failure"): _BOOLEAN,
    ("settings", "force_rerun"): _BOOLEAN,
    ("settings", "default_datastore"): (
        lambda v: bool(re.fullmatch(r"(azureml:)?[a-zA-Z0-9_]{1,255}", str(v))),
        "azureml: and a name of letters, digits and _",
    ),
    ("identity", "type"): _one_of("managed", "managed_identity", "user_identity", "aml_token"),
    ("logging_level",): _one_of("info", "warning", "debug"),
    ("mini_batch_error_threshold",): _FAILURES,
    ("error_threshold",): _FAILURES,
    ("mini_batch_size",): (
        lambda v: bool(re.fullmatch(r"[1-9]\d*(kb|mb|gb)?", str(v), re.IGNORECASE)),
        "a number of files, or a size such as 10mb",
    ),
    ("version",): (lambda v: bool(re.fullmatch(r"[a-zA-Z0-9._-]{1,255}", str(v))), "letters, digits, dots, - and _"),
    ("image",): (lambda v: bool(re.fullmatch(r"\S+", str(v))), "the name of an image without spaces"),
}  # fmt: skip


def check_time_zone(document: Document) -> list[Mistake]:
    """Checks that the time zone of a schedule is a name of IANA or of Windows ("Central Europe Standard Time")."""
    trigger = document.value.get("trigger")
    zone = trigger.get("time_zone") if isinstance(trigger, Mapping) else None
    if zone is None or str(zone).endswith(" Standard Time") or zone in zoneinfo.available_timezones():
        return []
    return [document.mistake("wrong-schedule", f"time_zone: no such time zone {zone!r}", "trigger", "time_zone")]


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
                conda.mistake("missing-pip", "dependencies: expected pip beside its section", "dependencies", number)
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


def check_pipeline_values(pipeline: Pipeline, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks the experiment's name, datastore addresses, numbers of nodes, and that components have different names."""
    document, mistakes = pipeline.document, []
    experiment = pipeline.value.get("experiment_name")
    if experiment is not None and not _EXPERIMENT.fullmatch(str(experiment)):
        what = f"experiment_name: expected letters, digits, - and _, got {experiment!r}"
        mistakes.append(document.mistake("illegal-name", what, "experiment_name"))
    for name, given in (pipeline.value.get("inputs") or {}).items():
        path = given.get("path") if isinstance(given, Mapping) else None
        if (
            isinstance(path, str)
            and path.startswith("azureml://")
            and not re.match(r"azureml://(datastores|subscriptions|registries|locations|jobs)/", path)
        ):
            what = f"input {name}: expected azureml://datastores/NAME/paths/PATH, got {path}"
            mistakes.append(document.mistake("unknown-reference", what, "inputs", name, "path"))
    sizes = {a.name: str(a.document.value.get("size")) for a in assets if a.kind == "compute"}
    nodes = {a.name: a.document.value.get("max_instances", 1) for a in assets if a.kind == "compute"}
    settings = pipeline.value.get("settings")
    default = settings.get("default_compute") if isinstance(settings, Mapping) else None
    for job in pipeline.jobs.values():
        count = job.setting("resources", "instance_count")
        most = nodes.get(str(job.value.get("compute") or default).removeprefix(ASSET))
        if isinstance(count, int) and isinstance(most, int) and count > most:
            what = f"job {job.name}: instance_count: expected at most the {most} nodes of its cluster, got {count}"
            mistakes.append(document.mistake("wrong-count", what, "jobs", job.name, "resources", "instance_count"))
        processes = job.setting("distribution", "process_count_per_instance")
        gpus = gpu_count(sizes.get(str(job.value.get("compute") or default).removeprefix(ASSET), ""))
        if isinstance(processes, int) and gpus is not None and processes > max(1, gpus):
            what = f"job {job.name}: process_count_per_instance: expected at most the {gpus} GPUs of a node, got {processes}"
            mistakes.append(
                document.mistake("wrong-count", what, "jobs", job.name, "distribution", "process_count_per_instance")
            )
    files: dict[str, str] = {}
    for job in pipeline.jobs.values():
        if job.component is None or job.component.value.get("name") is None:
            continue
        name, path = str(job.component.value["name"]), str(job.component.path.resolve())
        if files.setdefault(name, path) != path:
            what = f"name: {name} is also the name of {files[name]}"
            mistakes.append(job.component.document.mistake("duplicate-name", what, "name"))
    return mistakes
