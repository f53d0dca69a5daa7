"""A real MLflow server, and commands that are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import child_environment, free_port, wait_until


class MlflowServer:
    """`mlflow server` on loopback, with its database and artifacts in a folder; can be killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Comes back when it answers."""
        store = ("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}")
        artifacts = ("--artifacts-destination", str(self.folder / "artifacts"))
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {
            "MLFLOW_DISABLE_TELEMETRY": "true"
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "server", *store, *artifacts, *place],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,  # its workers end with it
            )
        deadline = time.monotonic() + 300
        while True:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        """At once, with its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def find_full_mlflow() -> str | None:
    """The command of a whole MLflow; that of mlflow-skinny, which the dev extra installs, has no server."""
    for folder in os.environ["PATH"].split(os.pathsep):
        program = shutil.which("mlflow", path=folder)
        if program is not None and shutil.which("flask", path=folder) is not None:
            return program
    return None


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One for all tests, since it takes seconds to start."""
    program = find_full_mlflow()
    if program is None:
        pytest.skip("no whole mlflow on PATH, mlflow-skinny has no server: pip install mlflow in an environment of its own")
    server = MlflowServer(program, tmp_path_factory.mktemp("mlflow_server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def kill_when() -> Callable[..., None]:
    """Runs `ppe-yolo` with arguments, and kills it as soon as a condition is true."""

    def kill(reached: Callable[[], bool], *command: object) -> None:
        arguments = [sys.executable, "-m", "ppe_yolo.cli", *map(str, command)]
        process = subprocess.Popen(
            arguments, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_until(lambda: reached() or process.poll() is not None, 300, every_s=0.002)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output

    return kill
