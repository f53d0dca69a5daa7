"""`ppe-yolo azureml submit` and `follow`: submits a pipeline to Azure ML, waits for its end and downloads its outputs."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ppe_yolo.azure.lint.official import is_installed
from ppe_yolo.azure.yaml.pipeline import ASSET, Pipeline
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.words import one_line

# key in config.json (which the studio offers for download) -> environment variable
WORKSPACE_VARIABLES = {
    "subscription_id": "AZUREML_SUBSCRIPTION_ID",
    "resource_group": "AZUREML_RESOURCE_GROUP",
    "workspace_name": "AZUREML_WORKSPACE_NAME",
}
DATA_TAG = "data_versions"
TRIGGER_TAG = "trigger"
COMPLETED = "Completed"
ENDED = (COMPLETED, "Failed", "Canceled")  # every other status is one of a job that may still change
SECONDS_BETWEEN_LOOKS = 30
RECENT_JOBS = 1000  # the newest jobs of the workspace, among which earlier jobs with the same data are searched
MAX_FAILED_ATTEMPTS = 3  # with --only-new-data: a schedule must not repeat a training that always fails


class Jobs(Protocol):
    """The operations on jobs of azure-ai-ml's MLClient that are used here."""

    def create_or_update(self, job: Any) -> Any: ...  # noqa: D102
    def stream(self, name: str) -> None: ...  # noqa: D102
    def get(self, name: str) -> Any: ...  # noqa: D102
    def download(self, name: str, *, download_path: str, output_name: str | None, all: bool) -> None: ...  # noqa: D102
    def list(self) -> Iterable[Any]: ...  # noqa: D102


class DataAssets(Protocol):
    """The operations on data assets of azure-ai-ml's MLClient that are used here."""

    def get(self, name: str, *, label: str) -> Any: ...  # noqa: D102


class Client(Protocol):
    """An azure-ai-ml MLClient, or a stand-in for it."""

    @property
    def jobs(self) -> Jobs: ...  # noqa: D102
    @property
    def data(self) -> DataAssets: ...  # noqa: D102


