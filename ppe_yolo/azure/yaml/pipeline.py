"""Pipelines and components as read from YAML, with the bindings between them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ppe_yolo.azure.yaml.bindings import Binding, JobOutput, ParentInput, parse_binding
from ppe_yolo.azure.yaml.document import Document, Mistake, read_document
from ppe_yolo.azure.yaml.interface import Port, read_ports
from ppe_yolo.core.errors import UserError

ASSET = "azureml:"


@dataclass(frozen=True)
class Component:
    """A component: its file, inputs and outputs. Everything else is in `document.value`."""

    document: Document
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    @property
    def path(self) -> Path:
        """Its file."""
        return self.document.path

    @property
    def value(self) -> Mapping[str, Any]:
        """The content of its file."""
        return self.document.value

    @property
    def code(self) -> Path | None:
        """The code folder, which is the working directory of the command, or None."""
        code = self.value.get("code") or (self.value.get("task") or {}).get("code")
        return None if code is None else (self.path.parent / str(code)).resolve()


def ignored_names(code: Path) -> set[str]:
    """Names in a code folder that its .amlignore excludes, so that Azure ML does not upload them."""
    ignore = code / ".amlignore"
    return {line.strip("/ ") for line in ignore.read_text(encoding="utf-8").splitlines()} if ignore.is_file() else set()


@dataclass(frozen=True)
class Job:
    """A step of a pipeline.

    Attributes:
        name: Its name in the pipeline.
        component: The component that it runs; None if that is not in a local file.
        value: Its mapping in the pipeline's file.
    """

    name: str
    component: Component | None
    value: Mapping[str, Any]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Values and bindings, as written."""
        return self.value.get("inputs") or {}

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Bindings, as written."""
        return self.value.get("outputs") or {}

    def needs(self) -> list[str]:
        """The jobs whose outputs are its inputs."""
        bindings = (binding_of(v) for v in self.inputs.values())
        return list(dict.fromkeys(b.job for b in bindings if isinstance(b, JobOutput)))

    def setting(self, *keys: str) -> Any:
        """A setting from the pipeline, or else from the component; None if neither has it."""
        for holder in (self.value, self.component.value if self.component else {}):
            value: Any = holder
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline: its file, inputs, outputs, and jobs in the order of the file."""

    document: Document
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    jobs: Mapping[str, Job]

    @property
    def path(self) -> Path:
        """Its file."""
        return self.document.path

    @property
    def value(self) -> Mapping[str, Any]:
        """The content of its file."""
        return self.document.value

    @property
    def default_compute(self) -> Any:
        """The cluster of the jobs that name none, as written in `settings` or in the pipeline itself; None if there is none."""
        settings = self.value.get("settings")
        given = settings.get("default_compute") if isinstance(settings, Mapping) else None
        return self.value.get("compute") if given is None else given

    def compute_of(self, job: Job) -> Any:
        """The cluster of a job, as written; None if there is none."""
        given = job.value.get("compute")
        return self.default_compute if given is None else given

    def value_of(self, job: Job, name: str) -> Any:
        """The literal that an input of a job has; None if it is not known here, such as a file or the output of a job."""
        port = job.component.inputs.get(name) if job.component is not None else None
        if port is None:
            return None
        given = job.inputs.get(name)
        binding = binding_of(given)
        if isinstance(binding, ParentInput):
            source = self.inputs.get(binding.name)
            return None if source is None else source.default
        if binding is not None or isinstance(given, Mapping):
            return None
        return port.default if given is None else given


def binding_of(given: Any) -> Binding | None:
    """What an input or output of a job is bound to, directly or by its `path`; None for a literal or an invalid binding."""
    if isinstance(given, Mapping):
        given = given.get("path")
    return parse_binding(given) if isinstance(given, str) else None


def read_component(path: Path, mistakes: list[Mistake]) -> Component:
    """Reads a component and reports the mistakes in its inputs and outputs."""
    document = read_document(path)
    if not isinstance(document.value, Mapping):
        mistakes.append(document.mistake("wrong-shape", "expected keys and values"))
        document = replace(document, value={})
    return Component(document, read_ports(document, "inputs", mistakes), read_ports(document, "outputs", mistakes))


