"""A training's run in MLflow, beside its TensorBoard log: parameters, figures, and the figure of the best checkpoint."""

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
from ppe_yolo.tracking import experiment_id, explained, import_mlflow, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

VARIABLE = "MLFLOW_TRACKING_URI"
RUN_FILE = "mlflow_run_id"  # in the run folder
EXPERIMENT = "ppe-yolo"
SEND_EVERY = 5.0  # seconds; figures are sent together, since each call may travel far
TRY_AGAIN = 60.0  # seconds after a call that failed
BATCH = 1000  # figures that MLflow takes at once
LONGEST = 500  # characters of a parameter


class RunLogger(MLFlowLogger):
    """Lightning's logger, but a server that fails later costs no training, and there is one run a run folder.

    A run that a job has begun (MLFLOW_RUN_ID) is logged to and left open, since the job ends it. Otherwise the first start
    makes a run in the experiment MLFLOW_EXPERIMENT_NAME, and a start that goes on goes on with that run.

    Args:
        uri: What MLFLOW_TRACKING_URI holds.
        run_dir: The run folder, which remembers the run.
        go_on: Whether a run that it remembers is gone on with.

    Raises:
        UserError: MLflow is not installed, or it cannot be reached.
    """

    def __init__(self, uri: str, run_dir: Path, *, go_on: bool) -> None:
        # a training waits for each call: MLflow's own 7 tries of 120 s are for those who have nothing else to do
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self._errors = import_mlflow(VARIABLE)
        self._run_file = run_dir / RUN_FILE
        given = os.environ.get("MLFLOW_RUN_ID")
        remembered = self._run_file.read_text().strip() if go_on and self._run_file.is_file() else None
        self._belongs_to_job = given is not None
        self._waiting: list[Metric] = []
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
                    self._mlflow_client.update_run(str(self._run_id), "RUNNING")  # an interruption had closed it
            write_text(self._run_file, f"{self._run_id}\n")
        return self._mlflow_client

    @property
    def run_id(self) -> str:
        """Of the run, which is opened by the first call."""
        _ = self.experiment
        return str(self._run_id)

    @rank_zero_only
    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Records what is not recorded yet; what has changed since the first start is said, since MLflow keeps the first."""
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
        """Takes figures, and sends those that have gathered when it is time."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._waiting += [Metric(_NOT_ALLOWED.sub("_", k), float(v), now, step or 0) for k, v in metrics.items()]
        if time.monotonic() >= self._next_call:
            self._send()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Logs the best checkpoint's figure."""
        if checkpoint_callback.monitor and checkpoint_callback.best_model_score is not None:
            name = checkpoint_callback.monitor.rpartition("/")[2]
            score = float(checkpoint_callback.best_model_score)
            self.log_metrics({f"best/{name}": score}, checkpoint_callback._last_global_step_saved)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Sends what is left and closes the run, unless it is a job's."""
        if not self._initialized:
            return
        self._send()
        if self._waiting:
            rank_zero_warn(f"{len(self._waiting)} figures could not be sent to MLflow; TensorBoard has all of them")
        elif not self._belongs_to_job:
            try:
                self.experiment.set_terminated(self.run_id, "FAILED" if status == "failed" else "FINISHED")
            except self._errors as error:
                rank_zero_warn(f"MLflow's run could not be closed ({self._reason(error)})")

    def _send(self) -> None:
        try:
            while self._waiting:
                self.experiment.log_batch(self.run_id, metrics=self._waiting[:BATCH])
                del self._waiting[:BATCH]
            self._next_call = time.monotonic() + SEND_EVERY
        except self._errors as error:
            rank_zero_warn(f"MLflow took no figures ({self._reason(error)}): {len(self._waiting)} wait until it does")
            self._next_call = time.monotonic() + TRY_AGAIN

    @staticmethod
    def _reason(error: Exception) -> str:
        return without_secrets(" ".join(str(error).split()))[:200]


_NOT_ALLOWED = re.compile(r"[^/\w.\- ]")  # in names of figures and parameters


class RecordConfig(SaveConfigCallback):
    """Writes config.yaml, and hands the same to MLflow as parameters."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See Lightning's class, which calls this in the first process alone."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_parameters(flattened(yaml.safe_load(self.parser.dump(self.config))))


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}, c: [2, 3]} -> {"a.b": 1, "c": [2, 3]}, as options are named; without what is None."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def tracking_loggers(run_dir: Path, *, go_on: bool) -> list[RunLogger]:
    """One where MLFLOW_TRACKING_URI is set and this is the first process, else none."""
    uri = os.environ.get(VARIABLE)
    if not uri:
        return []
    made = rank_zero_only(RunLogger)(uri, run_dir, go_on=go_on)
    return [made] if made is not None else []
