"""MLflow runs for the steps of a local run. As on Azure ML, environment variables tell each step its own run."""

import os
from pathlib import Path
from typing import Any

from ppe_yolo.tracking import SQLITE, experiment_id, explained, import_mlflow

RUN_ID, URI = "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"


class MlflowRuns:
    """Runs in the MLflow that MLFLOW_TRACKING_URI names, or else in an SQLite file in the run folder.

    Args:
        folder: The run folder.
        experiment: Name of the experiment.

    Raises:
        UserError: MLflow is not installed, or rejects the address.
    """

    def __init__(self, folder: Path, experiment: str) -> None:
        self._errors = import_mlflow("run --local")
        from mlflow import MlflowClient

        self.uri = os.environ.get(URI) or f"{SQLITE}{folder / 'mlflow.db'}"
        with explained(URI, self.uri, self._errors):
            self._client: Any = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            self._experiment = experiment_id(self._client, self.uri, experiment)

    def start(self, job: str, run_id: str | None) -> str:
        """Creates a run for a step, or reopens the run of an interrupted one; returns its id."""
        with explained(URI, self.uri, self._errors):
            if run_id is None:
                return str(self._client.create_run(self._experiment, run_name=job).info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        return run_id

    def environment(self, run_id: str) -> dict[str, str]:
        """The variables that a step needs to log to its run."""
        return {URI: self.uri, RUN_ID: run_id}

    def end(self, run_id: str, succeeded: bool) -> None:
        """Marks a run as finished or failed."""
        with explained(URI, self.uri, self._errors):
            self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")
