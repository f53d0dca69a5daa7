"""azureml/infra/template.json, checked without Azure: this module evaluates the template's expressions itself."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppe_yolo.azure.lint.vm_sizes import supports_vm_size

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "azureml/infra/template.json"
PARAMETERS = ROOT / "azureml/infra/parameters.json"
GROUP = "/subscriptions/0/resourceGroups/ppe"
TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(\d+)|([A-Za-z]\w*)|(.))")
# from https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
BUILT_IN = {
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": "Key Vault Administrator",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "4fc6c259-987e-4a07-842e-c321cc9d413f": "IoT Hub Data Contributor",
    "69566ab7-960f-475b-8e7c-b3118f30c6bd": "Storage File Data Privileged Contributor",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "f6c7c914-8db3-469d-8ca1-694a8f32e121": "AzureML Data Scientist",
}
# from bicep-types-az: the versions with all properties that the template uses
API_VERSIONS = {
    "Microsoft.Authorization/roleAssignments": "2022-04-01",
    "Microsoft.Consumption/budgets": "2023-11-01",
    "Microsoft.ContainerRegistry/registries": "2023-07-01",
    "Microsoft.Devices/IotHubs": "2023-06-30",
    "Microsoft.Devices/provisioningServices": "2022-02-05",
    "Microsoft.Insights/actionGroups": "2023-01-01",
    "Microsoft.Insights/components": "2020-02-02",
    "Microsoft.Insights/metricAlerts": "2018-03-01",
    "Microsoft.KeyVault/vaults": "2023-07-01",
    "Microsoft.MachineLearningServices/workspaces": "2025-06-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "2023-01-31",
    "Microsoft.OperationalInsights/workspaces": "2023-09-01",
    "Microsoft.Storage/storageAccounts": "2023-05-01",
}
# what a property accepts (bicep-types-az, and the clients of azure-cli), and the limits of the hub's endpoints
MINUTES = {"PT1M", "PT5M", "PT15M", "PT30M", "PT1H"}
ACCEPTED: dict[str, Any] = {
    "accessTier": {"Hot", "Cool", "Premium"},
    "allocationPolicy": {"Hashed", "GeoLatency", "Static"},
    "authenticationType": {"keyBased", "identityBased"},
    "batchFrequencyInSeconds": range(60, 721),
    "bypass": {"AzureServices", "None"},
    "category": {"Cost"},
    "computeType": {"AmlCompute"},
    "credentialsType": {"None"},
    "criterionType": {"StaticThresholdCriterion"},
    "datastoreType": {"AzureBlob"},
    "defaultAction": {"Allow", "Deny"},
    "encoding": {"JSON", "Avro", "AvroDeflate"},
    "evaluationFrequency": MINUTES,
    "fileNameFormat": {"{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}"},
    "maxChunkSizeInBytes": range(10_485_760, 524_288_001),
    "metricName": {"RoutingDeliveries"},
    "minimumTlsVersion": {"TLS1_2", "TLS1_3"},
    "operator": {"Include", "GreaterThan"},
    "principalType": {"ServicePrincipal"},
    "publicAccess": {"None"},
    "publicNetworkAccess": {"Enabled", "Disabled"},
    "remoteLoginPortPublicAccess": {"Enabled", "Disabled", "NotSpecified"},
    "serviceDataAccessAuthIdentity": {"None", "WorkspaceSystemAssignedIdentity", "WorkspaceUserAssignedIdentity"},
    "source": {"DeviceMessages"},
    "status": {"enabled", "disabled"},
    "systemDatastoresAuthMode": {"accesskey", "identity", "userdelegationsas"},
    "thresholdType": {"Actual", "Forecasted"},
    "timeAggregation": {"Average", "Minimum", "Maximum", "Total", "Count"},
    "timeGrain": {"Monthly", "Quarterly", "Annually"},
    "vmPriority": {"Dedicated", "LowPriority"},
    "windowSize": MINUTES | {"PT6H", "PT12H", "P1D"},
}
SKUS = {
    "Microsoft.ContainerRegistry/registries": {"Basic", "Standard", "Premium"},
    "Microsoft.Devices/IotHubs": {"S1", "S2", "S3"},
    "Microsoft.Devices/provisioningServices": {"S1"},
    "Microsoft.Storage/storageAccounts": {"Standard_LRS", "Standard_ZRS", "Standard_GRS"},
}


class Deployment:
    """A template with its parameters. Evaluates expressions and records the resources that they refer to."""

    def __init__(self, template: dict[str, Any], given: dict[str, Any]) -> None:
        self.template, self.given, self.copy_index, self.referenced = template, given, 0, set[str]()

    def value(self, node: Any) -> Any:
        """A node with every `[expression]` evaluated."""
        if isinstance(node, dict):
            return {self.value(key): self.value(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.value(value) for value in node]
        if not isinstance(node, str) or not (node.startswith("[") and node.endswith("]")):
            return node
        tokens = TOKEN.findall(node[1:-1])
        result, rest = self._expression(tokens)
        assert not rest, f"{node}: cannot parse {rest}"
        return result

    def _expression(self, tokens: list[tuple[str, ...]]) -> tuple[Any, list[tuple[str, ...]]]:
        (text, number, name, sign), tokens = tokens[0], tokens[1:]
        if name:
            assert tokens[0][3] == "(", f"{name}: expected ("
            arguments, tokens = [], tokens[1:]
            while tokens[0][3] != ")":
                argument, tokens = self._expression(tokens)
                arguments.append(argument)
                tokens = tokens[1:] if tokens[0][3] == "," else tokens
            result, tokens = getattr(self, f"_{name}")(*arguments), tokens[1:]
        else:
            assert not sign, f"expected a value, got {sign}"
            result = int(number) if number else text.replace("''", "'")
        while tokens and tokens[0][3] in (".", "["):
            if tokens[0][3] == ".":
                key, tokens = tokens[1][2], tokens[2:]
            else:
                key, tokens = self._expression(tokens[1:])
                assert tokens[0][3] == "]"
                tokens = tokens[1:]
            result = result[key]
        return result, tokens

    def _parameters(self, name: str) -> Any:
        declared = self.template["parameters"][name]
        return self.given[name] if name in self.given else self.value(declared["defaultValue"])

    def _variables(self, name: str) -> Any:
        return self.value(self.template["variables"][name])

    def _resourceId(self, kind: str, *names: str) -> str:  # noqa: N802
        provider, *kinds = kind.split("/")
        assert len(kinds) == len(names), f"resourceId of {kind}: {len(kinds)} names expected, got {names}"
        return f"{GROUP}/providers/{provider}/" + "/".join(f"{k}/{n}" for k, n in zip(kinds, names, strict=True))

    def _reference(self, resource: str, version: str, full: str = "") -> dict[str, Any]:
        self.referenced.add(resource)
        if full:
            return {"identity": {"principalId": f"<of {resource}>"}}
        return dict.fromkeys(("principalId", "hostName", "loginServer", "idScope"), f"<of {resource}>")

    def _listKeys(self, resource: str, version: str) -> dict[str, str]:  # noqa: N802
        self.referenced.add(re.sub(r"/IotHubKeys/\w+$", "", resource))
        return {"primaryKey": f"<key of {resource}>"}

    def _subscriptionResourceId(self, kind: str, name: str) -> str:  # noqa: N802
        return f"/subscriptions/0/providers/{kind}/{name}"

    _concat = staticmethod(lambda *parts: "".join(parts))
    _take = staticmethod(lambda text, count: text[:count])
    _length = staticmethod(len)
    _empty = staticmethod(lambda value: not value)
    _not = staticmethod(lambda value: not value)
    _guid = staticmethod(lambda *parts: str(uuid.uuid5(uuid.NAMESPACE_URL, "-".join(parts))))
    _uniqueString = staticmethod(lambda *parts: uuid.uuid5(uuid.NAMESPACE_URL, "-".join(parts)).hex[:13])  # noqa: N815
    _resourceGroup = staticmethod(lambda: {"id": GROUP, "location": "westeurope"})  # noqa: N815
    _utcNow = staticmethod(lambda form: "2026-11-01")  # noqa: N815
    _subscription = staticmethod(lambda: {"tenantId": str(uuid.UUID(int=0))})
    _environment = staticmethod(lambda: {"suffixes": {"storage": "core.windows.net"}})

    def _copyIndex(self) -> int:  # noqa: N802
        return self.copy_index

    def resources(self) -> Iterator[dict[str, Any]]:
        """Every resource whose condition holds, with copies expanded."""
        for resource in self.template["resources"]:
            for index in range(self.value(resource["copy"]["count"]) if "copy" in resource else 1):
                self.copy_index = index
                if self.value(resource.get("condition", True)):
                    yield self.value(resource)


def identity_of(resource: dict[str, Any]) -> str:
    kinds, names = resource["type"].split("/"), resource["name"].split("/")
    return f"{GROUP}/providers/{kinds[0]}/" + "/".join(f"{k}/{n}" for k, n in zip(kinds[1:], names, strict=True))


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return json.loads(TEMPLATE.read_text())


@pytest.fixture(scope="module")
def deploy(template: dict[str, Any]) -> Callable[..., tuple[Deployment, list[dict[str, Any]]]]:
    """`deploy(name="ppe")`: the deployment and its resources, with parameters.json and these parameters."""

    def run(**given: Any) -> tuple[Deployment, list[dict[str, Any]]]:
        file = {key: value["value"] for key, value in json.loads(PARAMETERS.read_text())["parameters"].items()}
        deployment = Deployment(template, file | given)
        return deployment, list(deployment.resources())

    return run


def of_type(resources: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r for r in resources if r["type"] == kind]


def test_template_references_only_resources_that_it_creates(deploy: Callable[..., Any]) -> None:
    deployment, resources = deploy(deployPrincipalId="someone")
    deployment.value(deployment.template["outputs"])
    made = Counter(identity_of(r) for r in resources)
    assert max(made.values()) == 1
    copies = {r["copy"]["name"] for r in resources if "copy" in r}
    needed = {d for r in resources for d in r.get("dependsOn", [])}
    assert needed - copies <= set(made)
    assert deployment.referenced <= set(made)
    text = json.dumps([r["properties"] for r in resources if "properties" in r])
    assert set(re.findall(rf'"({GROUP}/[^"]+)"', text)) <= set(made)


def test_template_resources_depend_on_the_resources_that_they_name(deploy: Callable[..., Any]) -> None:
    _, resources = deploy(deployPrincipalId="someone")
    made = {identity_of(r): r for r in resources}
    copies = {
        r["copy"]["name"]: {identity_of(c) for c in resources if c.get("copy") == r["copy"]} for r in resources if "copy" in r
    }

    def before(resource: dict[str, Any]) -> set[str]:
        direct = {i for d in resource.get("dependsOn", []) for i in copies.get(d, {d})}
        return direct.union(*(before(made[i]) for i in direct))

    for resource in resources:
        text = json.dumps([resource.get("properties"), resource.get("identity")])
        named = {i for i in made if re.search(rf"{re.escape(i)}(?![/\w-])", text)}
        assert named <= before(resource), resource["name"]
        if "scope" in resource:
            assert f"{GROUP}/providers/{resource['scope']}" in before(resource)


def test_template_identities_get_roles_before_they_are_used(template: dict[str, Any]) -> None:
    users = [r for r in template["resources"] if r.get("identity", {}).get("type") == "UserAssigned"]
    grants = {r["type"]: {"grants", "clusterGrants"} & set(r["dependsOn"]) for r in users}
    assert grants == {
        "Microsoft.MachineLearningServices/workspaces": {"grants"},
        "Microsoft.MachineLearningServices/workspaces/computes": {"clusterGrants"},
        "Microsoft.Devices/IotHubs": {"grants"},
    }


def test_template_parameters_are_declared_used_and_not_secret(template: dict[str, Any]) -> None:
    given = json.loads(PARAMETERS.read_text())["parameters"]
    assert set(given) <= set(template["parameters"])
    for name, parameter in template["parameters"].items():
        assert parameter["type"] not in ("securestring", "secureObject")
        assert not re.search(r"password|secret|key", name, re.IGNORECASE)
        used = f"parameters('{name}')"
        assert used in json.dumps([template["variables"], template["resources"]]), f"{name} is not used"
    assert all(f"variables('{name}')" in json.dumps(template) for name in template["variables"])
    outputs = json.dumps(template["outputs"])
    assert "listKeys" not in outputs and "connectionString" not in outputs


def test_template_uses_one_stable_api_version_per_type(template: dict[str, Any]) -> None:
    versions: dict[str, set[str]] = {}
    for resource in template["resources"]:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", resource["apiVersion"]), f"{resource['type']}: no preview versions"
        versions.setdefault(resource["type"], set()).add(resource["apiVersion"])
    assert all(len(v) == 1 for v in versions.values())
    for kind, (version,) in versions.items():
        assert version == API_VERSIONS["/".join(kind.split("/")[:2])], kind
    text = TEMPLATE.read_text()
    for kind, version in re.findall(r"resourceId\('([\w./]+)', (?:[^()]|\([^()]*\))*\), '(20[\d-]+)'\)", text):
        assert version in versions[kind.removesuffix("/IotHubKeys")], kind


def test_role_assignment_names_are_unique_and_stable(deploy: Callable[..., Any]) -> None:
    _, first = deploy(deployPrincipalId="someone")
    _, second = deploy(deployPrincipalId="someone")
    names = [r["name"] for r in of_type(first, "Microsoft.Authorization/roleAssignments")]
    assert names == [r["name"] for r in of_type(second, "Microsoft.Authorization/roleAssignments")]
    assert len(set(names)) == len(names) == 18
    assert all(uuid.UUID(name) for name in names)
    _, other = deploy(deployPrincipalId="another")
    changed = set(names) - {r["name"] for r in of_type(other, "Microsoft.Authorization/roleAssignments")}
    assert len(changed) == 4  # only those of the deployment identity


def test_roles_are_least_privilege(template: dict[str, Any], deploy: Callable[..., Any]) -> None:
    roles = template["variables"]["roles"]
    assert {role: name for name, role in roles.items()} == BUILT_IN
    needed = {
        ("storage", "Storage Blob Data Contributor"),
        ("storage", "Storage Queue Data Contributor"),
        ("storage", "Storage Table Data Contributor"),
        ("registry", "AcrPull"),
        ("workspace", "AzureML Data Scientist"),
    }
    assert {(g["scope"], g["role"]) for g in template["variables"]["clusterGrants"]} == needed
    assert not [g for g in template["variables"]["deployGrants"] if g["role"] == "Contributor"]
    _, resources = deploy()
    assert (
        len(of_type(resources, "Microsoft.Authorization/roleAssignments")) == 14
    )  # none for a deployment identity that is not given


def pairs(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with a plain value below a node."""
    if isinstance(node, dict):
        yield from ((key, value) for key, value in node.items() if not isinstance(value, dict | list))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from pairs(child)