def read_pipeline(document: Document, mistakes: list[Mistake]) -> Pipeline:
    """Reads a pipeline with its components and reports what cannot be read."""
    jobs = {}
    listed = document.value.get("jobs")
    if not isinstance(listed, Mapping) or not listed:
        mistakes.append(document.mistake("missing-key", "expected jobs, got none", "jobs"))
        listed = {}
    seen: dict[Path, Component] = {}
    for name, value in listed.items():
        if not isinstance(value, Mapping):
            mistakes.append(document.mistake("wrong-shape", f"job {name}: expected keys and values", "jobs", name))
            continue
        component = value.get("component")
        read = None
        if component is None:
            mistakes.append(document.mistake("missing-key", f"job {name}: expected a component", "jobs", name))
        elif isinstance(component, str) and not component.startswith(ASSET):
            path = document.path.parent / component.removeprefix("file:")
            if path not in seen and path.is_file():
                seen[path] = read_component(path, mistakes)
            read = seen.get(path)
            if read is None:
                what = f"job {name}: no such component file {component}"
                mistakes.append(document.mistake("missing-component", what, "jobs", name, "component"))
        jobs[str(name)] = Job(str(name), read, value)
    return Pipeline(
        document=document,
        inputs=read_ports(document, "inputs", mistakes),
        outputs=read_ports(document, "outputs", mistakes),
        jobs=jobs,
    )


def in_order(jobs: Mapping[str, Job]) -> list[Job]:
    """Sorts jobs so that each follows the jobs it needs, otherwise in the order of the file. Jobs in a cycle are left out."""
    done: dict[str, Job] = {}
    waiting = dict(jobs)
    while ready := [name for name, job in waiting.items() if all(n in done or n not in jobs for n in job.needs())]:
        done[ready[0]] = waiting.pop(ready[0])
    return list(done.values())


def apply_settings(document: Document, settings: Sequence[str]) -> tuple[Document, dict[str, Any]]:
    """Applies settings such as `inputs.max_epochs=3`.

    Local paths are relative to the working directory, not to the file.

    Returns:
        The changed document, and the settings as a mapping from dotted keys to values.

    Raises:
        UserError: A setting is not `KEY=VALUE`, or the document has no such key.
    """
    value = deepcopy(document.value)
    changed: dict[str, Any] = {}
    for setting in settings:
        keys, given = _parse_setting(setting)
        holder = value
        for key in keys[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or (keys[0] == "inputs" and keys[1:] and keys[-1] not in (*holder, "path", "mode")):
            known = ", ".join(value.get(keys[0]) or {}) if keys[0] in ("inputs", "jobs") else ", ".join(value)
            raise UserError(f"--set {'.'.join(keys)}: no such key in {document.path}", expected=f"one of {known}")
        if keys[0] == "inputs" and len(keys) == 2 and isinstance(holder.get(keys[1]), dict):
            keys, holder = [*keys, "path"], holder[keys[1]]  # a typed input: set its path
        elif isinstance(given, str) and parse_binding(given) is None and (path_type := _path_type(document, value, keys)):
            # a file for one step, which the pipeline does not bind
            changed[".".join((*keys, "type"))] = path_type
            holder[keys[-1]] = holder = {"type": path_type}
            keys = [*keys, "path"]
        if keys[-1] == "path" and "://" not in str(given) and not str(given).startswith(ASSET):
            given = str(Path(str(given)).resolve())
        holder[keys[-1]] = given
        changed[".".join(keys)] = given
    return replace(document, value=value), changed


def _parse_setting(setting: str) -> tuple[list[str], Any]:
    """The keys and the value of `KEY=VALUE`."""
    dotted, equals, text = setting.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise UserError(setting="set", expected="KEY=VALUE such as inputs.max_epochs=3", got=repr(setting))
    try:
        return keys, yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise UserError(item=f"--set {dotted}", expected="a YAML value", got=repr(text)) from error


def _path_type(document: Document, value: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The type of `jobs.NAME.inputs.KEY` if the component declares a file or folder there, else None."""
    match keys:
        case ["jobs", name, "inputs", key]:
            component = value["jobs"][name].get("component")
            path = document.path.parent / str(component).removeprefix("file:")
            port = read_component(path, []).inputs.get(key) if path.is_file() else None
            return port.type if port is not None and port.is_path else None
    return None
