"""Checks of pipelines: bindings to nothing, mismatched types, cycles, and values out of range."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ppe_yolo.azure.lint.references import check_address, check_reference
from ppe_yolo.azure.lint.settings import ASSET_NAME, IDENTITY, check_settings
from ppe_yolo.azure.lint.vm_sizes import gpu_count
from ppe_yolo.azure.yaml.assets import Asset, kind_of
from ppe_yolo.azure.yaml.bindings import JobOutput, ParentInput, ParentOutput, is_expression, parse_binding
from ppe_yolo.azure.yaml.document import Mistake
from ppe_yolo.azure.yaml.interface import Port
from ppe_yolo.azure.yaml.pipeline import ASSET, Component, Job, Pipeline, binding_of, in_order

# keys of the limit of each kind of job: a command, or a mini-batch
_TIMEOUTS = {"command": ("limits", "timeout"), "parallel": ("retry_settings", "timeout")}
_GPU_VALUES = (("accelerator", "gpu"), ("device", "cuda"))  # inputs that require a GPU


def check_pipeline(pipeline: Pipeline, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks a pipeline, except for its keys and its components."""
    document = pipeline.document
    mistakes = check_settings(document, pipeline.value, ())
    is_open = kind_of(pipeline.value) == "pipeline component"  # the job that uses the component gives the path
    for name, given in (pipeline.value.get("inputs") or {}).items():
        path = given.get("path") if isinstance(given, Mapping) else None
        port = pipeline.inputs.get(name)
        if port is not None and port.is_path and path is None and not is_open:
            mistakes.append(document.mistake("missing-input", f"input {name}: expected a path", "inputs", name))
        kind = "model" if port is not None and port.type.endswith("_model") else "data"
        mistakes += check_reference(document, path if _is_asset(path) else None, kind, assets, "inputs", name, "path")
        mistakes += check_address(document, path, assets, "inputs", name, "path")
    keys = ("compute",) if pipeline.default_compute == pipeline.value.get("compute") else ("settings", "default_compute")
    mistakes += check_reference(document, pipeline.default_compute, "compute", assets, *keys)
    settings = pipeline.value.get("settings")
    datastore = settings.get("default_datastore") if isinstance(settings, Mapping) else None
    mistakes += check_reference(document, datastore, "datastore", assets, "settings", "default_datastore")
    for job in pipeline.jobs.values():
        mistakes += _check_job(pipeline, job, assets) + _check_nodes(pipeline, job, assets)
    mistakes += _check_ends(pipeline) + _check_names(pipeline)
    ordered = {job.name for job in in_order(pipeline.jobs)}
    cycle = [name for name in pipeline.jobs if name not in ordered]
    if cycle:
        what = f"jobs {', '.join(cycle)} need each other's outputs, or those of such jobs"
        mistakes.append(document.mistake("cycle", what, "jobs", cycle[0]))
    return mistakes


def _is_asset(path: Any) -> bool:
    return isinstance(path, str) and path.startswith(ASSET) and "://" not in path


def _check_job(pipeline: Pipeline, job: Job, assets: Sequence[Asset]) -> list[Mistake]:
    document, keys = pipeline.document, ("jobs", job.name)
    mistakes = check_settings(document, job.value, keys)
    if pipeline.compute_of(job) is None:
        what = f"job {job.name}: expected compute, or default_compute in the settings of the pipeline"
        mistakes.append(document.mistake("missing-compute", what, *keys))
    mistakes += check_reference(document, job.value.get("compute"), "compute", assets, *keys, "compute")
    mistakes += check_reference(document, job.value.get("environment"), "environment", assets, *keys, "environment")
    reference = job.value.get("component")
    if isinstance(reference, str) and reference.startswith(ASSET):
        mistakes += check_reference(document, reference, "component", assets, *keys, "component")
    for name, given in job.inputs.items():
        mistakes += _check_source(pipeline, job, name, given)
        path = given.get("path") if isinstance(given, Mapping) else None
        mistakes += check_address(document, path, assets, *keys, "inputs", name)
    return mistakes if job.component is None else mistakes + _check_use(pipeline, job, job.component)


