#!/usr/bin/env bash
# Creates or updates the resource group with everything in it, and prints the values for the variable groups of the pipelines.
#   azureml/infra/set_up.sh SUBSCRIPTION GROUP LOCATION [PARAMETER=VALUE ...]
#   azureml/infra/set_up.sh my-subscription ppe westeurope deployPrincipalId=ID notifyEmail=site@example.org
# PARAMETERs are those of template.json, in addition to parameters.json. Needs jq, and `az login` as Owner of the subscription.
set -euo pipefail
user_error() {
    echo "set_up: $1" >&2
    exit 2
}
[ $# -ge 3 ] || user_error "expected SUBSCRIPTION GROUP LOCATION [PARAMETER=VALUE ...], got $# arguments"
subscription=$1 group=$2 location=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
known=$(jq -r '.parameters | keys[]' "$here/template.json")
for setting in "$@"; do
    grep -qxF "${setting%%=*}" <<<"$known" || user_error "${setting%%=*}: expected one of ${known//$'\n'/, }"
done

az account set --subscription "$subscription"
# A new subscription knows none of them, and refuses the deployment.
for provider in MachineLearningServices Devices Storage KeyVault ContainerRegistry ManagedIdentity Insights OperationalInsights Consumption; do
    az provider register --namespace "Microsoft.$provider" --wait
done
az group create --name "$group" --location "$location" --output none
outputs=$(az deployment group create --resource-group "$group" --name "ppe-$(date -u +%Y%m%d%H%M%S)" --mode Incremental \
    --template-file "$here/template.json" --parameters "$here/parameters.json" --parameters location="$location" "$@" \
    --query properties.outputs --output json)

jq -r --arg group "$group" --arg subscription "$(az account show --query id --output tsv)" '
    "ppe-infra: RESOURCE_GROUP=\($group)",
    "ppe-mlops: AZUREML_SUBSCRIPTION_ID=\($subscription) AZUREML_RESOURCE_GROUP=\($group)" +
        " AZUREML_WORKSPACE_NAME=\(.workspace.value) AZURE_STORAGE_ACCOUNT_NAME=\(.storage.value)",
    "ppe-edge: REGISTRY_NAME=\(.registry.value | split(".")[0]) REGISTRY=\(.registry.value) IOT_HUB=\(.iotHub.value)" +
        " REGISTRY_PULL_NAME=ppe-edge-box",
    "devices: DPS=\(.provisioning.value) SCOPE=\(.provisioningIdScope.value)"' <<<"$outputs"
