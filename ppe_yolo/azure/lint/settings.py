"""Checks of single values that Azure accepts in a file and rejects, or misreads, when it runs it."""

import difflib
import re
import shutil
import subprocess
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

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
    """Checks shm_size and the retry timeout of a component or job."""
    mistakes = []
    resources, retry = value.get("resources"), value.get("retry_settings")
    size = resources.get("shm_size") if isinstance(resources, Mapping) else None
    if size is not None and not _SHM_SIZE.fullmatch(str(size)):
        what = f"shm_size: expected a number with b, k, m or g, such as 8g, got {size!r}"
        mistakes.append(document.mistake("wrong-value", what, *keys, "resources", "shm_size"))
    timeout = retry.get("timeout") if isinstance(retry, Mapping) else None
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 < timeout <= 259200):
        what = f"timeout: expected seconds from 1 to 259200, got {timeout!r}"
        mistakes.append(document.mistake("wrong-value", what, *keys, "retry_settings", "timeout"))
    return mistakes


def check_time_zone(document: Document) -> list[Mistake]:
    """Checks that the time zone of a schedule is a name of IANA or of Windows ("Central Europe Standard Time")."""
    trigger = document.value.get("trigger")
    zone = trigger.get("time_zone") if isinstance(trigger, Mapping) else None
    if zone is None or str(zone).endswith(" Standard Time") or zone in zoneinfo.available_timezones():
        return []
    return [document.mistake("wrong-schedule", f"time_zone: no such time zone {zone!r}", "trigger", "time_zone")]


def check_requirements(conda: Document) -> list[Mistake]:
    """Checks the pip section of an environment's conda file."""
    mistakes = []
    dependencies = conda.value["dependencies"]
    for number, entry in enumerate(dependencies):
        if not isinstance(entry, Mapping):
            continue
        if not any(isinstance(d, str) and re.match(r"pip\b", d) for d in dependencies):
            mistakes.append(
                conda.mistake("missing-pip", "dependencies: expected pip beside its section", "dependencies", number)
            )
        for position, line in enumerate(entry.get("pip") or ()):
            if reason := _refuse_requirement(str(line)):
                what = f"pip: {reason}"
                mistakes.append(conda.mistake("invalid-requirement", what, "dependencies", number, "pip", position))
    return mistakes


def _refuse_requirement(line: str) -> str | None:
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:  # not a declared dependency
        return None
    if line.startswith(("-", ".", "/")) or "://" in line:
        return None
    try:
        Requirement(line)
    except InvalidRequirement as error:
        return f"expected a requirement, got {line!r} ({str(error).splitlines()[0]})"
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
    nodes = {a.name: a.document.value.get("max_instances", 1) for a in assets if a.kind == "compute"}
    settings = pipeline.value.get("settings")
    default = settings.get("default_compute") if isinstance(settings, Mapping) else None
    for job in pipeline.jobs.values():
        count = job.setting("resources", "instance_count")
        most = nodes.get(str(job.value.get("compute") or default).removeprefix(ASSET))
        if isinstance(count, int) and isinstance(most, int) and count > most:
            what = f"job {job.name}: instance_count: expected at most the {most} nodes of its cluster, got {count}"
            mistakes.append(document.mistake("wrong-count", what, "jobs", job.name, "resources", "instance_count"))
    files: dict[str, str] = {}
    for job in pipeline.jobs.values():
        if job.component is None or job.component.value.get("name") is None:
            continue
        name, path = str(job.component.value["name"]), str(job.component.path.resolve())
        if files.setdefault(name, path) != path:
            what = f"name: {name} is also the name of {files[name]}"
            mistakes.append(job.component.document.mistake("duplicate-name", what, "name"))
    return mistakes