def test_template_values_are_accepted_by_azure(deploy: Callable[..., Any]) -> None:
    deployment, resources = deploy(deployPrincipalId="someone", notifyEmail="site@example.org")
    found = [(r["type"], key, value) for r in resources for key, value in pairs(r.get("properties", {}))]
    assert {key for _, key, _ in found} >= set(ACCEPTED)
    assert [entry for entry in found if entry[1] in ACCEPTED and entry[2] not in ACCEPTED[entry[1]]] == []
    durations = [value for _, key, value in found if key == "nodeIdleTimeBeforeScaleDown"]
    assert all(re.fullmatch(r"PT\d+[MS]", str(value)) for value in durations) and durations
    for kind, names in SKUS.items():
        assert {r["sku"]["name"] for r in of_type(resources, kind)} <= names, kind
    assert of_type(resources, "Microsoft.Storage/storageAccounts")[0]["kind"] == "StorageV2"
    (scope_map,) = of_type(resources, "Microsoft.ContainerRegistry/registries/scopeMaps")
    actions = r"repositories/[\w-]+/(content|metadata)/(read|write|delete)"
    assert all(re.fullmatch(actions, action) for action in scope_map["properties"]["actions"])
    for name, value in deployment.given.items():
        declared = deployment.template["parameters"][name]
        assert value in declared.get("allowedValues", [value]), name


