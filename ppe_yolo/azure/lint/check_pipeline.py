"""What can be wrong with a pipeline: bindings that lead nowhere, types that do not fit, circles, values out of range."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ppe_yolo.azure.lint.check_component import check_reference, check_settings
from ppe_yolo.azure.yaml.assets import Asset
from ppe_yolo.azure.yaml.bindings import JobOutput, ParentInput, ParentOutput, is_expression, parse_binding
from ppe_yolo.azure.yaml.document import Mistake
from ppe_yolo.azure.yaml.interface import Port
from ppe_yolo.azure.yaml.pipeline import ASSET, Job, Pipeline, binding_of, in_order


def check_pipeline(pipeline: Pipeline, assets: list[Asset]) -> list[Mistake]:
    """Mistakes of a pipeline, without those of its keys and of its components."""
    document = pipeline.document
    mistakes = check_settings(document, pipeline.value, ())
    for name, given in (pipeline.value.get("inputs") or {}).items():
        path = given.get("path") if isinstance(given, Mapping) else None
        if name in pipeline.inputs and pipeline.inputs[name].is_path and path is None:
            mistakes.append(document.mistake("missing-input", f"input {name}: expected a path", "inputs", name))
        mistakes += check_reference(document, path if _is_asset(path) else None, "data", assets, "inputs", name, "path")
    settings = pipeline.value.get("settings")
    default_compute = settings.get("default_compute") if isinstance(settings, Mapping) else None
    default_compute = default_compute or pipeline.value.get("compute")
    mistakes += check_reference(document, default_compute, "compute", assets, "settings", "default_compute")
    for job in pipeline.jobs.values():
        mistakes += _check_job(pipeline, job, assets, default_compute)
    mistakes += _check_ends(pipeline)
    ordered = {job.name for job in in_order(pipeline.jobs)}
    circle = [name for name in pipeline.jobs if name not in ordered]
    if circle:
        what = f"jobs {', '.join(circle)} wait for one another's outputs, or for those of such jobs"
        mistakes.append(document.mistake("cycle", what, "jobs", circle[0]))
    return mistakes


def _is_asset(path: Any) -> bool:
    return isinstance(path, str) and path.startswith(ASSET) and "://" not in path


def _check_job(pipeline: Pipeline, job: Job, assets: list[Asset], default_compute: Any) -> list[Mistake]:
    document, place = pipeline.document, ("jobs", job.name)
    mistakes = check_settings(document, job.value, place)
    if job.value.get("compute") is None and default_compute is None:
        what = f"job {job.name}: expected compute, or default_compute in the pipeline's settings"
        mistakes.append(document.mistake("missing-compute", what, *place))
    mistakes += check_reference(document, job.value.get("compute"), "compute", assets, *place, "compute")
    mistakes += check_reference(document, job.value.get("environment"), "environment", assets, *place, "environment")
    reference = job.value.get("component")
    if isinstance(reference, str) and reference.startswith(ASSET):
        mistakes += check_reference(document, reference, "component", assets, *place, "component")
    for name, given in job.inputs.items():
        mistakes += _check_source(pipeline, job, name, given)
    component = job.component
    if component is None:
        return mistakes
    kind = component.value.get("type")
    if job.value.get("type", kind) != kind:
        what = f"job {job.name}: its component is of the type {kind}, got {job.value['type']!r}"
        mistakes.append(document.mistake("wrong-job-type", what, *place, "type"))
    for name in job.inputs.keys() - component.inputs.keys():
        what = f"job {job.name}: {component.path.name} has no input {name}, only {', '.join(component.inputs) or 'none'}"
        mistakes.append(document.mistake("undeclared-input", what, *place, "inputs", name))
    for name in job.outputs.keys() - component.outputs.keys():
        what = f"job {job.name}: {component.path.name} has no output {name}, only {', '.join(component.outputs) or 'none'}"
        mistakes.append(document.mistake("undeclared-output", what, *place, "outputs", name))
    for name, port in component.inputs.items():
        if name not in job.inputs and port.required:
            what = f"job {job.name}: expected the input {name} of {component.path.name}, got none"
            mistakes.append(document.mistake("missing-input", what, *place, "inputs"))
        elif name in job.inputs:
            mistakes += _check_type(pipeline, job, port, job.inputs[name])
    for name, given in job.outputs.items():
        mistakes += _check_output(pipeline, job, name, given, component.outputs.get(name))
    return mistakes


def _check_source(pipeline: Pipeline, job: Job, name: str, given: Any) -> list[Mistake]:
    """Whether what an input is bound to is there."""
    text = given.get("path") if isinstance(given, Mapping) else given
    if not is_expression(text):
        return []
    document, place = pipeline.document, ("jobs", job.name, "inputs", name)
    binding = parse_binding(text)
    if isinstance(binding, ParentInput):
        if binding.name in (pipeline.value.get("inputs") or {}):
            return []
        known = ", ".join(pipeline.inputs) or "none"
        what = f"{name}: the pipeline has no input {binding.name}, only {known}"
        return [document.mistake("unknown-parent-input", what, *place)]
    if isinstance(binding, JobOutput):
        source = pipeline.jobs.get(binding.job)
        if source is None:
            what = f"{name}: the pipeline has no job {binding.job}, only {', '.join(pipeline.jobs)}"
            return [document.mistake("unknown-job", what, *place)]
        if source.component and binding.name not in source.component.outputs:
            known = ", ".join(source.component.outputs) or "none"
            what = f"{name}: job {binding.job} has no output {binding.name}, only {known}"
            return [document.mistake("unknown-output", what, *place)]
        return []
    what = f"{name}: expected ${{{{parent.inputs.NAME}}}} or ${{{{parent.jobs.JOB.outputs.NAME}}}}, got {text}"
    return [document.mistake("unknown-binding", what, *place)]


def _check_type(pipeline: Pipeline, job: Job, port: Port, given: Any) -> list[Mistake]:
    """Whether what an input is given fits it."""
    document, place = pipeline.document, ("jobs", job.name, "inputs", port.name)
    binding = binding_of(given)
    source: Port | None = None
    if isinstance(binding, ParentInput):
        source = pipeline.inputs.get(binding.name)
        if source and not source.is_path and not port.is_path and source.default is not None:
            # its value is known: it may be out of range as well as of another type
            if reason := port.refusal(source.default):
                what = f"input {binding.name}, which job {job.name} is given as {port.name}: {reason}"
                return [document.mistake("wrong-value", what, "inputs", binding.name)]
            return []
    elif isinstance(binding, JobOutput):
        component = pipeline.jobs[binding.job].component if binding.job in pipeline.jobs else None
        source = component.outputs.get(binding.name) if component else None
    elif isinstance(given, Mapping):
        source = Port(port.name, given.get("type", "uri_folder")) if "path" in given else None
    elif given is not None and not is_expression(given) and (reason := port.refusal(given)):
        return [document.mistake("wrong-value", f"{port.name} of job {job.name}: {reason}", *place)]
    if source is not None and not port.takes(source.type):
        what = f"{port.name} of job {job.name}: expected {port.type}, is bound to {source.type} ({source.name})"
        return [document.mistake("type-mismatch", what, *place)]
    return []


def _check_output(pipeline: Pipeline, job: Job, name: str, given: Any, port: Port | None) -> list[Mistake]:
    text = given.get("path") if isinstance(given, Mapping) else given
    if not is_expression(text):
        return []
    document, place = pipeline.document, ("jobs", job.name, "outputs", name)
    binding = parse_binding(text)
    if not isinstance(binding, ParentOutput):
        what = f"{name}: expected ${{{{parent.outputs.NAME}}}}, got {text}"
        return [document.mistake("unknown-binding", what, *place)]
    target = pipeline.outputs.get(binding.name)
    if target is None and binding.name not in (pipeline.value.get("outputs") or {}):
        what = f"{name}: the pipeline has no output {binding.name}, only {', '.join(pipeline.outputs) or 'none'}"
        return [document.mistake("unknown-parent-output", what, *place)]
    if target and port and target.type != port.type:
        what = f"{name} of job {job.name} is {port.type}, the pipeline's output {binding.name} is {target.type}"
        return [document.mistake("type-mismatch", what, *place)]
    return []


def _check_ends(pipeline: Pipeline) -> list[Mistake]:
    """Inputs that nothing uses, and outputs that no job or more than one writes."""
    document, mistakes = pipeline.document, []
    used = set()
    writers: dict[str, list[str]] = defaultdict(list)
    for job in pipeline.jobs.values():
        used |= {b.name for b in map(binding_of, job.inputs.values()) if isinstance(b, ParentInput)}
        for binding in map(binding_of, job.outputs.values()):
            if isinstance(binding, ParentOutput):
                writers[binding.name].append(job.name)
    for name in pipeline.inputs.keys() - used:
        mistakes.append(document.mistake("unused-input", f"input {name}: no job is given it", "inputs", name))
    for name in pipeline.outputs:
        if len(writers[name]) != 1:
            jobs = ", ".join(writers[name]) or "none"
            what = f"output {name}: expected one job that writes it, got {jobs}"
            mistakes.append(document.mistake("unwritten-output", what, "outputs", name))
    return mistakes
