"""The model registry: the versions of a detector and its champion, in MLflow (an sqlite file, a server, or Azure ML).

Tags are the source of truth, since Azure ML may not support aliases. A version has a `stage` (champion, challenger, rejected
or retired) and, once promoted, a `promotion`, a number that increases. The champion is the version with `stage` champion and
the highest `promotion`. So a promotion that dies half-way leaves the old champion or the new one, never none.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ppe_yolo.core.errors import UserError
from ppe_yolo.tracking import SQLITE, experiment_id, explained, import_mlflow, sqlite_file, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 600.0  # seconds for another promotion to finish
CHAMPION, CHALLENGER, REJECTED, RETIRED = "champion", "challenger", "rejected", "retired"


@dataclass(frozen=True)
class Version:
    """A version of the model.

    Attributes:
        number: Counts from 1.
        tags: See the module.
    """

    number: int
    tags: Mapping[str, str]

    @property
    def promotion(self) -> int:
        """Number of promotions when it became champion, including its own; 0 if it never did."""
        return int(self.tags.get("promotion", 0))


class Registry:
    """The versions of one model.

    Args:
        uri: `sqlite:///FILE`, or an address of MLflow.
        name: Name of the registered model.

    Raises:
        UserError: MLflow is not installed, or the registry cannot be reached.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._errors = import_mlflow("--registry")
        self.uri, self.name = uri, name

    @cached_property
    def _client(self) -> "MlflowClient":
        """Created inside the lock, since it creates the tables of a new sqlite file."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of an sqlite registry; None for a server."""
        return sqlite_file(self.uri)

    @contextmanager
    def locked(self, on_wait: Callable[[str], None] = lambda lock: None) -> Iterator[None]:
        """Lets one promotion in at a time; the others wait.

        For an sqlite file this is a lock of the operating system on FILE.lock, which is released if the process dies. For a
        server it is a registered model NAME.gate, since a server creates a name only once; a process that dies leaves it
        there, and the message says what to delete.

        Args:
            on_wait: Called with the lock file before waiting for it.

        Raises:
            UserError: Another promotion holds the lock for too long, or the registry cannot be reached.
        """
        if self.sqlite_file is None:
            with self._locked_by_name():
                yield
            return
        from filelock import FileLock, Timeout

        path = self.sqlite_file.with_name(self.sqlite_file.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait(str(path))
                lock.acquire(timeout=WAIT)
        except Timeout as error:
            raise UserError(
                f"another promotion has held this lock for {WAIT:g} s", file=path, hint="try again when it is done"
            ) from error
        except OSError as error:
            raise UserError(setting="registry", file=path, problem=f"cannot be written ({error.strerror or error})") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _locked_by_name(self) -> Iterator[None]:
        gate, holder = f"{self.name}.gate", f"{os.uname().nodename} {os.getpid()} {datetime.now(UTC).isoformat()}"
        with self._explained():
            if not self._create_registered(gate, holder):
                held_by = self._client.get_registered_model(gate).description
                raise UserError(
                    setting="registry",
                    problem=f"another promotion ({held_by}) of {self.name} is running",
                    hint=f"try again when it is done; if it died, delete the registered model {gate}",
                )
        try:
            yield
        finally:
            with self._explained():
                self._client.delete_registered_model(gate)

    def versions(self) -> list[Version]:
        """All versions, the oldest first; empty if the model is not registered yet."""
        versions: list[Version] = []
        token = None
        with self._explained():
            while True:
                page = self._client.search_model_versions(f"name='{self.name}'", page_token=token)
                versions += [Version(int(v.version), dict(v.tags)) for v in page]
                token = page.token
                if not token:
                    return sorted(versions, key=lambda v: v.number)

    def champion(self) -> Version | None:
        """The champion; of two, which a promotion that died may leave, the one promoted last."""
        return max((v for v in self.versions() if v.tags.get("stage") == CHAMPION), key=lambda v: v.promotion, default=None)

    def register(self, files: Path, tags: Mapping[str, str]) -> Version:
        """Stores the files of a folder as artifacts of a run, and registers them as a version, a challenger.

        Inside a job that MLflow already follows (MLFLOW_RUN_ID), the files go to its run, otherwise to a new one.
        """
        with self._explained():
            self._create_registered(self.name)
            given = os.environ.get("MLFLOW_RUN_ID")
            run = self._client.get_run(given) if given else self._client.create_run(self._experiment())
            run_id, folder = run.info.run_id, f"promotion/{uuid.uuid4().hex}"  # a job may promote more than once
            self._client.log_artifacts(run_id, str(files), folder)
            if not given:
                self._client.set_terminated(run_id)
            created = self._client.create_model_version(
                self.name,
                source=f"{run.info.artifact_uri}/{folder}",
                run_id=run_id,
                tags={**tags, "stage": CHALLENGER, "artifacts": folder, "run_id": run_id},
            )
        return Version(int(created.version), dict(created.tags))

    def files(self, version: Version, folder: Path) -> Path:
        """Downloads the files of a version.

        Raises:
            UserError: `register` did not create the version.
        """
        try:
            run_id, artifacts = version.tags["run_id"], version.tags["artifacts"]
        except KeyError as error:
            raise UserError(
                f"{self.name} version {version.number}",
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
            raise UserError(self.name, expected="a champion to roll back", got=f"none in {without_secrets(self.uri)}")
        stages = (RETIRED, CHAMPION)  # a promotion that died may have left the one before as champion
        before = [v for v in self.versions() if v.tags.get("stage") in stages and 0 < v.promotion < champion.promotion]
        if not before:
            raise UserError(
                self.name,
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
            self._client.set_model_version_tag(self.name, str(number), key, value)

    def _create_registered(self, name: str, description: str | None = None) -> bool:
        """Returns whether the name was free."""
        try:
            self._client.create_registered_model(name, description=description)
        except self._errors[0] as error:
            if getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS":
                return False
            raise
        return True

    def _experiment(self) -> str:
        return experiment_id(self._client, self.uri, f"promote-{self.name}")

    def _explained(self) -> AbstractContextManager[None]:
        return explained("--registry", self.uri, self._errors)


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
