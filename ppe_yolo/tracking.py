"""MLflow as training and registry use it: imported late, quiet, its errors in one line and without secrets."""

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
    """Imports MLflow, without telemetry and without tales of its database.

    Args:
        option: What asked for it, for the message.

    Returns:
        The kinds of exception that it raises; the first is its own.

    Raises:
        UserError: It is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password, if it holds one
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise UserError(f"{option}: needs MLflow ({error}): pip install 'ppe-yolo[registry]'") from error
    for chatty in ("mlflow.store.db.utils", "mlflow.store.model_registry", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowException, SQLAlchemyError, OSError  # the last where a file or its folder cannot be made


def without_secrets(text: str) -> str:
    """An address, or a message with addresses, without passwords and queries."""
    return re.sub(r"\?[^\s'\")]+", "?***", re.sub(r"(://)[^/\s]*@", r"\1***@", text))


@contextmanager
def explained(option: str, uri: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """MLflow's errors in one line.

    Raises:
        UserError: What it refuses, why, and by which option or variable it was asked.
    """
    try:
        yield
    except errors as error:
        reason = without_secrets(" ".join(str(error).split()))[:200]
        raise UserError(f"{option}: {without_secrets(uri)}: MLflow refuses ({reason})") from error


def sqlite_file(uri: str) -> Path | None:
    """The file, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """The experiment of that name, which is made if there is none."""
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    # of an sqlite file MLflow would put artifacts into the folder that a process happens to be started in
    file = sqlite_file(uri)
    beside = None if file is None else file.with_name(f"{file.name}.artifacts").resolve().as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=beside))
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, uri, name)  # another process made it just now
