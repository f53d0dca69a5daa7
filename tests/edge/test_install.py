"""`pip install ./edge` into an empty environment gives a working box without torch."""

import json
import os
import signal
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import wait_until
from packaging.requirements import Requirement
from running_box import delivered

from conftest import GREEN  # isort: skip

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "ppe_yolo" / "weights" / "helmet-small.int8.onnx"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which only ./edge is installed; the path of its bin/."""
    folder = tmp_path_factory.mktemp("box") / "venv"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = ["pip", "install", "--system-certs", "--quiet", "--python", str(folder / "bin" / "python"), str(ROOT / "edge")]
    subprocess.run([sys.executable, "-m", "uv", *install], check=True)
    return folder / "bin"


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Runs a command away from the clone, without the environment of this machine."""
    arguments = [str(word) for word in command]
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(arguments, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("python", "-m", "ppe_edge"), ("python", "-m", "ppe_edge.benchmark")])
def test_installed_command_prints_help(environment: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(tmp_path, environment / command[0], *command[1:], "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


@pytest.mark.slow
def test_installed_box_passes_dry_run_without_torch(environment: Path, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    config = tmp_path / "edge.yaml"
    document = {
        "model": {"path": str(MODEL), "threads": 1},
        "state_dir": "state",
        "cameras": {"gate": {"source": str(clip)}},
        "sinks": {"jsonl": {"path": "alerts.jsonl"}},
        "web": {"port": 0},
    }
    config.write_text(json.dumps(document))
    done = run(tmp_path, environment / "ppe-edge", "--config", config, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would run: 1 of 1 cameras, 1 of 1 sinks" in done.stdout
    modules = run(tmp_path, environment / "python", "-c", "import ppe_yolo, torch")
    assert modules.returncode == 1 and "No module named 'torch'" in modules.stderr
    listing = run(tmp_path, environment / "python", "-c", "import pathlib, ppe_yolo as p; print(*p.__path__)")
    assert sorted(p.name for p in Path(listing.stdout.strip()).iterdir() if p.name != "__pycache__") == ["__init__.py", "core"]


@pytest.mark.slow
def test_demo_raises_an_alert_with_a_clip_and_ends_cleanly(environment: Path, tmp_path: Path) -> None:
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}
    command = [environment / "ppe-edge", "demo"]
    demo = subprocess.Popen(command, cwd=tmp_path, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        page = demo.stdout.readline().split()[-1]
        folder = Path(demo.stdout.readline().split()[1])
        assert folder.parent == tmp_path
        [clip, *_] = wait_until(lambda: delivered(folder, "alert_clip"), 60)
        [alert, *_] = delivered(folder, "alert")
        assert alert["class"] == "none" and clip["alert"] == alert["id"]
        for file in (alert["snapshot"]["file"], clip["clip"]["file"]):
            assert (folder / "state" / "snapshots" / file).is_file()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{page}/cameras/gate/live.jpg") as answer:
            assert answer.read(2) == b"\xff\xd8"
    finally:
        demo.send_signal(signal.SIGINT)
        log = demo.communicate(timeout=30)[1]
    assert demo.returncode == 0 and not list(tmp_path.glob("ppe-edge-demo-*")), log
    assert "ERROR" not in log and "Traceback" not in log


@pytest.mark.slow
def test_wheel_from_sdist_holds_program_page_core_model_and_licence(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "uv", "build", "--system-certs", "--quiet", "--out-dir", str(tmp_path), str(ROOT / "edge")]
    subprocess.run(build, check=True)  # the wheel is built from the sdist
    [file] = tmp_path.glob("ppe_edge-*.whl")
    wheel = zipfile.ZipFile(file)
    tracked = {f"ppe_edge/{file.relative_to(ROOT / 'edge' / 'ppe_edge')}" for file in (ROOT / "edge" / "ppe_edge").rglob("*.*")}
    core = {f"ppe_yolo/core/{file.name}" for file in (ROOT / "ppe_yolo" / "core").glob("*.py")}
    expected = {name for name in tracked if "__pycache__" not in name} | core | {"ppe_edge/model/helmet-small.int8.onnx"}
    assert expected <= set(wheel.namelist())
    [licence] = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_dependencies_match_those_of_the_library() -> None:
    def requirements(project: dict[str, object], *keys: str) -> dict[str, str]:
        value: object = project
        for key in keys:
            value = value[key]  # type: ignore[index]
        return {r.name: str(r.specifier) for r in map(Requirement, value)}  # type: ignore[call-overload]

    box = requirements(tomllib.loads((ROOT / "edge" / "pyproject.toml").read_text()), "project", "dependencies")
    library = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = requirements(library, "project", "dependencies")
    extra = requirements(library, "project", "optional-dependencies", "edge")
    assert extra.items() <= box.items()
    assert box == {name: {**known, **extra}[name] for name in box}
    lines = [line.split("#")[0].strip() for line in (ROOT / "edge" / "requirements.in").read_text().splitlines()]
    assert {Requirement(line).name for line in lines if line} == box.keys() - {"onnxruntime"}