def _check_use(pipeline: Pipeline, job: Job, component: Component) -> list[Mistake]:
    """Checks that a job fits its component: kind, limit, identity, inputs and outputs."""
    document, mistakes, keys = pipeline.document, [], ("jobs", job.name)
    kind = component.value.get("type")
    if job.value.get("type", kind) != kind:
        what = f"job {job.name}: expected type {kind}, as in its component, got {job.value['type']!r}"
        mistakes.append(document.mistake("wrong-job-type", what, *keys, "type"))
    timeout = _TIMEOUTS.get(str(kind))
    if timeout is not None and job.setting(*timeout) is None:
        what = f"job {job.name}: expected {'.'.join(timeout)}"
        what += ": without it a job that hangs keeps costing money until somebody notices"
        mistakes.append(document.mistake("missing-timeout", what, *keys))
    identity = job.setting("identity", "type")
    if IDENTITY in str(component.value.get("command")) and identity not in ("managed", "managed_identity"):
        what = f"job {job.name}: expected identity with type: managed, since the command uses {IDENTITY}"
        mistakes.append(document.mistake("missing-identity", what, *keys))
    for name in job.inputs.keys() - component.inputs.keys():
        what = f"job {job.name}: {component.path.name} has no input {name}; inputs: {', '.join(component.inputs) or 'none'}"
        mistakes.append(document.mistake("undeclared-input", what, *keys, "inputs", name))
    for name in job.outputs.keys() - component.outputs.keys():
        what = f"job {job.name}: {component.path.name} has no output {name}; outputs: {', '.join(component.outputs) or 'none'}"
        mistakes.append(document.mistake("undeclared-output", what, *keys, "outputs", name))
    for name, port in component.inputs.items():
        if name not in job.inputs and port.required:
            what = f"job {job.name}: expected the input {name} of {component.path.name}, got none"
            mistakes.append(document.mistake("missing-input", what, *keys, "inputs"))
        elif name in job.inputs:
            mistakes += _check_type(pipeline, job, port, job.inputs[name])
    for name, given in job.outputs.items():
        mistakes += _check_output(pipeline, job, name, given, component.outputs.get(name))
    return mistakes


def _check_source(pipeline: Pipeline, job: Job, name: str, given: Any) -> list[Mistake]:
    """Checks that the source of an input exists."""
    text = given.get("path") if isinstance(given, Mapping) else given
    if not is_expression(text):
        return []
    document, keys = pipeline.document, ("jobs", job.name, "inputs", name)
    binding = parse_binding(text)
    if isinstance(binding, ParentInput):
        if binding.name in (pipeline.value.get("inputs") or {}):
            return []
        known = ", ".join(pipeline.inputs) or "none"
        what = f"{name}: the pipeline has no input {binding.name}; inputs: {known}"
        return [document.mistake("unknown-parent-input", what, *keys)]
    if isinstance(binding, JobOutput):
        source = pipeline.jobs.get(binding.job)
        if source is None:
            what = f"{name}: the pipeline has no job {binding.job}; jobs: {', '.join(pipeline.jobs)}"
            return [document.mistake("unknown-job", what, *keys)]
        if source.component and binding.name not in source.component.outputs:
            known = ", ".join(source.component.outputs) or "none"
            what = f"{name}: job {binding.job} has no output {binding.name}; outputs: {known}"
            return [document.mistake("unknown-output", what, *keys)]
        return []
    what = f"{name}: expected ${{{{parent.inputs.NAME}}}} or ${{{{parent.jobs.JOB.outputs.NAME}}}}, got {text}"
    return [document.mistake("unknown-binding", what, *keys)]


def _check_type(pipeline: Pipeline, job: Job, port: Port, given: Any) -> list[Mistake]:
    """Checks that an input accepts the value or type that it is given."""
    document, keys = pipeline.document, ("jobs", job.name, "inputs", port.name)
    binding = binding_of(given)
    source: Port | None = None
    if isinstance(binding, ParentInput):
        source = pipeline.inputs.get(binding.name)
        if source and not source.is_path and not port.is_path and source.default is not None:
            # the value is known, so its range can be checked as well as its type
            if reason := port.refusal(source.default):
                what = f"input {binding.name}, which is {port.name} of job {job.name}: {reason}"
                return [document.mistake("wrong-value", what, "inputs", binding.name)]
            return []
    elif isinstance(binding, JobOutput):
        component = pipeline.jobs[binding.job].component if binding.job in pipeline.jobs else None
        source = component.outputs.get(binding.name) if component else None
    elif isinstance(given, Mapping):
        source = Port(name=port.name, type=given.get("type", "uri_folder")) if "path" in given else None
    elif given is not None and not is_expression(given) and (reason := port.refusal(given)):
        return [document.mistake("wrong-value", f"{port.name} of job {job.name}: {reason}", *keys)]
    if source is not None and not port.takes(source.type):
        what = f"{port.name} of job {job.name}: expected {port.type}, got a binding to {source.type} ({source.name})"
        return [document.mistake("type-mismatch", what, *keys)]
    return []


