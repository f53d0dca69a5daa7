"""MLflow for training and registry: imported lazily, quiet, and with one-line errors that show no secrets."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ppe_yolo.core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"


def import_mlflow(option: str) -> tuple[type[Exception], ...]:
    """Imports MLflow without telemetry and without the log lines of its database.

    Args:
        option: The option or variable that needs MLflow, for the message.

    Returns:
        The exceptions that MLflow raises; the first is its own.

    Raises:
        UserError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may contain a password
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise UserError(f"{option}: needs MLflow ({error})", hint="pip install 'ppe-yolo[registry]'") from error
    for chatty in ("mlflow.store.db.utils", "mlflow.store.model_registry", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowException, SQLAlchemyError, OSError  # OSError: the file or its folder cannot be created


def without_secrets(text: str) -> str:
    """Masks passwords and queries in an address, or in a message that contains addresses."""
    return re.sub(r"\?[^\s'\")]+", "?***", re.sub(r"(://)[^/\s]*@", r"\1***@", text))


def reason_of(error: Exception) -> str:
    """Returns the message of an error of MLflow as one short line without secrets."""
    return without_secrets(" ".join(str(error).split()))[:200]


@contextmanager
def explained(option: str, uri: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turns MLflow's errors into one line.

    Raises:
        UserError: Names the option or variable, the address and MLflow's reason.
    """
    try:
        yield
    except errors as error:
        raise UserError(f"{option}: {without_secrets(uri)}: MLflow refuses ({reason_of(error)})") from error


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite address; None for a server."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment with this name, which is created if necessary."""
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    # with an sqlite file, MLflow would put artifacts into the working directory of the process
    file = sqlite_file(uri)
    artifacts = None if file is None else file.with_name(f"{file.name}.artifacts").resolve().as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, uri, name)  # another process just created it
