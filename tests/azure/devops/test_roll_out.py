"""azureml/devops/roll_out.sh, with a stand-in for `az` that has the limits of the real command and hub."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

DEVOPS = Path(__file__).resolve().parents[3] / "azureml/devops"
MANIFEST = "manifest.json"
IMAGE = "registry/ppe-edge@sha256:new"
pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")

# The hub's state is in files: `polls`, one line per query of edgeAgent's twins (the last one stays), and `deployments`.
AZ = """#!{python}
import json, os, sys
from pathlib import Path
state, arguments = Path(os.environ["AZ_STATE"]), sys.argv[1:]
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
words = " ".join(arguments)
# as in azure-iot (base_discovery.py): with login, only a host name is used without a search in the subscription, for which
# the role IoT Hub Data Contributor gives no right
if "." not in arguments[arguments.index("--hub-name") + 1]:
    sys.exit("Unable to find IoT Hub in current subscription")
deployments = (state / "deployments").read_text().split()
polls = (state / "polls").read_text().splitlines()
if words.startswith("iot hub query"):
    if "moduleId = '$edgeAgent'" in words:
        if (state / "asked").exists():
            polls = polls[1:] or polls
            (state / "polls").write_text("\\n".join(polls))
        (state / "asked").touch()
    if polls[0] == "error":
        sys.exit("az: the hub is busy")
    kind = "agent" if "$edgeAgent" in words else "module" if "moduleId" in words else "device"
    print(json.dumps([device[kind] for device in json.loads(polls[0])]))
elif words.startswith("iot edge deployment list"):
    print("\\n".join(deployments))
else:
    name = arguments[arguments.index("--deployment-id") + 1]
    if arguments[3] == "create":
        if name in deployments:
            sys.exit("conflict: the deployment exists")
        deployments.append(name)
    elif arguments[3] == "delete":
        deployments.remove(name)
    (state / "deployments").write_text("\\n".join(deployments))
"""


@dataclass(kw_only=True)
class Device:
    """An edge device as the hub knows it; the defaults are those of a healthy device with the new build."""

    name: str = "box"
    connected: bool = True
    image: str = IMAGE
    status: str = "running"
    started_seconds_ago: int = 400
    model_reported_seconds_ago: int | None = 390
    code: int = 200

    def as_twins(self) -> dict[str, Any]:
        def time(seconds_ago: int) -> str:
            return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.1234567Z")

        module = {
            "settings": {"image": self.image},
            "runtimeStatus": self.status,
            "lastStartTimeUtc": time(self.started_seconds_ago),
        }
        agent = {
            "deviceId": self.name,
            "connectionState": "Connected" if self.connected else "Disconnected",
            "properties": {
                "desired": {"$version": 7, "modules": {"ppeEdge": {"settings": {"image": IMAGE}}}},
                "reported": {
                    "lastDesiredVersion": 7,
                    "lastDesiredStatus": {"code": self.code},
                    "modules": {"ppeEdge": module},
                },
            },
        }
        ago = self.model_reported_seconds_ago
        metadata = {} if ago is None else {"model": {"$lastUpdated": time(ago)}}
        reported = {"deviceId": self.name, "properties": {"reported": {"$metadata": metadata}}}
        return {"device": {"deviceId": self.name}, "agent": agent, "module": reported}


OLD = {"image": "registry/ppe-edge@sha256:old"}


def ring(count: int, **fields: Any) -> list[Device]:
    return [Device(name=f"box-{n}", **fields) for n in range(count)]


@dataclass
class Hub:
    """A hub in a folder, and the script's environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def prepare(self, polls: Sequence[list[Device] | str], deployments: Sequence[str] = ()) -> None:
        lines = [poll if isinstance(poll, str) else json.dumps([device.as_twins() for device in poll]) for poll in polls]
        (self.folder / "polls").write_text("\n".join(lines))
        (self.folder / "deployments").write_text("\n".join(deployments))

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(DEVOPS / "roll_out.sh"), *(arguments or (MANIFEST, "canary", "100"))],
            cwd=self.folder, env=self.environment | variables, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def deployments(self) -> list[str]:
        return (self.folder / "deployments").read_text().split()


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    az = tmp_path / "bin/az"
    az.parent.mkdir()
    az.write_text(AZ.format(python=sys.executable))
    az.chmod(az.stat().st_mode | stat.S_IXUSR)
    module = {"ppeEdge": {"settings": {"image": IMAGE}}}
    (tmp_path / MANIFEST).write_text(
        json.dumps({"modulesContent": {"$edgeAgent": {"properties.desired": {"modules": module}}}})
    )
    environment = {
        "PATH": f"{az.parent}:{os.environ['PATH']}",
        "AZ_STATE": str(tmp_path),
        "IOT_HUB": "hub",
        "POLL_SECONDS": "0",
    }
    return Hub(tmp_path, environment)


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_roll_out_ends_when_all_devices_are_healthy(hub: Hub) -> None:
    hub.prepare([ring(3, **OLD), ring(3, **OLD), "error", [*ring(2), Device(name="box-2", **OLD)], ring(3)])
    done = hub.run()
    assert done.returncode == 0, done.stderr
    (create,) = [c for c in hub.calls if c[3] == "create"]
    assert option(create, "--target-condition") == "tags.ppe.ring='canary'"
    assert option(create, "--priority") == "100"
    assert option(create, "--content") == MANIFEST
    assert all(option(c, "--auth-type") == "login" for c in hub.calls)
    assert all(option(c, "--hub-name") == "hub.azure-devices.net" for c in hub.calls)
    assert "3 connected devices: 2 healthy, 0 failed" in done.stdout
    assert hub.deployments == ["ppe-edge-canary-100"]


