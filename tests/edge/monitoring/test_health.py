"""ppe_edge.monitoring.health, the health check of the container."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from helpers import child_environment
from ppe_edge.monitoring.health import health_address


@pytest.mark.parametrize(
    ("web", "variables", "expected"),
    [
        ("", {}, "http://127.0.0.1:8080/healthz"),
        ("web: {port: 9000}", {}, "http://127.0.0.1:9000/healthz"),
        ("web: {port: 9000}", {"PPE_EDGE__WEB__PORT": "9001"}, "http://127.0.0.1:9001/healthz"),
        ("web: {host: 0.0.0.0}", {}, "http://127.0.0.1:8080/healthz"),
        ("web: {host: 192.0.2.1}", {}, "http://192.0.2.1:8080/healthz"),
        ("web: {host: '::'}", {}, "http://[::1]:8080/healthz"),
        ("web: {enabled: false}", {}, None),
        ("web: {enabled: false}", {"PPE_EDGE__WEB__ENABLED": "true"}, "http://127.0.0.1:8080/healthz"),
        ("", {"PPE_EDGE__WEB__ENABLED": "0"}, None),
        ("web: {port: 0}", {}, None),
        ("web: [", {}, "http://127.0.0.1:8080/healthz"),
    ],
)
def test_health_address_follows_file_and_environment(
    web: str, variables: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(f"cameras: {{}}\n{web}\n")
    assert health_address(file, variables) == expected


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ppe_edge.monitoring.health", "--config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())


def test_health_check_asks_the_configured_port(port: int, tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(f"web: {{port: {port}}}")
    assert check(file).returncode == 0


def test_health_check_without_an_answer_is_unhealthy(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("web: {port: 1}")
    done = check(file)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_health_check_of_a_box_without_a_page_is_healthy(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("web: {enabled: false}")
    assert check(file).returncode == 0
