"""Every property in azureml/infra/template.json is one that Microsoft's clients for the resource's provider know.

`.ci/checks` runs this with azure-cli, which brings most clients, and with azure-ai-ml, which brings the one for Azure ML. Most
clients are for later API versions, so this finds misspelt names, but not names that a version does not have yet. A property of
another resource of the same provider is not found either.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = json.loads((Path(__file__).resolve().parents[3] / "azureml/infra/template.json").read_text())
MODELS = {
    "Microsoft.Authorization": "azure.mgmt.authorization.models",
    "Microsoft.ContainerRegistry": "azure.mgmt.containerregistry.models",
    "Microsoft.Devices/IotHubs": "azure.mgmt.iothub.models",
    "Microsoft.Devices/provisioningServices": "azure.mgmt.iothubprovisioningservices.models",
    "Microsoft.Insights/actionGroups": "azure.mgmt.monitor.models",
    "Microsoft.Insights/components": "azure.mgmt.applicationinsights.v2020_02_02_preview.models",
    "Microsoft.Insights/metricAlerts": "azure.mgmt.monitor.models",
    "Microsoft.KeyVault": "azure.mgmt.keyvault.models",
    "Microsoft.MachineLearningServices": "azure.ai.ml._restclient.arm_ml_service.models",
    "Microsoft.OperationalInsights": "azure.mgmt.loganalytics.models",
    "Microsoft.Storage": "azure.mgmt.storage.models",
}
NAMED_BY_USER = {"userAssignedIdentities", "notifications"}  # mappings whose keys are free


def property_names(node: Any, parent: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if parent not in NAMED_BY_USER:
            yield key
        yield from property_names(value, key)
    for value in node if isinstance(node, list) else ():
        yield from property_names(value)


def known_names(module: Any) -> set[str]:
    """The names of all properties of all models, in JSON."""
    names: set[str] = set()
    for model in vars(module).values():
        for field in getattr(model, "_attribute_map", {}).values():  # older clients: properties.odata\\.type
            names |= {part.replace("\n", ".") for part in field["key"].replace("\\.", "\n").split(".")}
        if isinstance(model, type):
            fields = ((name, vars(field)) for name, field in vars(model).items() if hasattr(field, "__dict__"))
            names |= {field["_rest_name_input"] or name for name, field in fields if "_rest_name_input" in field}
    return names


@pytest.mark.parametrize("provider", MODELS)
def test_properties_are_known_to_the_client_of_the_provider(provider: str) -> None:
    known = known_names(pytest.importorskip(MODELS[provider]))
    resources = [r for r in TEMPLATE["resources"] if r["type"].startswith(provider)]
    assert resources
    for resource in resources:
        unknown = set(property_names(resource.get("properties", {}))) - known
        assert not unknown, f"{resource['type']}: {unknown}"


def test_every_resource_is_compared() -> None:
    others = {r["type"] for r in TEMPLATE["resources"] if not r["type"].startswith(tuple(MODELS))}
    # neither package has a client for budgets, and an identity has no properties
    assert others == {"Microsoft.Consumption/budgets", "Microsoft.ManagedIdentity/userAssignedIdentities"}
