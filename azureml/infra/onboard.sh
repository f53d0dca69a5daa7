#!/usr/bin/env bash
# Prints the config.toml of an edge device, and creates its enrolment group if there is none.
#   azureml/infra/onboard.sh GROUP DPS RING DEVICE > config.toml
# On the device: install aziot-edge 1.6, copy the file to /etc/aziot/config.toml (mode 600), run `iotedge config apply`.
# RING (canary, early or all) is a tag in the initial twin of the devices of the group ppe-RING; the roll-out selects devices by
# it. The file holds the derived key of this one device. Needs jq, and a shell that is logged in to Azure (az with azure-iot).
set -euo pipefail
user_error() {
    echo "onboard: $1" >&2
    exit 2
}
[ $# -eq 4 ] || user_error "expected GROUP DPS RING DEVICE, got $# arguments"
group=$1 dps=$2 ring=$3 device=$4
[[ $ring =~ ^(canary|early|all)$ ]] || user_error "expected the ring canary, early or all, got $ring"
[[ $device =~ ^[a-z0-9][a-z0-9-]{0,63}$ ]] || user_error "expected a device name of lower-case letters, digits and -, got $device"
service=(--resource-group "$group" --dps-name "$dps")

enrolled=$(az iot dps enrollment-group list "${service[@]}" --query '[].enrollmentGroupId' --output tsv)
if ! grep -qxF "ppe-$ring" <<<"$enrolled"; then
    az iot dps enrollment-group create "${service[@]}" --enrollment-id "ppe-$ring" --edge-enabled true \
        --initial-twin-tags "{\"ppe\": {\"ring\": \"$ring\"}}" --output none
fi
scope=$(az iot dps show --resource-group "$group" --name "$dps" --query properties.idScope --output tsv)
key=$(az iot dps enrollment-group compute-device-key "${service[@]}" --enrollment-id "ppe-$ring" \
    --registration-id "$device" --output tsv)
cat <<TOML
hostname = "$device"

[provisioning]
source = "dps"
global_endpoint = "https://global.azure-devices-provisioning.net"
id_scope = "$scope"

[provisioning.attestation]
method = "symmetric_key"
registration_id = "$device"
symmetric_key = { value = "$key" }
TOML