def test_template_disables_keys_and_public_access(deploy: Callable[..., Any]) -> None:
    _, resources = deploy()
    (storage,) = of_type(resources, "Microsoft.Storage/storageAccounts")
    assert storage["properties"]["allowSharedKeyAccess"] is False
    assert storage["properties"]["allowBlobPublicAccess"] is False
    assert storage["properties"]["minimumTlsVersion"] == "TLS1_2"
    (registry,) = of_type(resources, "Microsoft.ContainerRegistry/registries")
    assert registry["properties"] == {"adminUserEnabled": False, "anonymousPullEnabled": False}
    (vault,) = of_type(resources, "Microsoft.KeyVault/vaults")
    assert vault["properties"]["enableRbacAuthorization"] is True
    assert vault["properties"]["publicNetworkAccess"] == "Disabled"
    (workspace,) = of_type(resources, "Microsoft.MachineLearningServices/workspaces")
    assert workspace["properties"]["systemDatastoresAuthMode"] == "identity"
    # the first stable version whose WorkspaceProperties have it (bicep-types-az); storage has no shared keys to fall back to
    assert workspace["apiVersion"] >= "2025-06-01"
    (hub,) = of_type(resources, "Microsoft.Devices/IotHubs")
    assert hub["properties"]["authorizationPolicies"] == [
        {"keyName": "provisioning", "rights": "RegistryWrite, ServiceConnect"}
    ]
    containers = [c["name"] for c in of_type(resources, "Microsoft.Storage/storageAccounts/blobServices/containers")]
    for endpoint in hub["properties"]["routing"]["endpoints"]["storageContainers"]:
        assert endpoint["authenticationType"] == "identityBased"
        assert endpoint["endpointUri"] == f"https://{storage['name']}.blob.core.windows.net/"
        assert f"{storage['name']}/default/{endpoint['containerName']}" in containers


