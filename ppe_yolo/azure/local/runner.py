"""`ppe-yolo azureml run --local`: runs the commands of a pipeline in order, on this machine."""

import shutil
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppe_yolo.azure.local.mlflow_runs import MlflowRuns
from ppe_yolo.azure.local.processes import launch_of, run_launch
from ppe_yolo.azure.local.state import lock_folder, read_record, rename_outputs
from ppe_yolo.azure.local.step import OUTPUTS, Step, StepBinder
from ppe_yolo.azure.yaml.pipeline import Pipeline, in_order
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json

LOG = Path("artifacts/user_logs/std_log.txt")  # the path that Azure ML uses
RECORD = "job.json"
TAIL = 40  # lines of the log of a failed step to show

Progress = Callable[[str], None]


@dataclass(frozen=True)
class StepFailure:
    """Why a step failed.

    Attributes:
        step: Name of the job.
        reason: Exit code or missing output.
        log: The step's log.
    """

    step: str
    reason: str
    log: Path

    def log_tail(self) -> list[str]:
        """The last lines of the log."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, TAIL)]


@dataclass(frozen=True)
class LocalRun:
    """Result of a local run: the folder of the pipeline's outputs, and the step that failed, if any."""

    outputs: Path
    failure: StepFailure | None


def run_local(pipeline: Pipeline, out: Path, progress: Progress) -> LocalRun:
    """Runs a pipeline that passes lint. Stops at the first step that fails.

    A step that already succeeded with the same inputs is skipped, unless its component says `is_deterministic: false`. An
    interrupted step resumes with the outputs that it left, as on Azure after a node was pre-empted. If the inputs have changed,
    the old outputs are moved aside first.

    Args:
        pipeline: The pipeline.
        out: Folder for outputs and logs: `named-outputs/` of the pipeline, and `<job>/named-outputs/`, `<job>/artifacts/`.
        progress: Receives one line of text per event.

    Raises:
        UserError: Input data is not on this machine, or another run is active in the folder.
    """
    out = out.resolve()
    if shutil.which("bash") is None:
        raise UserError("run --local: bash is not installed; Azure ML runs the commands in it")
    binder = StepBinder(pipeline, out)
    progress("compute and environment are ignored: everything runs here, in this Python")
    with lock_folder(out) as lock:
        runs = MlflowRuns(out, str(pipeline.value.get("experiment_name") or pipeline.path.stem))
        run_ids: dict[str, str] = {}
        for job in in_order(pipeline.jobs):
            step = binder.bind(job, run_ids)
            record = _begin(step, progress)
            run_ids[job.name] = record["id"]
            if record["status"] == "succeeded":
                continue
            if failure := _run(step, record, runs, lock.fileno(), progress):
                return LocalRun(out / OUTPUTS, failure)
    return LocalRun(out / OUTPUTS, None)


def _begin(step: Step, progress: Progress) -> dict[str, Any]:
    """The record of a step to start with: of the last execution if that is finished or can resume, else a new one."""
    name = step.job.name
    record = read_record(step.folder / RECORD)
    if record:
        changed = [k for k in {**record["given"], **step.given} if record["given"].get(k) != step.given.get(k)]
        is_done = not changed and record["status"] == "succeeded" and all(p.exists() for p in step.outputs.values())
        if is_done and step.component.value.get("is_deterministic", True):
            note = "" if record["code"] == step.code else "; the code has changed since, use another --out to run it again"
            progress(f"{name}: already done with the same inputs{note}")
            return record
        if not changed and not is_done:
            progress(f"{name}: resuming with the outputs of the interrupted run")
            return {**record, "status": "running"}
        reason = f"inputs changed ({', '.join(sorted(changed))})" if changed else "not deterministic"
        progress(f"{name}: {reason}, running again")
    for path in (*step.outputs.values(), step.folder / "artifacts"):
        if moved := rename_outputs(path):
            progress(f"  {path.name}: moved to {moved}")
    return {"id": uuid.uuid4().hex, "status": "running", "given": dict(step.given)}


def _run(step: Step, record: dict[str, Any], runs: MlflowRuns, lock: int, progress: Progress) -> StepFailure | None:
    """Runs a step to its end. The record on disk says that it started, and then how it ended."""
    name, log = step.job.name, step.folder / LOG
    for port in step.component.outputs.values():
        path = step.outputs[port.name]
        (path.parent if port.type == "uri_file" else path).mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    record["mlflow_run_id"] = runs.start(name, record.get("mlflow_run_id"))
    launch = launch_of(step)
    record |= {"command": launch.commands[0][-1], "started": _now(), "code": step.code}
    write_json(step.folder / RECORD, record)
    progress(f"{name}: started, log: {log}")
    variables = {k: str(v) for k, v in step.given["environment_variables"].items()}
    code = run_launch(
        launch,
        folder=step.component.code or Path(),
        environment={**runs.environment(record["mlflow_run_id"]), **variables},
        log=log,
        lock=lock,
    )
    missing = [path for path in step.outputs.values() if not path.exists()]
    succeeded = code == 0 and not missing
    record |= {"status": "succeeded" if succeeded else "failed", "exit_code": code, "ended": _now()}
    runs.end(record["mlflow_run_id"], succeeded)
    write_json(step.folder / RECORD, record)
    if succeeded:
        progress(f"{name}: succeeded")
        return None
    return StepFailure(name, f"exit code {code}" if code else f"wrote no {missing[0]}", log)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
