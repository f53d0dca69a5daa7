"""The model registry: the versions of a detector and its champion, in MLflow (an sqlite file, a server, or Azure ML).

In an Azure ML workspace the versions are custom models, see `ppe_yolo.gate.azure_models`.

Tags are the source of truth, since Azure ML may not support aliases. A version has a `stage` (champion, challenger, rejected
or retired) and, once promoted, a `promotion`, a number that increases. The champion is the version with `stage` champion and
the highest `promotion`. So a promotion that dies half-way leaves the old champion or the new one, never none.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ppe_yolo.core.errors import UserError
from ppe_yolo.gate.azure_models import SCHEME, azure_errors, connect
from ppe_yolo.gate.lock import Lease, NameLease, hold, hold_file
from ppe_yolo.gate.models import MlflowModels, Models, Version
from ppe_yolo.tracking import SQLITE, experiment_id, explained, import_mlflow, sqlite_file, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, REJECTED, RETIRED = "champion", "challenger", "rejected", "retired"


class Registry:
    """The versions of one model.

    Args:
        uri: `sqlite:///FILE`, an address of MLflow, or the tracking URI of an Azure ML workspace.
        name: Name of the registered model.
        models: The versions, by default those at `uri`.
        lease: The lock, by default one at `uri`.

    Raises:
        UserError: MLflow is not installed, or the registry cannot be reached.
    """

    def __init__(self, uri: str, name: str, *, models: Models | None = None, lease: Lease | None = None) -> None:
        self._errors = import_mlflow("--registry")
        self._explain_azure: Callable[[], AbstractContextManager[None]] = nullcontext
        self.uri, self.name = uri, name
        self._check: Callable[[], None] = lambda: None
        if uri.startswith(SCHEME) and models is None:
            models, lease = connect(uri, name)
            self._explain_azure = azure_errors
        self._given, self._lease = models, lease

    @cached_property
    def _client(self) -> "MlflowClient":
        """Created inside the lock, since it creates the tables of a new sqlite file."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def _models(self) -> Models:
        return self._given or MlflowModels(self._client, self.name)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of an sqlite registry; None for a server."""
        return sqlite_file(self.uri)

    @property
    def missing_file(self) -> Path | None:
        """The file of an sqlite registry that the first promotion will create; None for all others."""
        file = self.sqlite_file
        return None if file is None or file.exists() else file

    @contextmanager
    def locked(self, on_wait: Callable[[str], None] = lambda lock: None) -> Iterator[None]:
        """Lets one promotion in at a time; the others wait.

        The lock of a process that dies is released: for an sqlite file at once, since it is a lock of the operating system on
        FILE.lock; else after LEASE seconds, see `ppe_yolo.gate.lock`.

        Args:
            on_wait: Called with the lock before waiting for it.

        Raises:
            UserError: Another promotion holds the lock for too long, or the registry cannot be reached.
        """
        file = self.sqlite_file
        if self._lease is None and file is not None:
            with hold_file(file.with_name(file.name + ".lock"), on_wait):
                yield
            return
        with self._explained():
            lease = self._lease or NameLease(self._client, self.name)
        with hold(lease, on_wait, self._explained) as check:
            self._check = check
            try:
                yield
            finally:
                self._check = lambda: None

    def versions(self) -> list[Version]:
        """All versions, the oldest first; empty if the model is not registered yet."""
        with self._explained():
            return sorted(self._models.versions(), key=lambda v: v.number)

    def champion(self) -> Version | None:
        """The champion; of two, which a promotion that died may leave, the one promoted last."""
        return max((v for v in self.versions() if v.tags.get("stage") == CHAMPION), key=lambda v: v.promotion, default=None)

    def register(self, files: Path, tags: Mapping[str, str]) -> Version:
        """Stores the files of a folder as artifacts of a run, and registers them as a version, a challenger.

        Inside a job that MLflow already follows (MLFLOW_RUN_ID), the files go to its run, otherwise to a new one.
        """
        with self._explained():
            given = os.environ.get("MLFLOW_RUN_ID")
            run_id = given or self._client.create_run(self._experiment()).info.run_id
            folder = f"promotion/{uuid.uuid4().hex}"  # a job may promote more than once
            self._client.log_artifacts(run_id, str(files), folder)
            if not given:
                self._client.set_terminated(run_id)
            self._check()
            return self._models.create(run_id, folder, {**tags, "stage": CHALLENGER, "artifacts": folder, "run_id": run_id})

    def files(self, version: Version, folder: Path) -> Path:
        """Downloads the files of a version.

        Raises:
            UserError: `register` did not create the version.
        """
        try:
            run_id, artifacts = version.tags["run_id"], version.tags["artifacts"]
        except KeyError as error:
            raise UserError(
                item=f"{self.name} version {version.number}",
                expected="the tags of `ppe-yolo promote`",
                got=f"no {error}",
                hint="it was registered by other means",
            ) from error
        with self._explained():
            return Path(self._client.download_artifacts(run_id, artifacts, str(folder)))

    def promote(self, version: Version) -> None:
        """Makes a version the champion and retires the one before. Call it inside `locked`."""
        latest = max((v.promotion for v in self.versions()), default=0)
        self._tag(version.number, "promotion", str(latest + 1))
        self._tag(version.number, "stage", CHAMPION)  # from here on it is the champion
        for other in self.versions():
            if other.tags.get("stage") == CHAMPION and other.number != version.number:
                self._tag(other.number, "stage", RETIRED)

    def reject(self, version: Version) -> None:
        """Marks a version as rejected."""
        self._tag(version.number, "stage", REJECTED)

    def roll_back(self) -> tuple[Version, Version]:
        """Rejects the champion and makes the one before it champion again. Call it inside `locked`.

        Returns:
            The old and the new champion.

        Raises:
            UserError: There is no champion, or none before it.
        """
        champion = self.champion()
        if champion is None:
            raise UserError(item=self.name, expected="a champion to roll back", got=f"none in {without_secrets(self.uri)}")
        stages = (RETIRED, CHAMPION)  # a promotion that died may have left the one before as champion
        before = [v for v in self.versions() if v.tags.get("stage") in stages and 0 < v.promotion < champion.promotion]
        if not before:
            raise UserError(
                item=self.name,
                expected=f"a champion before version {champion.number}",
                got="none",
                hint="promote another model",
            )
        previous = max(before, key=lambda v: v.promotion)
        self._tag(previous.number, "stage", CHAMPION)  # the later promotion still counts
        self._tag(champion.number, "rolled_back", datetime.now(UTC).isoformat(timespec="seconds"))
        self._tag(champion.number, "stage", REJECTED)  # now the earlier one does
        return champion, previous

    def _tag(self, number: int, key: str, value: str) -> None:
        with self._explained():
            self._check()
            self._models.set_tag(number, key, value)

    def _experiment(self) -> str:
        return experiment_id(self._client, self.uri, f"promote-{self.name}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained("--registry", self.uri, self._errors), self._explain_azure():
            yield


def registry_uri(given: str | None) -> str:
    """The given address, or else MLFLOW_TRACKING_URI.

    Raises:
        UserError: There is neither, or an sqlite address without a file.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError(
            setting="registry",
            expected="sqlite:///FILE or an address of MLflow",
            got="neither it nor MLFLOW_TRACKING_URI",
        )
    if "://" not in uri or (uri.startswith("sqlite:") and not uri.removeprefix(SQLITE).strip("/")):
        raise UserError(
            setting="registry",
            expected="sqlite:///FILE or an address such as https://host",
            got=repr(without_secrets(uri)),
        )
    return uri