def test_personal_data_is_deleted_after_its_retention_time(deploy: Callable[..., Any]) -> None:
    _, resources = deploy(alertRetentionDays=30, sampleRetentionDays=40, runRetentionDays=50)
    (policy,) = of_type(resources, "Microsoft.Storage/storageAccounts/managementPolicies")
    rules = policy["properties"]["policy"]["rules"]
    assert all(rule["enabled"] and rule["type"] == "Lifecycle" for rule in rules)
    days = {r["definition"]["filters"]["prefixMatch"][0]: r["definition"]["actions"]["baseBlob"]["delete"] for r in rules}
    assert days == {
        f"{container}/": {"daysAfterModificationGreaterThan": number}
        for container, number in (("alerts", 30), ("samples", 40), ("runs", 50))
    }
    (hub,) = of_type(resources, "Microsoft.Devices/IotHubs")
    written = {e["containerName"] for e in hub["properties"]["routing"]["endpoints"]["storageContainers"]}
    datastores = {
        d["name"].split("/")[1]: d["properties"]["containerName"]
        for d in of_type(resources, "Microsoft.MachineLearningServices/workspaces/datastores")
    }
    # every pipeline with outputs, which may be copies of images
    pipelines = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "azureml").rglob("*.yml"))]
    stores = {p["settings"].get("default_datastore") for p in pipelines if p.get("type") == "pipeline" and "outputs" in p}
    outputs = datastores[stores.pop().removeprefix("azureml:")]
    assert not stores
    assert {f"{name}/" for name in (*written, outputs)} == set(days)


