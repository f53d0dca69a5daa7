"""Versions and lock in an Azure ML workspace, through azure-ai-ml and azure-storage-blob.

Azure ML's MLflow server registers no folders without an MLmodel, and deletes no registered models. So versions are custom
models, and the lock is a lease on a blob of the workspace's default datastore.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.words import one_line
from ppe_yolo.gate.lock import LEASE
from ppe_yolo.gate.models import Version

SCHEME = "azureml://"
_WORKSPACE = re.compile(
    r"/subscriptions/(?P<subscription_id>[^/]+)/resourceGroups/(?P<resource_group_name>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?]+)",
    re.IGNORECASE,
)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")  # bicep-types-az, Microsoft.MachineLearningServices/workspaces/models


class AzureModels:
    """Versions of a registered model of a workspace.

    Args:
        client: An azure-ai-ml MLClient.
        name: Name of the model.

    Raises:
        UserError: Azure ML does not allow the name.
    """

    def __init__(self, client: Any, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UserError(setting="name", expected="letters, digits, - and _, as Azure ML requires", got=repr(name))
        self._client = client
        self._name = name

    def versions(self) -> list[Version]:
        """See `Models`. Versions that are no numbers were registered by other means."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = list(self._client.models.list(name=self._name))
        except ResourceNotFoundError:
            return []
        return [Version(int(m.version), dict(m.tags or {})) for m in found if str(m.version).isdecimal()]

    def create(self, run_id: str, folder: str, tags: Mapping[str, str]) -> Version:
        """See `Models`. In Azure ML the id of a run is the name of its job."""
        from azure.ai.ml.entities import Model

        path = f"azureml://jobs/{run_id}/outputs/artifacts/paths/{folder}"
        model = Model(name=self._name, path=path, type="custom_model", tags=dict(tags))
        created = self._client.models.create_or_update(model)
        return Version(int(created.version), dict(created.tags or {}))

    def set_tag(self, number: int, key: str, value: str) -> None:
        """See `Models`."""
        model = self._client.models.get(self._name, version=str(number))
        model.tags = {**(model.tags or {}), key: value}
        self._client.models.create_or_update(model)


class BlobLease:
    """A lease on a blob; see `ppe_yolo.gate.lock.Lease`. The storage service ends it after LEASE seconds without a renewal.

    Args:
        blob: An azure-storage-blob BlobClient.
    """

    def __init__(self, blob: Any) -> None:
        self._blob = blob
        self._lease: Any = None
        self.where = f"{blob.container_name}/{blob.blob_name}"

    def acquire(self) -> bool:
        """See `Lease`."""
        from azure.core.exceptions import HttpResponseError

        try:
            if not self._blob.exists():
                self._blob.upload_blob(b"", overwrite=False)
        except HttpResponseError as error:
            if error.status_code not in (409, 412):  # another promotion has just created it
                raise
        try:
            self._lease = self._blob.acquire_lease(lease_duration=LEASE)
        except HttpResponseError as error:
            if error.status_code == 409:
                return False
            raise
        return True

    def renew(self) -> bool:
        """See `Lease`."""
        from azure.core.exceptions import HttpResponseError

        try:
            self._lease.renew()
        except HttpResponseError as error:
            if error.status_code in (404, 409, 412):
                return False
            raise
        return True

    def release(self) -> None:
        """See `Lease`."""
        from azure.core.exceptions import HttpResponseError

        try:
            self._lease.release()
        except HttpResponseError as error:
            if error.status_code not in (404, 409, 412):  # it has expired
                raise


def connect(uri: str, name: str) -> tuple[AzureModels, BlobLease]:
    """Connects to the workspace of an `azureml://` tracking URI with DefaultAzureCredential.

    Args:
        uri: The tracking URI, which a job of Azure ML has in MLFLOW_TRACKING_URI.
        name: Name of the model.

    Raises:
        UserError: azure-ai-ml is not installed, the URI names no workspace, or Azure rejects the request.
    """
    workspace = _WORKSPACE.search(uri)
    if workspace is None:
        raise UserError(
            setting="registry",
            expected="azureml://REGION.api.azureml.ms/mlflow/v1.0/subscriptions/.../workspaces/NAME",
            got=uri,
            hint="az ml workspace show --query mlflow_tracking_uri",
        )
    try:
        from azure.ai.ml import MLClient
        from azure.identity import DefaultAzureCredential
        from azure.storage.blob import BlobClient
    except ImportError as error:
        raise UserError(
            setting="registry", expected="azure-ai-ml", got=f"none ({error})", hint="pip install 'ppe-yolo[azureml]'"
        ) from error
    credential = DefaultAzureCredential()
    client = MLClient(credential, **workspace.groupdict())
    models = AzureModels(client, name)
    with azure_errors():
        store = client.datastores.get_default()
    blob = BlobClient(
        account_url=f"https://{store.account_name}.blob.{store.endpoint}",
        container_name=store.container_name,
        blob_name=f"ppe-yolo/{name}.promotion.lock",
        credential=credential,
    )
    return models, BlobLease(blob)


@contextmanager
def azure_errors() -> Iterator[None]:
    """Turns Azure's errors into one line."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        yield
    except (AzureError, MlException) as error:
        raise UserError(f"Azure rejects the request ({one_line(error, 400)})", setting="registry") from error
