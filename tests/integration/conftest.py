"""A real MLflow server, for the tests of training and gate against one."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


class MlflowServer:
    """`mlflow server` on loopback, with its database and artifacts in a folder; can be killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
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