def test_hub_routes_samples_and_alerts_to_different_containers(deploy: Callable[..., Any]) -> None:
    _, resources = deploy()
    (hub,) = of_type(resources, "Microsoft.Devices/IotHubs")
    routes = {r["name"]: (r["condition"], r["endpointNames"]) for r in hub["properties"]["routing"]["routes"]}
    assert routes["sampled"] == ("kind = 'sample'", ["samples"])
    assert routes["kept"] == ("NOT IS_DEFINED(kind) OR kind <> 'sample'", ["alerts"])


def test_mails_and_budget_need_an_address(deploy: Callable[..., Any]) -> None:
    kinds = ("Microsoft.Insights/actionGroups", "Microsoft.Insights/metricAlerts", "Microsoft.Consumption/budgets")
    _, silent = deploy()
    assert not [r for r in silent if r["type"] in kinds]
    _, resources = deploy(notifyEmail="site@example.org", monthlyBudget=700)
    (group,), (alert,), (budget,) = (of_type(resources, kind) for kind in kinds)
    assert group["properties"]["emailReceivers"][0]["emailAddress"] == "site@example.org"
    assert len(group["properties"]["groupShortName"]) <= 12
    (criterion,) = alert["properties"]["criteria"]["allOf"]
    dimensions = {d["name"]: d["values"] for d in criterion["dimensions"]}
    assert dimensions["EndpointName"] == ["alerts"]
    assert budget["properties"]["amount"] == 700
    assert re.fullmatch(r"\d{4}-\d\d-01", budget["properties"]["timePeriod"]["startDate"])  # the first of a month
    mails = [n["contactEmails"] for n in budget["properties"]["notifications"].values()]
    assert mails == [["site@example.org"]] * 2


