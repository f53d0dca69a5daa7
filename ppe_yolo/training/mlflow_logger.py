"""The MLflow run of a training, in addition to TensorBoard: parameters, metrics, and the metric of the best checkpoint."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ppe_yolo.core.files import write_text
from ppe_yolo.tracking import experiment_id, explained, import_mlflow, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

VARIABLE = "MLFLOW_TRACKING_URI"
RUN_FILE = "mlflow_run_id"  # in the run folder
EXPERIMENT = "ppe-yolo"
SEND_EVERY = 5.0  # seconds; metrics are sent in batches, since each call may be slow
RETRY_AFTER = 60.0  # seconds after a failed call
BATCH = 1000  # metrics that MLflow accepts per call
LONGEST = 500  # characters of a parameter's value
_NOT_ALLOWED = re.compile(r"[^/\w.\- ]")  # in names of metrics and parameters


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, but robust to a failing server, and with one run per run folder.

    A server that fails after the start does not stop the training; metrics wait until it is back.

    Inside a job that MLflow already follows (MLFLOW_RUN_ID), metrics go to the job's run, which stays open for the job to end.
    Otherwise the first start creates a run in the experiment MLFLOW_EXPERIMENT_NAME, and a resumed training continues it.

    Args:
        uri: The value of MLFLOW_TRACKING_URI.
        run_dir: The run folder, which stores the run's id.
        resume: Continue the run that is stored there.

    Raises:
        UserError: MLflow is not installed, or cannot be reached.
    """

    def __init__(self, uri: str, run_dir: Path, *, resume: bool) -> None:
        # the training waits for each call, so MLflow's default of 7 tries of 120 s is too patient
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self._errors = import_mlflow(VARIABLE)
        self._run_file = run_dir / RUN_FILE
        given = os.environ.get("MLFLOW_RUN_ID")
        remembered = self._run_file.read_text().strip() if resume and self._run_file.is_file() else None
        self._belongs_to_job = given is not None
        self._queue: list[Metric] = []
        self._next_call = 0.0
        with explained(VARIABLE, uri, self._errors):
            super().__init__(
                os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT), run_dir.name, uri, run_id=given or remembered
            )

    @property
    def experiment(self) -> "MlflowClient":
        """MLflow's client; the first call opens the run."""
        if not self._initialized:
            with explained(VARIABLE, self._tracking_uri, self._errors):
                if self._run_id is None:
                    self._experiment_id = experiment_id(self._mlflow_client, self._tracking_uri, self._experiment_name)
                _ = super().experiment
                if not self._belongs_to_job:
                    self._mlflow_client.update_run(str(self._run_id), "RUNNING")  # an interruption closed it
            write_text(self._run_file, f"{self._run_id}\n")
        return self._mlflow_client

    @property
    def run_id(self) -> str:
        """Id of the run; the first call opens it."""
        _ = self.experiment
        return str(self._run_id)

    @rank_zero_only
    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Records new parameters, and logs those that changed since the first start: MLflow keeps the first value."""
        from mlflow.entities import Param

        texts = {_NOT_ALLOWED.sub("_", key): str(value)[:LONGEST] for key, value in parameters.items()}
        with explained(VARIABLE, self._tracking_uri, self._errors):
            known = self.experiment.get_run(self.run_id).data.params
            new = [Param(key, text) for key, text in texts.items() if key not in known]
            self.experiment.log_batch(self.run_id, params=new)
        changed = [f"{key} {known[key]} (now {text})" for key, text in texts.items() if known.get(key, text) != text]
        if changed:
            rank_zero_info(f"MLflow keeps the parameters of the first start: {', '.join(changed)}")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Queues metrics, and sends the queue every few seconds."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._queue += [Metric(_NOT_ALLOWED.sub("_", k), float(v), now, step or 0) for k, v in metrics.items()]
        if time.monotonic() >= self._next_call:
            self._send()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Logs the metric of the best checkpoint."""
        if checkpoint_callback.monitor and checkpoint_callback.best_model_score is not None:
            name = checkpoint_callback.monitor.rpartition("/")[2]
            score = float(checkpoint_callback.best_model_score)
            self.log_metrics({f"best/{name}": score}, checkpoint_callback._last_global_step_saved)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Sends the rest of the queue and closes the run, unless it belongs to a job."""
        if not self._initialized:
            return
        self._send()
        if self._queue:
            rank_zero_warn(f"{len(self._queue)} metrics could not be sent to MLflow; TensorBoard has all of them")
        elif not self._belongs_to_job:
            try:
                self.experiment.set_terminated(self.run_id, "FAILED" if status == "failed" else "FINISHED")
            except self._errors as error:
                rank_zero_warn(f"the MLflow run could not be closed ({reason_of(error)})")

    def _send(self) -> None:
        try:
            while self._queue:
                self.experiment.log_batch(self.run_id, metrics=self._queue[:BATCH])
                del self._queue[:BATCH]
            self._next_call = time.monotonic() + SEND_EVERY
        except self._errors as error:
            rank_zero_warn(f"MLflow accepts no metrics ({reason_of(error)}): {len(self._queue)} are queued")
            self._next_call = time.monotonic() + RETRY_AFTER


class RecordConfig(SaveConfigCallback):
    """Writes config.yaml, and logs the same settings to MLflow as parameters."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Logs the parameters; Lightning calls this in the first process only."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_parameters(flattened(yaml.safe_load(self.parser.dump(self.config))))


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}, c: [2, 3]} -> {"a.b": 1, "c": [2, 3]}, named like options; values of None are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def tracking_loggers(run_dir: Path, *, resume: bool) -> list[RunLogger]:
    """One logger if MLFLOW_TRACKING_URI is set and this is the first process, else none."""
    uri = os.environ.get(VARIABLE)
    if not uri:
        return []
    made = rank_zero_only(RunLogger)(uri, run_dir, resume=resume)
    return [made] if made is not None else []
