"""The image without Docker: a tree built as edge/Dockerfile says runs; the manifest follows the rules of IoT Edge."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml
from helpers import free_port, wait_until
from packaging.requirements import Requirement
from ppe_edge.config import load_settings
from ppe_edge.monitoring.health import health_address

ROOT = Path(__file__).parents[2]
EDGE = ROOT / "edge"
USER = 10001
MODEL = "edge/model/model.onnx"
RunCli = Callable[..., int]


def dockerfile() -> list[list[tuple[str, str]]]:
    """The stages of the Dockerfile, each as a list of (instruction, rest of the line)."""
    text = re.sub(r"^#.*\n", "", (EDGE / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        instruction, rest = line.split(maxsplit=1)
        stages += [[]] if instruction == "FROM" else []
        stages[-1].append((instruction, rest))
    return stages


def copies(stage: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """(sources in the repository, destination) of each COPY."""
    words = [rest.split() for instruction, rest in stage if instruction == "COPY"]
    return [(w[:-1], w[-1]) for w in words if not w[0].startswith("--")]


def last(stage: list[tuple[str, str]], instruction: str) -> str:
    return [rest for name, rest in stage if name == instruction][-1]


@dataclass(frozen=True)
class Image:
    """The file tree of the image, below a folder instead of /."""

    root: Path
    state: Path

    @property
    def python(self) -> Path:
        return self.root / "opt/ppe_edge/bin/python"

    def configured(self, source: Path | str, **more: Any) -> list[str]:
        """Writes a configuration with one camera; returns the arguments that name it."""
        file = self.state / "edge.yaml"
        model = {"path": str(self.root / "app/model/model.onnx")}
        cameras = {"gate": {"source": str(source)}}
        file.write_text(yaml.safe_dump({"model": model, "state_dir": str(self.state), "cameras": cameras} | more))
        return ["--config", str(file)]

    def start(self, arguments: list[str]) -> subprocess.Popen[str]:
        """Starts a command as the image does: its user, its work folder, and nothing of the environment of this machine."""
        other = {"user": USER, "group": USER, "extra_groups": []} if can_change_user() else {}
        return subprocess.Popen(
            arguments,
            cwd=self.root / last(dockerfile()[-1], "WORKDIR").lstrip("/"),
            env={"PATH": f"{self.python.parent}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "TMPDIR": str(self.state)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **other,
        )  # fmt: skip

    def run(self, arguments: list[str]) -> tuple[int, str]:
        """Runs a command; returns its exit code and its output."""
        process = self.start(arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    @property
    def entrypoint(self) -> list[str]:
        return json.loads(last(dockerfile()[-1], "ENTRYPOINT"))


def base_python() -> str:
    """A Python that every user may run, if there is one."""
    return shutil.which("python3.11", path="/usr/bin") or sys.executable


def can_change_user() -> bool:
    return os.geteuid() == 0 and base_python().startswith("/usr/")


@pytest.fixture(scope="module")
def image(tiny_model: Path) -> Iterator[Image]:
    """Built as the Dockerfile says, with a small model instead of the bundled one."""
    build, final = dockerfile()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root, state = Path(folder) / "root", Path(folder) / "state"
        state.mkdir()
        if can_change_user():
            os.chown(state, USER, USER)
        environment = root / "opt/ppe_edge"
        subprocess.run([base_python(), "-m", "venv", "--without-pip", environment], check=True)
        install_step, trim_step = [rest for name, rest in build if name == "RUN"]
        install = re.search(r"pip --python \S+ install (.+)", install_step)
        assert install is not None
        options = install[1].replace("${ACCELERATOR}", "cpu").replace("/build/", f"{EDGE}/").replace("--no-cache-dir", "")
        # uv accepts the options of pip, and is ten times as fast
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--system-certs",
            "--quiet",
            "--python",
            str(environment / "bin/python"),
        ]
        subprocess.run([*command, *shlex.split(options)], check=True)
        trim = trim_step.replace("/opt/ppe_edge", str(environment))
        subprocess.run(["sh", "-euc", trim], env={"PATH": os.environ["PATH"], "ACCELERATOR": "cpu"}, check=True)
        for sources, place in copies(final):
            for source in sources:
                target = root / place.lstrip("/")
                target = target / Path(source).name if place.endswith("/") else target
                target.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(tiny_model if source == MODEL else ROOT / source, target)
        yield Image(root, state)


@pytest.fixture(scope="module")
def images(image: Image, picture: Callable[..., Any]) -> Path:
    """A folder of three images that the user of the image can read."""
    folder = image.root.parent / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(folder / f"{name}.jpg"), picture(name, (240, 320)))
    return folder


@pytest.mark.slow
def test_image_contains_box_and_no_training_code(image: Image) -> None:
    library = sorted(p.name for p in (image.root / "app/ppe_yolo").iterdir())
    assert library == ["__init__.py", "core"]
    packages = {p.name.lower() for p in next(image.root.glob("opt/ppe_edge/lib/*/site-packages")).iterdir()}
    assert not packages & {"torch", "torchvision", "pytorch_lightning", "albumentations", "matplotlib", "pip"}
    assert {"onnxruntime", "cv2", "av", "numpy", "lap"} <= packages
    assert "scipy" not in packages
    code, output = image.run([str(image.python), "-c", "import torch"])
    assert code == 1 and "No module named 'torch'" in output


@pytest.mark.slow
def test_environment_takes_at_most_400_mb(image: Image) -> None:
    files = [p for p in (image.root / "opt/ppe_edge").rglob("*") if p.is_file() and not p.is_symlink()]
    megabytes = sum(p.stat().st_blocks * 512 for p in files if p.suffix != ".pyc") / 2**20
    assert megabytes <= 400, f"{megabytes:.0f} MB"


@pytest.mark.slow
def test_image_can_import_every_module_of_box(image: Image) -> None:
    modules = [
        ".".join(p.relative_to(EDGE).with_suffix("").parts).removesuffix(".__init__")
        for p in sorted((EDGE / "ppe_edge").rglob("*.py"))
        if p.name != "__main__.py"
    ]
    code, output = image.run([str(image.python), "-c", f"import {', '.join(modules)}"])
    assert code == 0, output


@pytest.mark.slow
def test_image_passes_dry_run_and_processes_images(image: Image, images: Path) -> None:
    code, output = image.run([*image.entrypoint, "--help"])
    assert code == 0 and "--config" in output
    configured = image.configured(images, web={"enabled": False}, sinks={"jsonl": {"path": str(image.state / "alerts.jsonl")}})
    code, output = image.run([*image.entrypoint, *configured, "--dry-run"])
    assert code == 0, output
    assert "would run: 1 of 1 cameras" in output
    code, output = image.run([*image.entrypoint, *configured])
    assert code == 0, output


@pytest.mark.slow
def test_health_check_distinguishes_running_box(image: Image) -> None:
    command = json.loads(last(dockerfile()[-1], "HEALTHCHECK").split("CMD ")[1])
    arguments = image.configured("rtsp://127.0.0.1:9/none", web={"port": free_port()})
    command += arguments
    assert image.run(command)[0] == 1
    # the camera does not exist: the box keeps running and retries
    process = image.start([*image.entrypoint, *arguments])
    try:
        wait_until(lambda: image.run(command)[0] == 0 or process.poll() is not None, 60, "the health check")
        assert process.poll() is None, process.communicate(timeout=30)
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=30)
        assert process.returncode == 0, output
    finally:
        process.kill()


@pytest.mark.slow
def test_code_in_image_is_read_only(image: Image) -> None:
    if not can_change_user():
        pytest.skip("needs root, to become the user of the image, and a Python outside the home of root")
    code, output = image.run([str(image.python), "-c", "open('ppe_edge/x.py', 'w')"])
    assert code == 1 and "Permission denied" in output


def test_image_runs_as_user_and_contains_only_core_of_library() -> None:
    _, final = dockerfile()
    assert last(final, "USER") == f"{USER}:{USER}"
    sources = [s for group, _ in copies(final) for s in group]
    assert [s for s in sources if s.startswith("ppe_yolo")] == ["ppe_yolo/__init__.py", "ppe_yolo/core"]
    assert not [rest for stage in dockerfile() for name, rest in stage if name == "ADD"]


def test_dockerignore_allows_exactly_what_is_copied() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    accelerators = ("cpu", "cuda", "openvino")
    sources = {
        s.replace("${ACCELERATOR}", a)
        for stage in dockerfile()
        for group, _ in copies(stage)
        for s in group
        for a in accelerators
    }
    for source in sources:
        assert any(fnmatch(source, pattern) for pattern in allowed), f"{source} is excluded from the build"
        assert source == MODEL or (ROOT / source).exists()
    for pattern in allowed:
        assert any(fnmatch(source, pattern) for source in sources), f"{pattern} allows files that are not copied"


def locked(name: str) -> dict[str, str]:
    """Package -> version in a lock file."""
    text = (EDGE / f"requirements{name}.txt").read_text()
    found = re.findall(
        r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+?)(?: ;[^\\\n]*)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        text,
        re.MULTILINE,
    )
    rest = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(found) == len(rest), "a line without version or hash"
    return {package: version for package, version, _ in found}


def test_requirements_are_pinned_and_consistent() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_contract = {"numpy", "opencv-python-headless", "pyyaml"}
    wanted = [Requirement(r) for r in project["optional-dependencies"]["edge"]]
    wanted += [r for r in map(Requirement, project["dependencies"]) if r.name in of_contract]
    lines = [line.split("#")[0].strip() for line in (EDGE / "requirements.in").read_text().splitlines()]
    assert {Requirement(line).name for line in lines if line} == {r.name for r in wanted}
    pins = locked("")
    for requirement in wanted:
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert not [p for p in pins if p.startswith(("torch", "onnxruntime"))]
    for accelerator, package in {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}.items():
        more = locked(f"-{accelerator}")
        assert package in more
        assert {p: v for p, v in more.items() if p in pins} == {p: v for p, v in pins.items() if p in more}


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """`fill(template, keep=(), **values)` runs fill_manifest.py; returns exit code, errors and the file that it wrote."""

    def run(template: Path, keep: tuple[str, ...] = (), accelerator: str | None = None, **values: str) -> tuple[int, str, Path]:
        out = tmp_path / "deployment.json"
        command = [sys.executable, str(EDGE / "fill_manifest.py"), str(template), "--out", str(out)]
        command += ["--accelerator", accelerator] if accelerator else []
        done = subprocess.run(
            [*command, *(word for name in keep for word in ("--keep", name))],
            env={"PATH": os.environ["PATH"]} | values, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stderr, out

    return run


Fill = Callable[..., tuple[int, str, Path]]
TEMPLATE = EDGE / "deployment.template.json"
VALUES = {
    "REGISTRY": "registry.example",
    "REGISTRY_PULL_NAME": "box",
    "MODULE_IMAGE": "registry.example/ppe-edge@sha256:0",
    "MODULE_VERSION": "17",
}
SECRETS = {"REGISTRY_PULL_PASSWORD": 'quo"te', "WEB_TOKEN": "token of the web page"}


@pytest.fixture
def manifest(fill: Fill) -> dict[str, Any]:
    code, output, out = fill(TEMPLATE, **SECRETS, **VALUES)
    assert code == 0, output
    return json.loads(out.read_text())["modulesContent"]


def test_filled_manifest_follows_rules_of_iot_edge(manifest: dict[str, Any]) -> None:
    assert set(manifest) == {"$edgeAgent", "$edgeHub"}
    agent, hub = (manifest[name]["properties.desired"] for name in ("$edgeAgent", "$edgeHub"))
    assert agent["schemaVersion"] == hub["schemaVersion"] == "1.1"
    modules = agent["systemModules"] | agent["modules"]
    assert set(agent["systemModules"]) == {"edgeAgent", "edgeHub"}
    for name, module in modules.items():
        assert module["type"] == "docker"
        text = module["settings"]["createOptions"]
        assert len(text.encode()) < 4096
        host = json.loads(text)["HostConfig"]
        assert all(re.fullmatch(r"/[\w/]+:/[\w/]+(:ro)?", bind) for bind in host.get("Binds", ()))
        assert host.get("Memory", 2**30) >= 2**28
        # keys that edgeAgent knows; it ignores others
        assert set(module["settings"]) == {"image", "createOptions"}
        assert set(module) <= {"version", "type", "status", "restartPolicy", "startupOrder", "env", "settings"}
        if name != "edgeAgent":
            assert (module["status"], module["restartPolicy"]) == ("running", "always")
        if name in agent["systemModules"]:
            assert re.fullmatch(r"mcr\.microsoft\.com/azureiotedge-(agent|hub):1\.6(\.\d+)?", module["settings"]["image"])
    for route in hub["routes"].values():
        found = re.fullmatch(r"FROM /messages/modules/(\w+)/outputs/(\w+|\*) INTO \$upstream", route["route"])
        assert found is not None and found[1] in agent["modules"]
        assert 0 <= route["priority"] <= 9 and route["timeToLiveSecs"] > 0
    assert hub["storeAndForwardConfiguration"]["timeToLiveSecs"] >= 7 * 86400


def test_hub_storage_is_on_bind_mount(manifest: dict[str, Any]) -> None:
    hub = manifest["$edgeAgent"]["properties.desired"]["systemModules"]["edgeHub"]
    (bind,) = json.loads(hub["settings"]["createOptions"])["HostConfig"]["Binds"]
    assert bind.split(":")[1] == hub["env"]["storageFolder"]["value"]


def test_module_options_match_dockerfile_and_example(manifest: dict[str, Any]) -> None:
    (module,) = manifest["$edgeAgent"]["properties.desired"]["modules"].values()
    assert module["settings"]["image"] == VALUES["MODULE_IMAGE"]
    options = json.loads(module["settings"]["createOptions"])
    host = options["HostConfig"]
    _, final = dockerfile()
    assert options["User"] == last(final, "USER")
    assert host["ReadonlyRootfs"] is True and set(host["Tmpfs"]) == {"/tmp"}
    assert host["CapDrop"] == ["ALL"] and not host.get("Privileged")
    binds = {b.split(":")[1]: b.split(":")[2:] for b in host["Binds"]}
    config = Path(json.loads(last(final, "CMD"))[1])
    example = load_settings(EDGE / "edge.yaml")
    assert binds == {str(config.parent): ["ro"], str(example.state_dir): []}
    assert last(final, "VOLUME") == str(example.state_dir)
    assert str(example.model.path) in [place for _, place in copies(final)]
    assert example.sinks.iothub is not None and example.twin.enabled


def test_module_publishes_its_page_on_loopback_with_token(manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (module,) = manifest["$edgeAgent"]["properties.desired"]["modules"].values()
    for name, given in module["env"].items():
        monkeypatch.setenv(name, given["value"])
    web = load_settings(EDGE / "edge.yaml").web  # the environment overrides the file
    assert web.enabled and web.host == "0.0.0.0"
    assert web.token is not None and web.token.get_secret_value() == SECRETS["WEB_TOKEN"]
    options = json.loads(module["settings"]["createOptions"])
    port = f"{web.port}/tcp"
    assert list(options["ExposedPorts"]) == [port]
    [(bound, [address])] = options["HostConfig"]["PortBindings"].items()
    assert bound == port and address == {"HostIp": "127.0.0.1", "HostPort": str(web.port)}
    assert health_address(EDGE / "edge.yaml", os.environ) == f"http://127.0.0.1:{web.port}/healthz"


def host_and_variables(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    agent = json.loads(out.read_text())["modulesContent"]["$edgeAgent"]["properties.desired"]
    module = agent["modules"]["ppeEdge"]
    return json.loads(module["settings"]["createOptions"])["HostConfig"], module["env"]


def test_manifest_gives_module_its_accelerator(fill: Fill) -> None:
    values = VALUES | SECRETS
    host, _ = host_and_variables(fill(TEMPLATE, **values)[2])
    assert not {"DeviceRequests", "Devices", "GroupAdd"} & host.keys()
    cuda, variables = host_and_variables(fill(TEMPLATE, accelerator="cuda", **values)[2])
    assert cuda["DeviceRequests"] == [{"Count": -1, "Capabilities": [["gpu"]]}] and cuda["Memory"] > host["Memory"]
    assert variables["NVIDIA_DRIVER_CAPABILITIES"]["value"] == "compute,utility"
    code, output, _ = fill(TEMPLATE, accelerator="openvino", **values)
    assert code == 2 and "RENDER_GROUP: expected a value" in output
    openvino, _ = host_and_variables(fill(TEMPLATE, accelerator="openvino", RENDER_GROUP="993", **values)[2])
    assert openvino["Devices"][0]["PathInContainer"] == "/dev/dri" and openvino["GroupAdd"] == ["993"]


def test_second_module_has_its_own_folders_port_and_route(tmp_path: Path) -> None:
    out = tmp_path / "deployment.json"

    def run(second: str, template: Path = TEMPLATE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EDGE / "fill_manifest.py"), str(template), "--second", second, "--out", str(out)]
        environment = {"PATH": os.environ["PATH"]} | SECRETS | VALUES
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    done = run("ppePerson:8081")
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())["modulesContent"]
    modules = content["$edgeAgent"]["properties.desired"]["modules"]
    assert modules["ppePerson"]["settings"]["image"] == modules["ppeEdge"]["settings"]["image"]
    hosts = {n: json.loads(m["settings"]["createOptions"])["HostConfig"] for n, m in modules.items()}
    assert hosts["ppePerson"]["Binds"] == ["/etc/ppePerson:/etc/ppe_edge:ro", "/var/lib/ppePerson:/var/lib/ppe_edge"]
    assert [h["PortBindings"]["8080/tcp"][0]["HostPort"] for h in hosts.values()] == ["8080", "8081"]
    routes = content["$edgeHub"]["properties.desired"]["routes"]
    assert {r["route"] for r in routes.values()} == {
        f"FROM /messages/modules/{name}/outputs/* INTO $upstream" for name in ("ppeEdge", "ppePerson")
    }
    for second in ("ppeEdge:8081", "ppe person:8081", "ppePerson:80", "ppePerson"):
        done = run(second)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_manifest_accelerator_needs_the_template(fill: Fill) -> None:
    _, _, out = fill(TEMPLATE, **SECRETS, **VALUES)
    filled = out.rename(out.with_name("filled.json"))
    code, output, _ = fill(filled, accelerator="cuda")
    assert code == 2 and "--accelerator cuda: expected a template with createOptions of ppeEdge" in output


def test_loader_of_image_finds_libraries_in_wheels(tmp_path: Path) -> None:
    """The provider of onnxruntime-gpu has no RUNPATH, so the loader's configuration must name the folders."""
    [step] = [rest for name, rest in dockerfile()[-1] if name == "RUN" and "ldconfig" in rest]
    folders = [tmp_path / "lib/python3.11/site-packages/nvidia" / part / "lib" for part in ("cu13", "cudnn")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "libcublasLt.so.13").touch()
        (folder / "libcudart.so.13").touch()
    (tmp_path / "ld.so.conf.d").mkdir()
    step = step.replace("/opt/ppe_edge/lib", str(tmp_path / "lib")).replace("/etc/ld.so.conf.d", str(tmp_path / "ld.so.conf.d"))
    subprocess.run(["sh", "-euc", step.replace("ldconfig", "true")], check=True, timeout=60)
    assert set((tmp_path / "ld.so.conf.d/nvidia.conf").read_text().splitlines()) == {str(folder) for folder in folders}


