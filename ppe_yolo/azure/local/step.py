"""A step of a local run: a job of the pipeline with all of its inputs and outputs bound to paths and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppe_yolo.azure.local.state import digest_of_code, digest_of_data, digest_of_values
from ppe_yolo.azure.yaml.assets import find_data
from ppe_yolo.azure.yaml.bindings import JobOutput, Own, ParentInput, ParentOutput
from ppe_yolo.azure.yaml.interface import Port
from ppe_yolo.azure.yaml.pipeline import ASSET, Component, Job, Pipeline, binding_of
from ppe_yolo.core.errors import UserError

OUTPUTS = "named-outputs"  # the folder name that Azure ML uses for downloaded outputs


@dataclass(frozen=True, kw_only=True)
class Step:
    """A job with everything bound.

    Attributes:
        job: The job.
        component: The component that it runs.
        folder: The folder of its record and log.
        inputs: Value of each input in the command, None for an optional input that is not given.
        outputs: Path of each output.
        given: What identifies this execution, in plain types: a step with an equal `given` need not run again.
        code: Digest of the code folder. It is not part of `given`, since a fix in a later step must not repeat this one.
    """

    job: Job
    component: Component
    folder: Path
    inputs: Mapping[str, str | None]
    outputs: Mapping[str, Path]
    given: Mapping[str, Any]
    code: str

    def value(self, own: Own) -> str | None:
        """The value of an expression in the command."""
        return self.inputs.get(own.name) if own.side == "inputs" else str(self.outputs[own.name])


class StepBinder:
    """Binds the jobs of a pipeline one after another.

    Args:
        pipeline: The pipeline.
        out: The folder of the run.

    Raises:
        UserError: Input data of the pipeline is not on this machine.
    """

    def __init__(self, pipeline: Pipeline, out: Path) -> None:
        self._pipeline = pipeline
        self._out = out
        self._sources = {name: self._source(port) for name, port in pipeline.inputs.items()}
        self._code_digests: dict[Path, str] = {}

    def bind(self, job: Job, run_ids: Mapping[str, str]) -> Step:
        """Binds a job.

        Args:
            job: The job.
            run_ids: Identifier of the execution of each job before it; a new execution means changed inputs.

        Raises:
            UserError: The component exists only on Azure, or input data is not on this machine.
        """
        component = job.component
        if component is None or component.code is None:
            raise UserError(
                "the component is only on Azure, so it cannot run here", file=self._pipeline.path, item=f"job {job.name}"
            )
        inputs: dict[str, str | None] = {}
        given: dict[str, Any] = {}
        for port in component.inputs.values():
            inputs[port.name], given[port.name] = self._bind_input(job, port, run_ids)
        if component.code not in self._code_digests:
            self._code_digests[component.code] = digest_of_code(component.code)
        given["component"] = digest_of_values(dict(component.value))
        given["environment_variables"] = job.setting("environment_variables") or {}
        return Step(
            job=job,
            component=component,
            folder=self._out / job.name,
            inputs=inputs,
            outputs=self._outputs(job),
            given=given,
            code=self._code_digests[component.code],
        )

    def _bind_input(self, job: Job, port: Port, run_ids: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The value of an input in the command, and what identifies it."""
        value = job.inputs.get(port.name)
        binding = binding_of(value)
        if isinstance(binding, JobOutput):
            output = self._outputs(self._pipeline.jobs[binding.job])[binding.name]
            return str(output), f"{binding.job} {run_ids[binding.job]}"
        source: Any
        if isinstance(binding, ParentInput):
            source = self._sources[binding.name]
        elif isinstance(value, Mapping):
            source = self._local_path(f"jobs.{job.name}.inputs.{port.name}", str(value["path"]))
        else:
            source = port.default if value is None else value
        text = None if source is None else str(source)
        return text, digest_of_data(source) if isinstance(source, Path) else text

    def _source(self, port: Port) -> str | Path | None:
        """The value or path of an input of the pipeline."""
        if port.is_path:
            return self._local_path(f"inputs.{port.name}", str(self._pipeline.value["inputs"][port.name]["path"]))
        return None if port.default is None else str(port.default)

    def _local_path(self, key: str, path: str) -> Path:
        """Where data is on this machine.

        Raises:
            UserError: It is elsewhere, or missing.
        """
        hint = f"give --set {key}=PATH"
        if path.startswith(ASSET) and "://" not in path:
            local = find_data(self._pipeline.path.parent, path)
        elif "://" in path:
            raise UserError(f"{path} is not on this machine", item=key, hint=hint)
        else:
            local = (self._pipeline.path.parent / path).resolve()
        if not local.exists():
            raise UserError(item=key, expected="data on this machine", got=str(local), hint=hint)
        return local

    def _outputs(self, job: Job) -> dict[str, Path]:
        paths = {}
        for name in job.component.outputs if job.component else ():
            binding = binding_of(job.outputs.get(name))
            if isinstance(binding, ParentOutput):
                paths[name] = self._out / OUTPUTS / binding.name
            else:
                paths[name] = self._out / job.name / OUTPUTS / name
        return paths
