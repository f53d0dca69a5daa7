"""Small helpers for the tests of the box."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HIDDEN = frozenset({0, 1})  # labels of the classes whose heads are pixelated: both of the tests' models


def wait_until(
    condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "the condition", every_s: float = 0.02
) -> Any:
    """Returns the value of the condition as soon as it is true.

    Raises:
        TimeoutError: It did not become true within `timeout_s` seconds.
    """
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not become true within {timeout_s:g} s")
        time.sleep(every_s)
    return value


def free_port() -> int:
    """Returns a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether something accepts connections at a TCP port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serves HTTP in threads; yields host and port, such as 127.0.0.1:8080."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """Serves the files of a folder; yields their address, such as http://127.0.0.1:8080."""
    with serving(partial(_Files, directory=str(folder))) as address:
        yield f"http://{address}"


def child_environment(**more: str) -> dict[str, str]:
    """Returns the environment of a child process that imports what this process can import, with more variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}