def test_published_manifest_contains_no_secret(fill: Fill) -> None:
    code, output, out = fill(TEMPLATE, keep=("REGISTRY_PULL_PASSWORD", "WEB_TOKEN"), **VALUES)
    assert code == 0, output
    (credentials,) = json.loads(out.read_text())["modulesContent"]["$edgeAgent"]["properties.desired"]["runtime"]["settings"][
        "registryCredentials"
    ].values()
    assert credentials == {"address": "registry.example", "username": "box", "password": "${REGISTRY_PULL_PASSWORD}"}
    first = out.read_text()
    published = out.rename(out.with_name("published.json"))
    assert "${WEB_TOKEN}" in first
    code, output, out = fill(published, REGISTRY_PULL_PASSWORD="s3cret", WEB_TOKEN="t0ken")
    assert code == 0, output
    filled = first.replace("${REGISTRY_PULL_PASSWORD}", "s3cret").replace("${WEB_TOKEN}", "t0ken")
    assert out.read_text() == filled  # the second run changes nothing else


def test_missing_manifest_value_is_one_line(fill: Fill) -> None:
    code, output, out = fill(TEMPLATE, **(VALUES | {"MODULE_IMAGE": ""}))
    assert code == 2 and not out.exists()
    assert re.fullmatch(
        r"fill_manifest: error: \S+deployment.template.json: \w+: expected a value in the environment, got none: .+\n", output
    )


def test_oversized_create_options_are_rejected(fill: Fill, tmp_path: Path) -> None:
    template = tmp_path / "long.json"
    template.write_text(json.dumps({"image": "x", "createOptions": {"Env": ["a" * 5000]}}))
    code, output, _ = fill(template)
    assert code == 2 and "createOptions of x: expected at most 4096 bytes, got 50" in output
