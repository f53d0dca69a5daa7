"""`ppe-yolo azureml submit`: a pipeline on Azure, followed to its end, its outputs fetched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ppe_yolo.azure.lint.official import is_installed
from ppe_yolo.azure.yaml.pipeline import ASSET, Pipeline
from ppe_yolo.core.errors import UserError

# name in config.json (as the studio offers it for download) -> variable
PLACE = {
    "subscription_id": "AZUREML_SUBSCRIPTION_ID",
    "resource_group": "AZUREML_RESOURCE_GROUP",
    "workspace_name": "AZUREML_WORKSPACE_NAME",
}
DATA_TAG = "data_versions"
ENDED_WELL = "Completed"


@dataclass(frozen=True)
class Workspace:
    """Which workspace."""

    subscription_id: str
    resource_group: str
    workspace_name: str


def find_workspace(config: Path | None, variables: Mapping[str, str]) -> Workspace:
    """From a config file where one is given, else from variables, which must all be there.

    Raises:
        UserError: Something is missing; names it.
    """
    if config is not None:
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"--workspace: expected the config.json of a workspace, {config} cannot be read ({error})"
            ) from error
        values = values if isinstance(values, dict) else {}
        where = f"in {config}"
    else:
        values = {key: variables.get(variable) for key, variable in PLACE.items()}
        where = f"as {', '.join(PLACE.values())}"
    missing = [key for key in PLACE if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        raise UserError(
            f"submit: expected {', '.join(PLACE)} {where}, got no {', '.join(missing)}: give --workspace config.json (the "
            "studio offers it for download) or set the variables"
        )
    return Workspace(**{key: values[key] for key in PLACE})


def connect(workspace: Workspace) -> Any:
    """A client that signs in as DefaultAzureCredential finds: variables, workload or managed identity, `az login`.

    Raises:
        UserError: azure-ai-ml is not installed.
    """
    if not is_installed():
        raise UserError("submit: needs azure-ai-ml: pip install 'ppe-yolo[azureml]'")
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), workspace.subscription_id, workspace.resource_group, workspace.workspace_name)


def submit(
    pipeline: Pipeline,
    settings: Mapping[str, Any],
    client: Any,
    *,
    out: Path | None,
    wait: bool = True,
    only_new_data: bool = False,
    console: Console,
) -> bool:
    """Submits a pipeline and, unless told otherwise, follows it and fetches its outputs.

    Args:
        pipeline: A pipeline that lint has nothing to say against.
        settings: See `apply_settings`; azure-ai-ml reads the file anew.
        client: An MLClient.
        out: Folder for outputs and logs; nothing is fetched when None.
        wait: Whether to wait for its end.
        only_new_data: Submit only if an input's latest version was not submitted with this experiment yet.
        console: Where to print.

    Returns:
        Whether it ended well; where it is not waited for, or there was nothing new, True.

    Raises:
        UserError: Azure refuses; in one line.
    """
    from azure.ai.ml import load_job
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        versions = _data_versions(pipeline, client, latest=only_new_data)
        experiment = str(pipeline.value.get("experiment_name") or pipeline.path.stem)
        text = json.dumps(versions, sort_keys=True)
        if only_new_data:
            before = next((j.name for j in client.jobs.list() if _is_same(j, experiment, text)), None)
            if before is not None:
                console.print(f"no new data: {before} was submitted with {text}", soft_wrap=True, markup=False)
                return True
        paths = {f"inputs.{name}.path": reference for name, reference in versions.items()}
        job = load_job(pipeline.path, params_override=[{k: v} for k, v in {**paths, **settings}.items()])
        job.tags = {**(job.tags or {}), DATA_TAG: text}
        submitted = client.jobs.create_or_update(job)
        console.print(f"submitted: {submitted.name} {submitted.studio_url}", soft_wrap=True, markup=False)
        if not wait:
            return True
        return _follow(submitted.name, client, out, console)
    except (AzureError, MlException) as error:
        raise UserError(f"submit: Azure refuses ({' '.join(str(error).split())[:400]})") from error


def _follow(name: str, client: Any, out: Path | None, console: Console) -> bool:
    from azure.ai.ml.exceptions import JobException

    failure = ""
    try:
        client.jobs.stream(name)
    except JobException as error:  # it failed; what it left is fetched all the same
        failure = " ".join(str(error).split())[:400]
    status = client.jobs.get(name).status
    if out is not None:
        client.jobs.download(name, download_path=str(out), all=True)
        console.print(f"outputs and logs: {out}", soft_wrap=True)
    why = f": {failure}" if failure else ""
    console.print(f"{name}: {status}{why}", soft_wrap=True, markup=False)
    return bool(status == ENDED_WELL)


def _data_versions(pipeline: Pipeline, client: Any, *, latest: bool) -> dict[str, str]:
    """Input -> `azureml:NAME:VERSION`, for inputs that are data of the workspace; with their latest versions if asked for."""
    found = {}
    for name, port in pipeline.inputs.items():
        given = pipeline.value["inputs"][name]
        path = str(given.get("path", "")) if port.is_path and isinstance(given, Mapping) else ""
        if not path.startswith(ASSET) or "/" in path:
            continue
        asset, _, _ = path.removeprefix(ASSET).partition("@" if "@" in path else ":")
        if latest or "@" in path:
            path = f"{ASSET}{asset}:{client.data.get(asset, label='latest').version}"
        found[name] = path
    return found


def _is_same(job: Any, experiment: str, versions: str) -> bool:
    """Whether a job was submitted with these data; one that failed does not count, so that it is tried again."""
    is_over = job.status in ("Failed", "Canceled")
    return job.experiment_name == experiment and (job.tags or {}).get(DATA_TAG) == versions and not is_over
