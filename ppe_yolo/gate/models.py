"""The versions of a registered model: what the registry needs of a store, and MLflow's store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Version:
    """A version of the model.

    Attributes:
        number: Counts from 1.
        tags: See `ppe_yolo.gate.registry`.
    """

    number: int
    tags: Mapping[str, str]

    @property
    def promotion(self) -> int:
        """Number of promotions when it became champion, including its own; 0 if it never did."""
        return int(self.tags.get("promotion", 0))


class Models(Protocol):
    """The versions of one registered model."""

    def versions(self) -> list[Version]:
        """All versions in any order; empty if the model is not registered yet."""

    def create(self, run_id: str, folder: str, tags: Mapping[str, str]) -> Version:
        """Registers the artifacts of a run in a folder as a new version."""

    def set_tag(self, number: int, key: str, value: str) -> None:
        """Sets a tag of a version."""


class MlflowModels:
    """Versions in an sqlite file or on an MLflow server."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client = client
        self._name = name

    def versions(self) -> list[Version]:
        """See `Models`."""
        versions: list[Version] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name='{self._name}'", page_token=token)
            versions += [Version(int(v.version), dict(v.tags)) for v in page]
            token = page.token
            if not token:
                return versions

    def create(self, run_id: str, folder: str, tags: Mapping[str, str]) -> Version:
        """See `Models`."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{folder}"
        created = self._client.create_model_version(self._name, source=source, run_id=run_id, tags=dict(tags))
        return Version(int(created.version), dict(created.tags))

    def set_tag(self, number: int, key: str, value: str) -> None:
        """See `Models`."""
        self._client.set_model_version_tag(self._name, str(number), key, value)
