"""`ppe-yolo azureml run --local`: a pipeline's own commands, one after another, on this machine, without Azure or docker."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from ppe_yolo.azure.local.mlflow_runs import MlflowRuns
from ppe_yolo.azure.local.state import (
    digest_of_code,
    digest_of_data,
    digest_of_inputs,
    only_one,
    read_record,
    set_aside,
)
from ppe_yolo.azure.yaml.assets import find_data
from ppe_yolo.azure.yaml.bindings import JobOutput, Own, ParentInput, ParentOutput, resolve_command
from ppe_yolo.azure.yaml.interface import Port
from ppe_yolo.azure.yaml.pipeline import ASSET, Component, Job, Pipeline, binding_of, in_order
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json

LOG = Path("artifacts/user_logs/std_log.txt")  # where Azure has it
JOURNAL = Path("artifacts/mini-batches.jsonl")
OUTPUTS = "named-outputs"
RECORD = "job.json"
TAIL = 40  # lines of a log that are shown


@dataclass(frozen=True)
class Step:
    """A job, with everything bound.

    Attributes:
        job: The job.
        component: What it runs.
        folder: Where its record and log are.
        inputs: What its command is given; None for an optional input that is not.
        outputs: Where each output goes.
        given: What makes this execution differ from another, in plain types.
        code: Digest of the program, which may change between two starts.
    """

    job: Job
    component: Component
    folder: Path
    inputs: Mapping[str, str | None]
    outputs: Mapping[str, Path]
    given: Mapping[str, Any]
    code: str

    def value(self, own: Own) -> str | None:
        """What stands for an expression in its command."""
        return self.inputs.get(own.name) if own.side == "inputs" else str(self.outputs[own.name])


def run_local(pipeline: Pipeline, out: Path, console: Console) -> bool:
    """Runs a pipeline that lint has nothing to say against.

    A step that succeeded before with the same inputs is not run again; one that was interrupted is run again on what
    it left, as Azure does when a node was taken away; where inputs are others, what was left is moved aside first.

    Args:
        pipeline: The pipeline.
        out: Folder for outputs and logs: `named-outputs/` of the pipeline, and `<job>/named-outputs/`, `<job>/artifacts/`.
        console: Where to print.

    Returns:
        Whether every step succeeded; the log of one that did not is printed.

    Raises:
        UserError: Data that is not here, or another run is at work in the folder.
    """
    out = out.resolve()
    if shutil.which("bash") is None:
        raise UserError("run --local: needs bash, in which Azure runs the commands, found none")
    sources = {name: _source(pipeline, port) for name, port in pipeline.inputs.items()}
    console.print("compute and environment are left out: everything runs here, in this Python", soft_wrap=True)
    with only_one(out) as lock:
        runs = MlflowRuns(out, str(pipeline.value.get("experiment_name") or pipeline.path.stem))
        code: dict[Path, str] = {}
        ids: dict[str, str] = {}
        for job in in_order(pipeline.jobs):
            step = _bind(pipeline, job, sources, out, ids, code)
            record = _begin(step, console)
            ids[job.name] = record["id"]
            if record["status"] == "succeeded":
                continue
            if not _run(step, record, runs, lock.fileno(), console):
                return False
    console.print(f"outputs: {out / OUTPUTS}", soft_wrap=True)
    return True


def _source(pipeline: Pipeline, port: Port) -> str | Path | None:
    """What an input of the pipeline is here: a value, or a path."""
    if port.is_path:
        return _here(pipeline, f"inputs.{port.name}", str(pipeline.value["inputs"][port.name]["path"]))
    return None if port.default is None else str(port.default)


def _here(pipeline: Pipeline, key: str, path: str) -> Path:
    """Where data is on this machine.

    Raises:
        UserError: Nowhere.
    """
    if path.startswith(ASSET) and "://" not in path:
        place = find_data(pipeline.path.parent, path)
    elif "://" in path:
        raise UserError(f"{key}: {path} is not on this machine: give --set {key}=PATH")
    else:
        place = (pipeline.path.parent / path).resolve()
    if not place.exists():
        raise UserError(f"{key}: expected data on this machine, got {place}: give --set {key}=PATH")
    return place


def _bind(
    pipeline: Pipeline,
    job: Job,
    sources: Mapping[str, str | Path | None],
    out: Path,
    ids: Mapping[str, str],
    code: dict[Path, str],
) -> Step:
    component = job.component
    if component is None or component.code is None:
        raise UserError(f"{pipeline.path}: job {job.name}: a component that is only on Azure cannot be run here")
    inputs: dict[str, str | None] = {}
    given: dict[str, Any] = {}
    for name, port in component.inputs.items():
        value = job.inputs.get(name)
        binding = binding_of(value)
        if isinstance(binding, ParentInput):
            source = sources[binding.name]
            inputs[name] = None if source is None else str(source)
            given[name] = digest_of_data(source) if isinstance(source, Path) else source
        elif isinstance(binding, JobOutput):
            inputs[name] = str(_outputs(pipeline, pipeline.jobs[binding.job], out)[binding.name])
            given[name] = f"{binding.job} {ids[binding.job]}"
        elif isinstance(value, Mapping):
            place = _here(pipeline, f"jobs.{job.name}.inputs.{name}", str(value["path"]))
            inputs[name], given[name] = str(place), digest_of_data(place)
        else:
            value = port.default if value is None else value
            inputs[name] = given[name] = None if value is None else str(value)
    if component.code not in code:
        code[component.code] = digest_of_code(component.code)
    given["component"] = digest_of_inputs(dict(component.value))
    given["environment_variables"] = job.setting("environment_variables") or {}
    return Step(job, component, out / job.name, inputs, _outputs(pipeline, job, out), given, code[component.code])


def _outputs(pipeline: Pipeline, job: Job, out: Path) -> dict[str, Path]:
    assert job.component is not None
    places = {}
    for name in job.component.outputs:
        binding = binding_of(job.outputs.get(name))
        if isinstance(binding, ParentOutput):
            places[name] = out / OUTPUTS / binding.name
        else:
            places[name] = out / job.name / OUTPUTS / name
    return places


def _begin(step: Step, console: Console) -> dict[str, Any]:
    """The record to go on with: of a step that is done, of one that goes on, or a new one."""
    record = read_record(step.folder / RECORD)
    if record:
        changed = [k for k in {**record["given"], **step.given} if record["given"].get(k) != step.given.get(k)]
        if not changed and record["status"] == "succeeded" and all(p.exists() for p in step.outputs.values()):
            # an error mended in a later step shall not cost the training before it
            changed_code = "" if record["code"] == step.code else "; the code has changed since: another --out runs it again"
            console.print(f"{step.job.name}: done before, with the same inputs{changed_code}", soft_wrap=True)
            return record
        if not changed:
            console.print(f"{step.job.name}: goes on with what it left", soft_wrap=True)
            return {**record, "status": "running"}
        console.print(f"{step.job.name}: not as before ({', '.join(sorted(changed))}), starts anew", soft_wrap=True)
    for place in (*step.outputs.values(), step.folder / "artifacts"):
        if moved := set_aside(place):
            console.print(f"  {place.name}: moved to {moved}", soft_wrap=True)
    return {"id": uuid.uuid4().hex, "status": "running", "given": dict(step.given)}


def _run(step: Step, record: dict[str, Any], runs: MlflowRuns, lock: int, console: Console) -> bool:
    """Runs a step to its end; the record tells how it ended, and that it had begun."""
    name, log = step.job.name, step.folder / LOG
    for port in step.component.outputs.values():
        place = step.outputs[port.name]
        (place.parent if port.type == "uri_file" else place).mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    record["mlflow_run_id"] = runs.start(name, record.get("mlflow_run_id"))
    commands, nodes = _commands(step)
    record |= {"command": commands[0][-1], "started": _now(), "code": step.code}
    write_json(step.folder / RECORD, record)
    console.print(f"{name}: started, log: {log}", soft_wrap=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "AZUREML_NODE_COUNT": str(nodes),
        **runs.environment(record["mlflow_run_id"]),
        **{k: str(v) for k, v in step.given["environment_variables"].items()},
    }
    with log.open("a", encoding="utf-8") as file:
        code = _wait_for(
            [
                # the lock is inherited: a second run shall not start beside a step that has outlived the first
                subprocess.Popen(
                    c, cwd=step.component.code, env=environment, stdout=file, stderr=subprocess.STDOUT, pass_fds=(lock,)
                )
                for c in commands
            ]
        )
    missing = [place for place in step.outputs.values() if not place.exists()]
    succeeded = code == 0 and not missing
    record |= {"status": "succeeded" if succeeded else "failed", "exit_code": code, "ended": _now()}
    runs.end(record["mlflow_run_id"], succeeded)
    write_json(step.folder / RECORD, record)
    if succeeded:
        console.print(f"{name}: succeeded")
        return True
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, TAIL):
            console.print(line.rstrip("\n"), markup=False, soft_wrap=True)
    why = f"exit code {code}" if code else f"left no {missing[0]}"
    console.print(f"{name}: failed, {why}; log: {log}", soft_wrap=True)
    return False


def _commands(step: Step) -> tuple[list[list[str]], int]:
    """What to start, one command a node, and how many nodes that stands for."""
    if step.component.value["type"] == "parallel":
        return [_parallel_command(step)], 1
    shell = ["bash", "-c", resolve_command(step.component.value["command"], step.value)]
    distribution = step.job.setting("distribution")
    nodes = int(step.job.setting("resources", "instance_count") or 1)
    if distribution is None:
        return [shell], nodes
    if distribution["type"].lower() != "pytorch":
        raise UserError(f"job {step.job.name}: only the distribution pytorch runs here, got {distribution['type']}")
    processes = step.job.setting("distribution", "process_count_per_instance") or 1
    meeting = ["--standalone"]
    if nodes > 1:
        meeting = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{_free_port()}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc-per-node={processes}", "--no-python"]
    return [[*torchrun, *shell]] * nodes, nodes


def _parallel_command(step: Step) -> list[str]:
    task = step.component.value["task"]
    arguments = resolve_command(task.get("program_arguments") or "", step.value)
    rows = resolve_command(task["append_row_to"], step.value)
    data = resolve_command(step.component.value["input_data"], step.value)
    options = {
        "--entry-script": task["entry_script"],
        "--input": data,
        "--rows": rows,
        "--journal": str(step.folder / JOURNAL),
        "--mini-batch-size": str(step.job.setting("mini_batch_size")),
        "--workers": str(step.job.setting("max_concurrency_per_instance") or 1),
        "--retries": str(step.job.setting("retry_settings", "max_retries") or 0),
        "--threshold": str(-1 if (limit := step.job.setting("mini_batch_error_threshold")) is None else limit),
        "--arguments": arguments,
    }
    return [sys.executable, "-m", "ppe_yolo.azure.local.parallel", *(f"{k}={v}" for k, v in options.items())]


def _wait_for(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all nodes; where one fails, the others would wait for it for ever, and are ended."""
    try:
        waiting = list(processes)
        while waiting:
            try:
                code = waiting[0].wait(timeout=0.2 if len(processes) > 1 else None)
            except subprocess.TimeoutExpired:
                waiting.append(waiting.pop(0))
                continue
            if code:
                return code
            waiting.pop(0)
        return 0
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