@dataclass(frozen=True)
class Workspace:
    """The address of an Azure ML workspace."""

    subscription_id: str
    resource_group: str
    workspace_name: str


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Result of `submit`.

    Attributes:
        job: Name of the new job, or of the latest earlier job with the same data.
        is_new: Whether a job was submitted.
        failed_attempts: Number of earlier jobs with the same data, if they all failed; else 0.
        studio_url: Page of the new job, else None.
        data_versions: Data asset of each input, as `azureml:NAME:VERSION`.
    """

    job: str
    is_new: bool
    failed_attempts: int
    studio_url: str | None
    data_versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class FollowedJob:
    """The status of a job that was followed, and for a failed job Azure's message."""

    job: str
    status: str
    failure: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the job completed."""
        return self.status == COMPLETED

    @property
    def ended(self) -> bool:
        """Whether the job ended, in whatever way."""
        return self.status in ENDED


def find_workspace(config: Path | None, variables: Mapping[str, str]) -> Workspace:
    """Reads the workspace from a config file if one is given, else from environment variables.

    Raises:
        UserError: The file cannot be read, or a value is missing.
    """
    if config is not None:
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot be read ({error})", setting="workspace", file=config, expected="the config.json of a workspace"
            ) from error
        values = values if isinstance(values, dict) else {}
        where = f"in {config}"
    else:
        values = {key: variables.get(variable) for key, variable in WORKSPACE_VARIABLES.items()}
        where = f"in {', '.join(WORKSPACE_VARIABLES.values())}"
    missing = [key for key in WORKSPACE_VARIABLES if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        raise UserError(
            item="submit",
            expected=f"{', '.join(WORKSPACE_VARIABLES)} {where}",
            got=f"no {', '.join(missing)}",
            hint="give --workspace config.json (the studio offers it for download) or set the variables",
        )
    return Workspace(**{key: values[key] for key in WORKSPACE_VARIABLES})


def connect(workspace: Workspace) -> Client:
    """Connects with DefaultAzureCredential: environment variables, workload or managed identity, or `az login`.

    Raises:
        UserError: azure-ai-ml is not installed.
    """
    if not is_installed():
        raise UserError(item="submit", expected="azure-ai-ml", got="none", hint="pip install 'ppe-yolo[azureml]'")
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    client: Client = MLClient(
        DefaultAzureCredential(), workspace.subscription_id, workspace.resource_group, workspace.workspace_name
    )
    return client


def submit(
    pipeline: Pipeline, settings: Mapping[str, Any], client: Client, *, only_new_data: bool = False, trigger: str | None = None
) -> Submission:
    """Submits a pipeline.

    Args:
        pipeline: A pipeline that passes lint.
        settings: See `apply_settings`; azure-ai-ml reads the file itself and needs them again.
        client: The client.
        only_new_data: Use the latest version of all data, and submit only if no job of this experiment has used it yet.
            Failed jobs are repeated until there are MAX_FAILED_ATTEMPTS of them; cancelled jobs are not repeated.
        trigger: What started this, see `Trigger`. It starts one training per version of the data: repeated
            ones on the same data would not change the figures.

    Raises:
        UserError: Azure rejects the request.
    """
    with _azure_errors():
        from azure.ai.ml import load_job

        is_automatic = only_new_data or trigger is not None
        versions = _data_versions(pipeline, client, latest=is_automatic)
        experiment = str(pipeline.value.get("experiment_name") or pipeline.path.stem)
        tag = json.dumps(versions, sort_keys=True)
        failed = 0
        if is_automatic:
            recent = islice(client.jobs.list(), RECENT_JOBS)
            earlier = [j for j in recent if _has_data(j, experiment, tag)]
            if trigger is not None:
                earlier = [j for j in earlier if j.tags.get(TRIGGER_TAG) == trigger]
            failed = len(earlier) if all(j.status == "Failed" for j in earlier) else 0
            if earlier and (failed == 0 or failed >= MAX_FAILED_ATTEMPTS):
                return Submission(
                    job=earlier[0].name, is_new=False, failed_attempts=failed, studio_url=None, data_versions=versions
                )
        paths = {f"inputs.{name}.path": reference for name, reference in versions.items()}
        job = load_job(pipeline.path, params_override=[{k: v} for k, v in {**paths, **settings}.items()])
        job.tags = {**(job.tags or {}), DATA_TAG: tag, **({} if trigger is None else {TRIGGER_TAG: trigger})}
        submitted = client.jobs.create_or_update(job)
        return Submission(
            job=submitted.name,
            is_new=True,
            failed_attempts=failed,
            studio_url=submitted.studio_url,
            data_versions=versions,
        )


def follow(
    job: str, client: Client, out: Path | None, outputs: Sequence[str] = (), *, minutes: float | None = None
) -> FollowedJob:
    """Waits for a job to end and downloads its outputs, also if it failed.

    Args:
        job: Name of the job.
        client: The client, which prints the job's log if there is no limit.
        out: Folder for the outputs; None downloads nothing.
        outputs: Names of the outputs to download. If empty, downloads all outputs and logs, images and checkpoints included.
        minutes: Limit of the wait. A job that still runs then is left running, and nothing is downloaded.

    Raises:
        UserError: Azure rejects a request.
    """
    with _azure_errors():
        from azure.ai.ml.exceptions import JobException

        failure = None
        if minutes is None:
            try:
                client.jobs.stream(job)
            except JobException as error:
                failure = one_line(error, 400)
        else:
            limit = time.monotonic() + 60 * minutes
            while str(client.jobs.get(job).status) not in ENDED and time.monotonic() < limit:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        followed = FollowedJob(job=job, status=str(client.jobs.get(job).status), failure=failure)
        if out is not None and (followed.ended or minutes is None):
            for name in outputs or (None,):
                client.jobs.download(job, download_path=str(out), output_name=name, all=name is None)
        return followed


@contextmanager
def _azure_errors() -> Iterator[None]:
    """Turns Azure's errors into one line."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        yield
    except (AzureError, MlException) as error:
        raise UserError(f"Azure rejects the request ({one_line(error, 400)})", item="submit") from error


def _data_versions(pipeline: Pipeline, client: Client, *, latest: bool) -> dict[str, str]:
    """`azureml:NAME:VERSION` of each input that is a data asset of the workspace."""
    versions = {}
    for name, port in pipeline.inputs.items():
        given = pipeline.value["inputs"][name]
        path = str(given.get("path", "")) if port.is_path and isinstance(given, Mapping) else ""
        if not path.startswith(ASSET) or "/" in path:
            continue
        asset, _, _ = path.removeprefix(ASSET).partition("@" if "@" in path else ":")
        if latest or "@" in path:
            path = f"{ASSET}{asset}:{client.data.get(asset, label='latest').version}"
        versions[name] = path
    return versions


def _has_data(job: Any, experiment: str, versions: str) -> bool:
    """Whether a job of the experiment was submitted with these data. The list holds None for jobs that it cannot parse."""
    return job is not None and job.experiment_name == experiment and (job.tags or {}).get(DATA_TAG) == versions
