"""The keys that Azure ML's YAML may have. Azure ignores many misspelled keys, so that the setting has no effect."""

import difflib
from collections.abc import Mapping
from typing import Any

from ppe_yolo.azure.yaml.document import Document, Keys, Mistake

# keys allowed in a mapping, with the shape of their values; None allows anything, the key * stands for any name
Shape = Mapping[str, Any] | None

_RESOURCES: Shape = dict.fromkeys(
    ("instance_count", "instance_type", "properties", "locations", "shm_size", "docker_args", "max_instance_count")
)
_DISTRIBUTION: Shape = dict.fromkeys(("type", "process_count_per_instance", "parameter_server_count", "worker_count"))
_IDENTITY: Shape = dict.fromkeys(("type", "user_assigned_identities"))
_INPUT: Shape = dict.fromkeys(("type", "path", "mode", "description", "optional", "default", "min", "max", "enum"))
_OUTPUT: Shape = dict.fromkeys(("type", "path", "mode", "description", "name", "version"))
_NAMES: Shape = {"*": None}
_ASSET = ("$schema", "name", "version", "description")
_LABELS: Mapping[str, Any] = dict.fromkeys(("tags", "properties"), _NAMES)
_PARALLEL: Mapping[str, Any] = {
    "logging_level": None,
    "mini_batch_size": None,
    "partition_keys": None,
    "input_data": None,
    "max_concurrency_per_instance": None,
    "error_threshold": None,
    "mini_batch_error_threshold": None,
    "retry_settings": dict.fromkeys(("timeout", "max_retries")),
}
_RUN: Mapping[str, Any] = {
    "environment_variables": _NAMES,
    "resources": _RESOURCES,
    "distribution": _DISTRIBUTION,
    "limits": dict.fromkeys(("timeout",)),
    "identity": _IDENTITY,
    "queue_settings": dict.fromkeys(("job_tier", "priority")),
}
_PORTS: Mapping[str, Any] = {"inputs": {"*": _INPUT}, "outputs": {"*": _OUTPUT}}
_JOB: Mapping[str, Any] = {
    **dict.fromkeys(("type", "component", "compute", "display_name", "description", "services", "environment")),
    "tags": _NAMES,
    **_PORTS,
    **_RUN,
    **_PARALLEL,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "pipeline": {
        **dict.fromkeys(("$schema", "type", "name", "display_name", "experiment_name", "description")),
        **_LABELS,
        **dict.fromkeys(("compute", "services")),
        "identity": _IDENTITY,
        "settings": dict.fromkeys(("default_datastore", "default_compute", "continue_on_step_failure", "force_rerun")),
        **_PORTS,
        "jobs": {"*": _JOB},
    },
    "pipeline component": {
        **dict.fromkeys((*_ASSET, "type", "display_name", "is_deterministic")),
        **_LABELS,
        **_PORTS,
        "jobs": {"*": _JOB},
    },
    "component": {
        **dict.fromkeys((*_ASSET, "type", "display_name", "is_deterministic", "command", "code", "environment")),
        **_LABELS,
        **_PORTS,
        **_RUN,
        **_PARALLEL,
        "task": dict.fromkeys(("type", "code", "entry_script", "program_arguments", "model", "append_row_to", "environment")),
    },
    "command": {
        **dict.fromkeys((*_ASSET, "type", "display_name", "experiment_name", "command", "code", "environment", "compute")),
        **_LABELS,
        **dict.fromkeys(("services",)),
        **_PORTS,
        **_RUN,
    },
    "environment": {
        **dict.fromkeys((*_ASSET, "image", "conda_file", "inference_config", "datastore")),
        **_LABELS,
        "build": dict.fromkeys(("path", "dockerfile_path")),
    },
    "compute": {
        **dict.fromkeys(("$schema", "name", "type", "description", "location", "size", "tier")),
        "tags": _NAMES,
        **dict.fromkeys(("min_instances", "max_instances", "idle_time_before_scale_down", "enable_node_public_ip")),
        **dict.fromkeys(("ssh_public_access_enabled",)),
        "ssh_settings": dict.fromkeys(("admin_username", "admin_password", "ssh_key_value")),
        "network_settings": dict.fromkeys(("vnet_name", "subnet")),
        "identity": _IDENTITY,
    },
    "data": {**dict.fromkeys((*_ASSET, "type", "path", "datastore")), **_LABELS},
    "schedule": {
        **dict.fromkeys((*_ASSET, "display_name")),
        **_LABELS,
        "trigger": {
            **dict.fromkeys(("type", "start_time", "end_time", "time_zone", "expression", "frequency", "interval")),
            "schedule": dict.fromkeys(("hours", "minutes", "week_days", "month_days")),
        },
        # a file name, or a job written in path
        "create_job": None,
    },
}
_READ_ELSEWHERE = {"inputs", "outputs", "jobs"}  # and checked there: their values may be literals and bindings
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "pipeline": ("type", "jobs"),
    "pipeline component": ("type", "name", "jobs"),
    "component": ("type", "name"),
    "command": ("type", "command", "environment"),
    "environment": ("name",),
    "compute": ("name", "type", "size"),
    "data": ("name", "type", "path"),
    "schedule": ("name", "trigger", "create_job"),
}


def check_keys(document: Document, kind: str) -> list[Mistake]:
    """Finds unknown, duplicate and missing keys."""
    mistakes = [
        document.mistake("duplicate-key", f"{keys[-1]}: duplicate key, only one of the two has an effect", *keys)
        for keys in document.duplicates
    ]
    for key in REQUIRED[kind]:
        if document.value.get(key) is None:
            mistakes.append(document.mistake("missing-key", f"expected {key}, which a {kind} must have"))
    _check(document, document.value, SHAPES[kind], (), mistakes)
    return mistakes


def _check(document: Document, value: Any, shape: Shape, keys: Keys, mistakes: list[Mistake]) -> None:
    if shape is None or value is None:
        return
    if not isinstance(value, Mapping):
        if not _READ_ELSEWHERE & {*keys[-2:]}:
            mistakes.append(document.mistake("wrong-shape", f"{keys[-1]}: expected keys and values, got {value!r}", *keys))
        return
    for key, below in value.items():
        path = (*keys, str(key))
        if "*" in shape:
            _check(document, below, shape["*"], path, mistakes)
        elif key in shape:
            _check(document, below, shape[key], path, mistakes)
        else:
            near = difflib.get_close_matches(str(key), shape, n=1)
            hint = f": did you mean {near[0]}?" if near else f": expected one of {', '.join(shape)}"
            mistakes.append(document.mistake("unknown-key", f"{key}: unknown key{hint}", *path))