def test_clusters_match_the_compute_files_and_scale_to_zero(deploy: Callable[..., Any]) -> None:
    _, resources = deploy()
    clusters = {
        r["name"].split("/")[1]: r["properties"]
        for r in of_type(resources, "Microsoft.MachineLearningServices/workspaces/computes")
    }
    files = [yaml.safe_load(f.read_text()) for f in sorted((ROOT / "azureml/compute").glob("*.yml"))]
    assert [f["min_instances"] for f in files] == [0, 0]
    assert {f["name"]: f["size"] for f in files} == {name: c["properties"]["vmSize"] for name, c in clusters.items()}
    computes = of_type(resources, "Microsoft.MachineLearningServices/workspaces/computes")
    # a parallel job on storage without shared keys needs a user-assigned identity; it also survives a recreated cluster
    identities = [list(c["identity"]["userAssignedIdentities"]) for c in computes]
    assert identities == [[f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ppe-cluster-identity"]] * 2
    tiers = {"LowPriority": "low_priority", "Dedicated": "dedicated"}
    assert {f["name"]: f["tier"] for f in files} == {n: tiers[c["properties"]["vmPriority"]] for n, c in clusters.items()}
    for cluster in clusters.values():
        assert supports_vm_size(cluster["properties"]["vmSize"])
        assert cluster["properties"]["scaleSettings"]["minNodeCount"] == 0
        assert cluster["disableLocalAuth"] is True


@pytest.mark.parametrize("name", ["ppe", "abcdefghij"])
def test_resource_names_match_the_patterns_of_azure(deploy: Callable[..., Any], name: str) -> None:
    _, resources = deploy(name=name)
    limits = {
        "Microsoft.Storage/storageAccounts": r"[a-z0-9]{3,24}",
        "Microsoft.KeyVault/vaults": r"[a-z][a-z0-9-]{2,23}",
        "Microsoft.ContainerRegistry/registries": r"[a-z0-9]{5,50}",
        "Microsoft.MachineLearningServices/workspaces": r"[a-z0-9][a-z0-9-]{2,32}",
        "Microsoft.Devices/IotHubs": r"[a-z0-9-]{3,50}",
        "Microsoft.Devices/provisioningServices": r"[a-z0-9-]{3,64}",
    }
    for kind, pattern in limits.items():
        (resource,) = of_type(resources, kind)
        assert re.fullmatch(pattern, resource["name"]), resource["name"]