def _check_output(pipeline: Pipeline, job: Job, name: str, given: Any, port: Port | None) -> list[Mistake]:
    text = given.get("path") if isinstance(given, Mapping) else given
    if not is_expression(text):
        return []
    document, keys = pipeline.document, ("jobs", job.name, "outputs", name)
    binding = parse_binding(text)
    if not isinstance(binding, ParentOutput):
        what = f"{name}: expected ${{{{parent.outputs.NAME}}}}, got {text}"
        return [document.mistake("unknown-binding", what, *keys)]
    target = pipeline.outputs.get(binding.name)
    if target is None and binding.name not in (pipeline.value.get("outputs") or {}):
        what = f"{name}: the pipeline has no output {binding.name}; outputs: {', '.join(pipeline.outputs) or 'none'}"
        return [document.mistake("unknown-parent-output", what, *keys)]
    if target and port and target.type != port.type:
        what = f"{name} of job {job.name} is {port.type}, the pipeline's output {binding.name} is {target.type}"
        return [document.mistake("type-mismatch", what, *keys)]
    return []


def _check_ends(pipeline: Pipeline) -> list[Mistake]:
    """Finds inputs that no job uses, and outputs that no job or several jobs write."""
    document, mistakes = pipeline.document, []
    used = set()
    writers: dict[str, list[str]] = defaultdict(list)
    for job in pipeline.jobs.values():
        used |= {b.name for b in map(binding_of, job.inputs.values()) if isinstance(b, ParentInput)}
        for binding in map(binding_of, job.outputs.values()):
            if isinstance(binding, ParentOutput):
                writers[binding.name].append(job.name)
    for name in pipeline.inputs.keys() - used:
        mistakes.append(document.mistake("unused-input", f"input {name}: no job uses it", "inputs", name))
    for name in pipeline.outputs:
        if len(writers[name]) != 1:
            jobs = ", ".join(writers[name]) or "none"
            what = f"output {name}: expected exactly one job that writes it, got {jobs}"
            mistakes.append(document.mistake("unwritten-output", what, "outputs", name))
    return mistakes


def _check_nodes(pipeline: Pipeline, job: Job, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks that the cluster has enough nodes, a GPU for each process of a node, and GPUs at all if the job needs one."""
    document, mistakes, keys = pipeline.document, [], ("jobs", job.name)
    name = str(pipeline.compute_of(job)).removeprefix(ASSET)
    cluster = next((a.document.value for a in assets if a.kind == "compute" and a.name == name), None)
    if cluster is None:
        return []
    count, most = job.setting("resources", "instance_count"), cluster.get("max_instances", 1)
    if isinstance(count, int) and isinstance(most, int) and 0 < most < count:
        what = f"job {job.name}: instance_count: expected at most the {most} nodes of {name}, got {count}"
        mistakes.append(document.mistake("wrong-count", what, *keys, "resources", "instance_count"))
    processes, gpus = job.setting("distribution", "process_count_per_instance"), gpu_count(str(cluster.get("size")))
    if isinstance(processes, int) and gpus is not None and processes > max(1, gpus):
        what = f"job {job.name}: process_count_per_instance: expected at most the {gpus} GPUs of a node, got {processes}"
        mistakes.append(document.mistake("wrong-count", what, *keys, "distribution", "process_count_per_instance"))
    needed = [f"{port}: {word}" for port, word in _GPU_VALUES if pipeline.value_of(job, port) == word]
    if needed and gpus == 0:
        what = f"job {job.name}: compute: expected a cluster with GPUs for {needed[0]}, got {name} ({cluster.get('size')})"
        mistakes.append(document.mistake("no-gpu", what, *keys, "compute"))
    return mistakes


def _check_names(pipeline: Pipeline) -> list[Mistake]:
    """Checks the experiment's name, and that components have different names."""
    mistakes = []
    experiment = pipeline.value.get("experiment_name")
    if experiment is not None and not ASSET_NAME.fullmatch(str(experiment)):
        what = f"experiment_name: expected letters, digits, - and _, got {experiment!r}"
        mistakes.append(pipeline.document.mistake("illegal-name", what, "experiment_name"))
    files: dict[str, str] = {}
    for job in pipeline.jobs.values():
        if job.component is None or job.component.value.get("name") is None:
            continue
        name, path = str(job.component.value["name"]), str(job.component.path.resolve())
        if files.setdefault(name, path) != path:
            what = f"name: {name} is also the name of {files[name]}"
            mistakes.append(job.component.document.mistake("duplicate-name", what, "name"))
    return mistakes