def test_roll_out_keeps_the_newest_three_deployments_of_the_ring(hub: Hub) -> None:
    others = ["ppe-edge-early-7", *(f"ppe-edge-canary-{n}" for n in (9, 8, 99, 7))]
    hub.prepare([ring(3)], others)
    assert hub.run().returncode == 0
    assert set(hub.deployments) == {"ppe-edge-early-7", "ppe-edge-canary-100", "ppe-edge-canary-99", "ppe-edge-canary-9"}


def test_roll_out_repeated_call_keeps_the_deployment(hub: Hub) -> None:
    hub.prepare([ring(3)], ["ppe-edge-canary-100"])
    done = hub.run()
    assert done.returncode == 0, done.stderr
    assert hub.deployments == ["ppe-edge-canary-100"]


def test_roll_out_ignores_devices_that_are_offline_at_the_start(hub: Hub) -> None:
    hub.prepare([[*ring(3), Device(name="off", connected=False, **OLD)]])
    done = hub.run()
    assert done.returncode == 0, done.stderr
    assert "3 connected devices: 3 healthy" in done.stdout


@pytest.mark.parametrize(("good", "bad", "code"), [(19, 1, 0), (18, 2, 1)])
def test_roll_out_accepts_95_percent_of_the_devices(hub: Hub, good: int, bad: int, code: int) -> None:
    hub.prepare([[*ring(good), *(Device(name=f"bad-{n}", status="backoff") for n in range(bad))]])
    assert hub.run().returncode == code


@pytest.mark.parametrize(
    "fields",
    [{"status": "backoff"}, {"status": "failed"}, {"status": "unhealthy"}, {"code": 500, **OLD}],
    ids=["crash loop", "failed", "unhealthy", "manifest not applied"],
)
def test_roll_out_failed_device_takes_the_build_back(hub: Hub, fields: dict[str, Any]) -> None:
    hub.prepare([[*ring(2), Device(name="bad", **fields)]])
    done = hub.run()
    assert done.returncode == 1
    assert done.stderr.strip() == "ppe-edge-canary-100: taken back: 1 of 3 devices failed"
    assert hub.deployments == []


@pytest.mark.parametrize(
    "fields",
    [OLD, {"started_seconds_ago": 100}, {"model_reported_seconds_ago": None}, {"model_reported_seconds_ago": 900}],
    ids=["old build", "restarted lately", "no model reported", "model reported by the build before"],
)
def test_roll_out_device_without_proof_of_health_takes_the_build_back(hub: Hub, fields: dict[str, Any]) -> None:
    hub.prepare([[*ring(2), Device(name="waiting", **fields)]])
    done = hub.run(WAIT_SECONDS="1", POLL_SECONDS="0.2")
    assert done.returncode == 1
    assert done.stderr.strip() == ("ppe-edge-canary-100: taken back: 2 of 3 devices are healthy after 1 s, 3 required")


def test_roll_out_failed_ring_takes_earlier_rings_back(hub: Hub) -> None:
    hub.prepare([ring(3, status="failed")], ["ppe-edge-canary-100", "ppe-edge-canary-99", "ppe-edge-early-99"])
    assert hub.run(MANIFEST, "early", "100").returncode == 1
    assert hub.deployments == ["ppe-edge-canary-99", "ppe-edge-early-99"]


@pytest.mark.parametrize(
    ("devices", "arguments", "reason"),
    [
        ([], (MANIFEST, "canary", "100"), "expected devices whose twin has the tag ppe.ring=canary, got none"),
        (ring(2, connected=False), (MANIFEST, "canary", "100"), "expected connected devices in the ring canary, got none of 2"),
        (ring(3), ("absent.json", "canary", "100"), "absent.json: no such file"),
        (ring(3), ("other.json", "canary", "100"), "other.json: expected a manifest with the module ppeEdge"),
        (ring(3), (MANIFEST, "canary' or true", "100"), "expected a ring of lower-case letters, got canary' or true"),
        (ring(3), (MANIFEST, "canary", "1.2"), "expected a build number, got 1.2"),
        (ring(3), (MANIFEST,), "expected MANIFEST RING BUILD, got 1 arguments"),
    ],
)
def test_roll_out_user_error_changes_nothing(hub: Hub, devices: list[Device], arguments: tuple[str, ...], reason: str) -> None:
    hub.prepare([devices], ["ppe-edge-canary-99"])
    (hub.folder / "other.json").write_text('{"modulesContent": {}}')
    done = hub.run(*arguments)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, f"roll_out: {reason}")
    assert hub.deployments == ["ppe-edge-canary-99"]


def test_roll_out_stopped_job_deletes_its_deployment(hub: Hub) -> None:
    hub.prepare([ring(3, **OLD)], ["ppe-edge-early-100"])
    script = subprocess.Popen(
        ["bash", str(DEVOPS / "roll_out.sh"), MANIFEST, "canary", "100"],
        cwd=hub.folder, env=hub.environment | {"POLL_SECONDS": "0.1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert script.stdout is not None
    script.stdout.readline()  # the script is waiting for devices
    script.terminate()
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert errors.strip().endswith("ppe-edge-canary-100: taken back: stopped")
    assert hub.deployments == ["ppe-edge-early-100"]
