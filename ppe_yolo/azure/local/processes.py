"""The processes of a step: one shell per node, torchrun for distributed jobs, the stand-in runner for parallel jobs."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppe_yolo.azure.local.step import Step
from ppe_yolo.azure.yaml.bindings import resolve_command
from ppe_yolo.core.errors import UserError

JOURNAL = Path("artifacts/mini-batches.jsonl")


@dataclass(frozen=True)
class Launch:
    """How to start a step: one command per node started here, and the number of nodes that the step is told."""

    commands: tuple[tuple[str, ...], ...]
    nodes: int


def launch_of(step: Step) -> Launch:
    """The commands of a step.

    Raises:
        UserError: The step has a distribution that does not run here.
    """
    if step.component.value["type"] == "parallel":
        return Launch((_parallel_command(step),), 1)
    shell = ("bash", "-c", resolve_command(step.component.value["command"], step.value))
    distribution = step.job.setting("distribution")
    nodes = int(step.job.setting("resources", "instance_count") or 1)
    if distribution is None:
        return Launch((shell,), nodes)
    if distribution["type"].lower() != "pytorch":
        raise UserError(item=f"job {step.job.name}", expected="the distribution pytorch", got=str(distribution["type"]))
    processes = step.job.setting("distribution", "process_count_per_instance") or 1
    rendezvous = ["--standalone"]
    if nodes > 1:
        rendezvous = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{_free_port()}"]
    torchrun = (sys.executable, "-m", "torch.distributed.run", *rendezvous, f"--nproc-per-node={processes}", "--no-python")
    return Launch(((*torchrun, *shell),) * nodes, nodes)


def run_launch(launch: Launch, *, folder: Path, environment: Mapping[str, str], log: Path, lock: int) -> int:
    """Runs all nodes of a step to the end.

    Args:
        launch: The commands.
        folder: Working directory.
        environment: Variables for the step, in addition to this process's own.
        log: File that receives stdout and stderr, appended.
        lock: File descriptor to inherit, so that a step that outlives a killed run still blocks a second run.

    Returns:
        Exit code of the first node that fails, else 0.
    """
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "AZUREML_NODE_COUNT": str(launch.nodes),
        **environment,
    }
    with log.open("a", encoding="utf-8") as file:
        return _wait_for(
            [
                subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=subprocess.STDOUT, pass_fds=(lock,))
                for command in launch.commands
            ]
        )


def _parallel_command(step: Step) -> tuple[str, ...]:
    task = step.component.value["task"]
    threshold = step.job.setting("mini_batch_error_threshold")
    options = {
        "--entry-script": task["entry_script"],
        "--input": resolve_command(step.component.value["input_data"], step.value),
        "--rows": resolve_command(task["append_row_to"], step.value),
        "--journal": str(step.folder / JOURNAL),
        "--mini-batch-size": str(step.job.setting("mini_batch_size")),
        "--workers": str(step.job.setting("max_concurrency_per_instance") or 1),
        "--retries": str(step.job.setting("retry_settings", "max_retries") or 0),
        "--timeout": str(step.job.setting("retry_settings", "timeout")),
        "--threshold": str(-1 if threshold is None else threshold),
        "--arguments": resolve_command(task.get("program_arguments") or "", step.value),
    }
    return (sys.executable, "-m", "ppe_yolo.azure.local.parallel", *(f"{k}={v}" for k, v in options.items()))


def _wait_for(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all nodes. If one fails, ends the others, which would wait for it forever."""
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
