"""The versions of a detector and which of them is the champion, kept by MLflow: an sqlite file, a server, or Azure ML.

Tags are the source of truth, since Azure ML is not known to have aliases. A version has `stage` (champion, challenger,
rejected or retired) and, once promoted, `promotion`, a number that rises. The champion is the version with `stage` champion
and the highest `promotion`, so a gate that dies half way leaves either the old champion or the new one, never none.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.tracking import SQLITE, experiment_id, explained, import_mlflow, sqlite_file, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 600.0  # seconds for another gate to finish
CHAMPION, CHALLENGER, REJECTED, RETIRED = "champion", "challenger", "rejected", "retired"


@dataclass(frozen=True)
class Version:
    """A version of the model: its number and tags."""

    number: int
    tags: Mapping[str, str]

    @property
    def promotion(self) -> int:
        """How many promotions there had been when it became champion, itself included; 0: it never was."""
        return int(self.tags.get("promotion", 0))


class Registry:
    """The versions of one model.

    Args:
        uri: `sqlite:///FILE`, or what MLFLOW_TRACKING_URI holds on Azure ML.
        name: Of the registered model.

    Raises:
        UserError: MLflow is not installed, or the registry cannot be reached.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._errors = import_mlflow("--registry")
        self.uri, self.name = uri, name

    @cached_property
    def _client(self) -> "MlflowClient":
        """Made within the lock, since it makes the tables of a new sqlite file."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def sqlite_file(self) -> Path | None:
        """The file, or None for a server."""
        return sqlite_file(self.uri)

    @contextmanager
    def locked(self, console: Console) -> Iterator[None]:
        """Only one gate at a time gets in; the others wait.

        For an sqlite file it is a lock of the operating system on FILE.lock, which a gate that dies lets go of. For a server
        it is a registered model NAME.gate, since of two that create one name a server lets one through; a gate that dies
        leaves it there, and the message says what to remove.

        Raises:
            UserError: Another gate holds it for too long, or the registry cannot be reached.
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
                console.print(f"waiting for another gate, which holds {path}", soft_wrap=True)
                lock.acquire(timeout=WAIT)
        except Timeout as error:
            raise UserError(f"{path}: another gate has held this lock for {WAIT:g} s: try again when it is done") from error
        except OSError as error:
            raise UserError(f"--registry: {path} cannot be written ({error.strerror or error})") from error
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
                    f"--registry: another gate ({held_by}) is at work on {self.name}: try again when it is done; if it died, "
                    f"delete the registered model {gate}"
                )
        try:
            yield
        finally:
            with self._explained():
                self._client.delete_registered_model(gate)

    def versions(self) -> list[Version]:
        """All of them, the oldest first; empty where the model is not registered yet."""
        found: list[Version] = []
        token = None
        with self._explained():
            while True:
                page = self._client.search_model_versions(f"name='{self.name}'", page_token=token)
                found += [Version(int(v.version), dict(v.tags)) for v in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda v: v.number)

    def champion(self) -> Version | None:
        """Whose `stage` is champion; of two, which a gate that died may leave, the one promoted last."""
        return max((v for v in self.versions() if v.tags.get("stage") == CHAMPION), key=lambda v: v.promotion, default=None)

    def register(self, files: Path, tags: Mapping[str, str]) -> Version:
        """Stores the files of a folder as artifacts of a run and makes a version of them, a challenger.

        Inside a job that MLflow already follows (MLFLOW_RUN_ID) they go to its run, else to a new one.
        """
        with self._explained():
            self._create_registered(self.name)
            given = os.environ.get("MLFLOW_RUN_ID")
            run = self._client.get_run(given) if given else self._client.create_run(self._experiment())
            run_id, folder = run.info.run_id, f"promotion/{uuid.uuid4().hex}"  # a job may promote more than once
            self._client.log_artifacts(run_id, str(files), folder)
            if not given:
                self._client.set_terminated(run_id)
            made = self._client.create_model_version(
                self.name,
                source=f"{run.info.artifact_uri}/{folder}",
                run_id=run_id,
                tags={**tags, "stage": CHALLENGER, "artifacts": folder, "run_id": run_id},
            )
        return Version(int(made.version), dict(made.tags))

    def files(self, version: Version, folder: Path) -> Path:
        """Fetches what `register` stored of a version."""
        try:
            run_id, artifacts = version.tags["run_id"], version.tags["artifacts"]
        except KeyError as error:
            raise UserError(
                f"{self.name} {version.number}: expected the tags of `ppe-yolo promote`, got no {error}: it was registered "
                "by other means"
            ) from error
        with self._explained():
            return Path(self._client.download_artifacts(run_id, artifacts, str(folder)))

    def crown(self, version: Version) -> None:
        """Makes a version the champion and retires the one before. To be called within `locked`."""
        latest = max((v.promotion for v in self.versions()), default=0)
        self._tag(version.number, "promotion", str(latest + 1))
        self._tag(version.number, "stage", CHAMPION)  # from here on it is
        for other in self.versions():
            if other.tags.get("stage") == CHAMPION and other.number != version.number:
                self._tag(other.number, "stage", RETIRED)

    def reject(self, version: Version) -> None:
        """The version is not to be used."""
        self._tag(version.number, "stage", REJECTED)

    def roll_back(self) -> tuple[Version, Version]:
        """Rejects the champion and gives its place back to the one before. To be called within `locked`.

        Returns:
            The old and the new champion.

        Raises:
            UserError: There is no champion, or none before it.
        """
        champion = self.champion()
        if champion is None:
            raise UserError(f"{self.name}: expected a champion to roll back, got none in {without_secrets(self.uri)}")
        stages = (RETIRED, CHAMPION)  # a gate that died may have left the one before as champion
        before = [v for v in self.versions() if v.tags.get("stage") in stages and 0 < v.promotion < champion.promotion]
        if not before:
            raise UserError(
                f"{self.name}: expected a champion before version {champion.number}, got none: promote another model"
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
        """Whether it was not there before."""
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
    """The option, else MLFLOW_TRACKING_URI.

    Raises:
        UserError: Neither, or an sqlite address without a file.
    """
    uri: Any = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError("--registry: expected sqlite:///FILE or an address of MLflow, got neither it nor MLFLOW_TRACKING_URI")
    if "://" not in uri or (uri.startswith("sqlite:") and not uri.removeprefix(SQLITE).strip("/")):
        raise UserError(f"--registry: expected sqlite:///FILE or an address such as https://host, got {without_secrets(uri)!r}")
    return str(uri)
