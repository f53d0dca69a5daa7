"""Training against a real MLflow server on loopback; test_promote_cli.py promotes through one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from ppe_yolo.training import mlflow_logger
from ppe_yolo.training.mlflow_logger import RunLogger

RunCli = Callable[..., int]
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    yield
    mlflow.set_tracking_uri(None)


def test_fit_logs_to_server_without_leaking_password(
    mlflow_server: Any,
    tiny_site: Path,
    tmp_path: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri.replace("://", f"://ann:{SECRET}@"))
    command = [
        *("fit", "--config", "yolov3-tiny", "--data.root", tiny_site, "--run_dir", tmp_path / "run"),
        *("--data.input_size", "[64,96]", "--data.batch_size", "8", "--data.num_workers", "0", "--data.multi_scale", "null"),
        *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    ]
    for more in (("--trainer.max_epochs", "1"), ("--trainer.max_epochs", "2", "--ckpt_path", "last")):
        assert run_cli(*command, *more) == 0
    client = MlflowClient(mlflow_server.uri)
    [run] = client.search_runs([client.get_experiment_by_name("ppe-yolo").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        0,
        1,
        2,
        3,
    ]  # 14 images in batches of 8
    assert {"val/map_50", "best/map_50", "train/loss_box"} <= run.data.metrics.keys()
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err + caplog.text
    holding = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert not holding
    assert SECRET not in str(run.to_dictionary())


def test_run_logger_server_restart_loses_no_metrics(
    mlflow_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "dies")
    monkeypatch.setattr(mlflow_logger, "SEND_EVERY", 0.0)
    logger = RunLogger(mlflow_server.uri, tmp_path, resume=False)
    logger.log_metrics({"train/loss": 3.0}, 1)
    mlflow_server.kill()
    try:
        logger.log_metrics({"train/loss": 2.0}, 2)
        logger.log_metrics({"train/loss": 1.0}, 3)  # not even tried
    finally:
        mlflow_server.start()
    [warning] = [str(w.message) for w in recwarn if "MLflow accepts no metrics" in str(w.message)]
    assert "1 are queued" in warning
    logger.finalize("success")
    client = MlflowClient(mlflow_server.uri)
    [run] = client.search_runs([client.get_experiment_by_name("dies").experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (1, 3.0),
        (2, 2.0),
        (3, 1.0),
    ]
    assert run.info.status == "FINISHED"


def test_run_logger_dead_server_is_reported(mlflow_server: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    logger = RunLogger(mlflow_server.uri, tmp_path, resume=False)
    logger.log_metrics({"train/loss": 3.0}, 1)
    mlflow_server.kill()
    try:
        logger.log_metrics({"train/loss": 2.0, "val/map": 0.5}, 2)
        logger.finalize("failed")
    finally:
        mlflow_server.start()
    assert "2 metrics could not be sent to MLflow; TensorBoard has all of them" in [str(w.message) for w in recwarn]
