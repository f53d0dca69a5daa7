"""The MLflow run of a training: a real MLflow on an sqlite file, the real command line on drawn images."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppe_yolo.tracking import without_secrets
from ppe_yolo.training.mlflow_logger import RunLogger, flattened, tracking_loggers

RunCli = Callable[..., int]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable from outside, and none left behind: MLflow and ppe_yolo set some."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    yield
    import mlflow

    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests of this file, since its tables take MLflow seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def arguments(site: Path, run_dir: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config", "yolov3-tiny", "--data.root", str(site), "--run_dir", str(run_dir)),
        *("--data.input_size", "[64,96]", "--data.batch_size", "8", "--data.num_workers", "0", "--data.multi_scale", "null"),
        *("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu", *more),
    ]


def runs(client: MlflowClient, experiment: str) -> list[Run]:
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_fit_resumed_training_has_one_run(
    tiny_site: Path,
    tmp_path: Path,
    database: str,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gate")
    run_dir, client = tmp_path / "first", MlflowClient(database)
    assert run_cli(*arguments(tiny_site, run_dir)) == 0
    [run] = runs(client, "gate")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["data.batch_size"] == "8"
    assert run.data.params["model.optimizer.name"] == "adamw"
    assert run.data.params["trainer.max_epochs"] == "1"

    assert run_cli(*arguments(tiny_site, run_dir, "--trainer.max_epochs", "3", "--ckpt_path", "last")) == 0
    assert "MLflow keeps the parameters of the first start: trainer.max_epochs 1 (now 3)" in caplog.messages
    [run] = runs(client, "gate")
    assert (run.info.status, run.data.params["trainer.max_epochs"]) == ("FINISHED", "1")

    # every metric that TensorBoard has, step by step
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        if tag != "hp_metric":
            history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, tag))
            logged = events.Scalars(tag)
            assert [step for step, _ in history] == [e.step for e in logged], tag
            assert [value for _, value in history] == pytest.approx([e.value for e in logged], abs=1e-6), tag
    assert len(client.get_metric_history(run.info.run_id, "val/map_50")) == 3
    contract = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["ppe_yolo"]["contract"]
    assert f'"val_map_50": {round(run.data.metrics["best/map_50"], 6)}' in contract

    # the address is not written anywhere
    address = database.removeprefix("sqlite:///").encode()
    assert not [p for p in run_dir.rglob("*") if p.is_file() and address in p.read_bytes()]
    assert not (tmp_path / "mlruns").exists() and not (tmp_path / "mlflow.db").exists()

    # another training is another run
    assert run_cli(*arguments(tiny_site, tmp_path / "second", "--trainer.fast_dev_run", "false")) == 0
    assert sorted(r.info.run_name for r in runs(client, "gate")) == ["first", "second"]


def test_run_logger_inside_job_leaves_run_open(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(database)
    run = client.create_run(client.create_experiment("job"))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    (tmp_path / "mlflow_run_id").write_text("of an earlier job\n")
    [logger] = tracking_loggers(tmp_path, resume=True)
    logger.log_metrics({"val/map_50": 0.5}, 7)
    logger.log_metrics({"val/ap_50_каска": 0.25, "val/ap_50_a<b": 0.125}, 7)  # queued until the next call, or the end
    logger.log_parameters({"data.root": "somewhere"})
    logger.finalize("success")
    [run] = runs(client, "job")
    assert run.info.status == "RUNNING"
    assert run.data.metrics == {"val/map_50": 0.5, "val/ap_50_каска": 0.25, "val/ap_50_a_b": 0.125}
    assert run.data.params == {"data.root": "somewhere"}


def test_run_logger_interrupted_run_fails_and_reopens(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "interrupted")
    client, statuses = MlflowClient(database), []
    for status in ("failed", "success"):
        logger = RunLogger(database, tmp_path / "run", resume=True)
        logger.log_metrics({"train/loss": 1.0}, 1)
        [run] = runs(client, "interrupted")
        statuses.append(run.info.status)
        logger.finalize(status)
        [run] = runs(client, "interrupted")
        statuses.append(run.info.status)
    assert statuses == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
    fresh = RunLogger(database, tmp_path / "run", resume=False)
    assert fresh.run_id != run.info.run_id


def test_tracking_loggers_exist_in_first_process_only(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_loggers(tmp_path, resume=False) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert tracking_loggers(tmp_path, resume=False) == []


MISTAKES = {
    "sqlite:////proc/nowhere/all.db": "MLFLOW_TRACKING_URI: sqlite:////proc/nowhere/all.db: MLflow refuses",
    "http://ann:hunter2@127.0.0.1:9/?token=hunter2": "MLFLOW_TRACKING_URI: http://***@127.0.0.1:9/?***: MLflow refuses",
}


@pytest.mark.parametrize("uri", MISTAKES)
def test_fit_unreachable_mlflow_is_refused_in_one_line(
    tiny_site: Path,
    tmp_path: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    uri: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run_cli(*arguments(tiny_site, tmp_path / "run")) == 2
    captured = capsys.readouterr()
    *_, line = captured.err.strip().splitlines()
    assert line.startswith("ppe-yolo: error: MLFLOW_TRACKING_URI: ")
    assert MISTAKES[uri] in line
    assert "hunter2" not in captured.out + captured.err + caplog.text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_fit_without_mlflow_names_extra(
    tiny_site: Path, tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    assert run_cli(*arguments(tiny_site, tmp_path / "run")) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ppe-yolo: error: MLFLOW_TRACKING_URI: needs MLflow (")
    assert line.endswith("pip install 'ppe-yolo[registry]'")


def test_flattened_names_parameters_like_options() -> None:
    config = {"seed_everything": 0, "model": {"loss": {"box": "ciou"}, "weights": None}, "data": {"input_size": [64, 96]}}
    assert flattened(config) == {"seed_everything": 0, "model.loss.box": "ciou", "data.input_size": [64, 96]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:hun@ter2@host:1/a", "https://***@host:1/a"),
        ("az://c/d?sv=1&sig=abc is gone", "az://c/d?*** is gone"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
        ("mail a@b.c to https://host/@here", "mail a@b.c to https://host/@here"),
    ],
)
def test_without_secrets_masks_passwords_and_queries(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
