"""azureml/infra/set_up.sh and onboard.sh, run with a stand-in for `az`."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

INFRA = Path(__file__).resolve().parents[3] / "azureml/infra"
RunScript = Callable[..., Any]
OUTPUTS = {
    "workspace": "ppe-ml", "storage": "ppestore1", "registry": "pperegistry1.azurecr.io", "iotHub": "ppe-hub-1",
    "provisioning": "ppe-dps-1", "provisioningIdScope": "0ne00",
}  # fmt: skip
DEPLOYED = json.dumps({name: {"type": "String", "value": value} for name, value in OUTPUTS.items()})


def test_set_up_deploys_the_template_and_prints_the_variables(run_script: RunScript) -> None:
    done, calls = run_script(
        f"{INFRA}/set_up.sh sub-name ppe westeurope notifyEmail=site@example.org",
        {"deployment group create": (0, DEPLOYED), "account show": (0, "0000-1111")},
    )
    assert done.returncode == 0, done.stderr
    assert calls[0][:4] == ["account", "set", "--subscription", "sub-name"]
    registered = {c[c.index("--namespace") + 1] for c in calls if c[:2] == ["provider", "register"]}
    template = json.loads((INFRA / "template.json").read_text())
    used = {r["type"].split("/")[0] for r in template["resources"]} - {"Microsoft.Authorization"}
    assert used == registered
    (created,) = [c for c in calls if c[:3] == ["deployment", "group", "create"]]
    assert {"location=westeurope", "notifyEmail=site@example.org"} <= set(created)
    assert done.stdout.splitlines() == [
        "ppe-infra: RESOURCE_GROUP=ppe",
        "ppe-mlops: AZUREML_SUBSCRIPTION_ID=0000-1111 AZUREML_RESOURCE_GROUP=ppe AZUREML_WORKSPACE_NAME=ppe-ml"
        " AZURE_STORAGE_ACCOUNT_NAME=ppestore1",
        "ppe-edge: REGISTRY_NAME=pperegistry1 REGISTRY=pperegistry1.azurecr.io IOT_HUB=ppe-hub-1"
        " REGISTRY_PULL_NAME=ppe-edge-box",
        "devices: DPS=ppe-dps-1 SCOPE=0ne00",
    ]
    assert set(OUTPUTS) == set(template["outputs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sub ppe", "expected SUBSCRIPTION GROUP LOCATION"),
        ("sub ppe westeurope gpuSize=Standard_NC4as_T4_v3", "gpuSize: expected one of"),
    ],
)
def test_set_up_refuses_mistakes_before_it_changes_anything(run_script: RunScript, arguments: str, message: str) -> None:
    done, calls = run_script(f"{INFRA}/set_up.sh {arguments}", {})
    assert done.returncode == 2 and message in done.stderr and calls == []


def onboard(run_script: RunScript, groups: str) -> tuple[Any, list[list[str]]]:
    return run_script(
        f"{INFRA}/onboard.sh ppe ppe-dps-1 canary gate-1",
        {
            "iot dps enrollment-group list": (0, groups),
            "iot dps show": (0, "0ne00"),
            "iot dps enrollment-group compute-device-key": (0, "ZGV2aWNl"),
        },
    )


def test_onboard_creates_the_group_once_and_prints_the_config(run_script: RunScript) -> None:
    done, calls = onboard(run_script, "")
    assert done.returncode == 0, done.stderr
    config = tomllib.loads(done.stdout)
    assert config["hostname"] == "gate-1"
    assert config["provisioning"]["id_scope"] == "0ne00"
    assert config["provisioning"]["attestation"] == {
        "method": "symmetric_key", "registration_id": "gate-1", "symmetric_key": {"value": "ZGV2aWNl"},
    }  # fmt: skip
    (created,) = [c for c in calls if c[:4] == ["iot", "dps", "enrollment-group", "create"]]
    assert json.loads(created[created.index("--initial-twin-tags") + 1]) == {"ppe": {"ring": "canary"}}
    assert created[created.index("--edge-enabled") + 1] == "true"


def test_onboard_keeps_an_existing_group(run_script: RunScript) -> None:
    done, calls = onboard(run_script, "ppe-canary")
    assert done.returncode == 0
    assert not [c for c in calls if "create" in c]


@pytest.mark.parametrize(("ring", "device"), [("production", "gate-1"), ("canary", "Gate 1")])
def test_onboard_refuses_other_rings_and_names(run_script: RunScript, ring: str, device: str) -> None:
    done, calls = run_script(f"{INFRA}/onboard.sh ppe ppe-dps-1 '{ring}' '{device}'", {})
    assert done.returncode == 2 and calls == []
