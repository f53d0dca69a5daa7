"""`ppe-yolo azureml component`: a pipeline as one versioned component, which `az ml component create` publishes."""

from collections.abc import Mapping
from typing import Any

from ppe_yolo.azure.yaml.assets import SCHEMAS
from ppe_yolo.azure.yaml.interface import Port
from ppe_yolo.azure.yaml.pipeline import ASSET, Pipeline
from ppe_yolo.core.errors import UserError


def published_components(pipeline: Pipeline, version: str) -> dict[str, str]:
    """The reference of each job's component, by the dotted key of `apply_settings`.

    Args:
        pipeline: A pipeline whose components are in local files.
        version: The version that the components were published as.

    Raises:
        UserError: A job has no local component.
    """
    references = {}
    for job in pipeline.jobs.values():
        if job.component is None:
            raise UserError(
                file=pipeline.path,
                item=f"job {job.name}",
                expected="a component in a file",
                got="one on Azure",
                hint="`--components` and `azureml component` need a pipeline whose steps are files, such as pipeline.yml; "
                "published.yml already names a version",
            )
        references[f"jobs.{job.name}.component"] = f"{ASSET}{job.component.value['name']}:{version}"
    return references


def pipeline_component(pipeline: Pipeline, version: str) -> dict[str, Any]:
    """The content of a pipeline component with the jobs, inputs and outputs of a pipeline.

    Data has no default, so it must be given unless it is optional; every other input has the pipeline's value as default. Each
    job names its cluster, and its component in the same version. Azure ML ignores `settings` of a component: those of the job
    that runs it apply.

    Raises:
        UserError: See `published_components`.
    """
    references = published_components(pipeline, version)
    jobs = {
        job.name: {
            **job.value,
            "component": references[f"jobs.{job.name}.component"],
            **_present({"compute": pipeline.compute_of(job)}),
        }
        for job in pipeline.jobs.values()
    }
    return {
        "$schema": f"https://{SCHEMAS}/latest/pipelineComponent.schema.json",
        "type": "pipeline",
        "name": str(pipeline.value.get("experiment_name") or pipeline.path.stem).replace("-", "_"),
        "version": version,
        **{key: pipeline.value[key] for key in ("display_name", "description") if key in pipeline.value},
        "inputs": {name: _declared(port) for name, port in pipeline.inputs.items()},
        "outputs": {name: _present({"type": port.type, "mode": port.mode}) for name, port in pipeline.outputs.items()},
        "jobs": jobs,
    }


def _declared(port: Port) -> dict[str, Any]:
    return _present(
        {
            "type": port.type,
            "optional": port.optional or None,
            "default": None if port.is_path else port.default,
            "min": port.minimum,
            "max": port.maximum,
            "enum": list(port.enum) or None,
        }
    )


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
