#!/usr/bin/env bash
# Deploys a manifest to the edge devices of one ring and waits until they run it in good health.
#   IOT_HUB=NAME roll_out.sh MANIFEST RING BUILD
# A device is healthy when its module ppeEdge has the manifest's image, has been running for HEALTHY_SECONDS (300) and has reported
# its model since it started. MIN_SHARE (95) percent of the devices that are connected at the start must become healthy within
# WAIT_SECONDS (1800), checked every POLL_SECONDS (30). Devices that are offline get the build when they connect.
# If too many devices fail, or the time is up, the deployments of this build are deleted in every ring, and the devices return to
# the build before. A repeated call keeps an existing deployment of the build.
# Exit code 0: healthy; 1: taken back; 2: a user error. Needs jq, and a shell that is logged in to Azure (az with azure-iot).
set -euo pipefail
user_error() {
    echo "roll_out: $1" >&2
    exit 2
}
[ $# -eq 3 ] || user_error "expected MANIFEST RING BUILD, got $# arguments"
[ -n "${IOT_HUB:-}" ] || user_error "IOT_HUB: expected the name of the hub, got none"
manifest=$1 ring=$2 build=$3
limit=${WAIT_SECONDS:-1800} poll=${POLL_SECONDS:-30} healthy_seconds=${HEALTHY_SECONDS:-300} share=${MIN_SHARE:-95}
[[ $ring =~ ^[a-z]+$ ]] || user_error "expected a ring of lower-case letters, got $ring"
[[ $build =~ ^[0-9]+$ ]] || user_error "expected a build number, got $build"
[ -r "$manifest" ] || user_error "$manifest: no such file"
image=$(jq -er '.modulesContent["$edgeAgent"]["properties.desired"].modules.ppeEdge.settings.image' "$manifest") ||
    user_error "$manifest: expected a manifest with the module ppeEdge"

# A bare name makes azure-iot search the subscription, which the role IoT Hub Data Contributor does not allow.
[[ $IOT_HUB == *.* ]] || IOT_HUB=$IOT_HUB.azure-devices.net
hub=(--hub-name "$IOT_HUB" --auth-type login)
condition="tags.ppe.ring='$ring'"
id="ppe-edge-$ring-$build"

query() { az iot hub query "${hub[@]}" --output json --query-command "$1"; }
agents() { query "select * from devices.modules where moduleId = '\$edgeAgent'"; }
deployments() { az iot edge deployment list "${hub[@]}" --query '[].id' --output tsv; }

devices=$(query "select deviceId from devices where capabilities.iotEdge = true and $condition" | jq -c 'map(.deviceId)')
[ "$devices" != "[]" ] || user_error "expected devices whose twin has the tag ppe.ring=$ring, got none"
connected=$(agents | jq -c --argjson devices "$devices" \
    'map(select(.connectionState == "Connected" and IN(.deviceId; $devices[])).deviceId)')
total=$(jq length <<<"$connected")
[ "$total" -gt 0 ] || user_error "expected connected devices in the ring $ring, got none of $(jq length <<<"$devices")"
required=$(((total * share + 99) / 100))

take_back() {
    trap - INT TERM
    deployments | grep -E "^ppe-edge-[a-z]+-$build\$" | while read -r each; do
        az iot edge deployment delete "${hub[@]}" --deployment-id "$each"
    done
    echo "$id: taken back: $1" >&2
    exit 1
}
stop() {
    trap - INT TERM
    az iot edge deployment delete "${hub[@]}" --deployment-id "$id"
    echo "$id: taken back: stopped" >&2
    exit 1
}
trap stop INT TERM

# A device applies the deployment with the highest priority, which is that of the newest build.
if deployments | grep -qx "$id"; then
    echo "$id: already exists"
else
    az iot edge deployment create "${hub[@]}" --deployment-id "$id" --content "$manifest" --target-condition "$condition" \
        --priority "$build" --output none
fi

# Counts healthy and failed devices. Input: the twins of edgeAgent and of ppeEdge. edgeAgent's code is 200 when it applied the manifest.
# shellcheck disable=SC2016 # variables of jq
count='
def seconds: (.[0:19] + "Z" | fromdate);
($modules | map({(.deviceId): .properties.reported["$metadata"].model["$lastUpdated"]}) | add // {}) as $model_reported
| map(select(IN(.deviceId; $connected[])))
| map(.deviceId as $device | .properties as $twin | $twin.reported.modules.ppeEdge as $ppe |
    if $twin.desired.modules.ppeEdge.settings.image == $image
        and $twin.reported.lastDesiredVersion == $twin.desired["$version"]
        and ($twin.reported.lastDesiredStatus.code // 200) >= 400 then "failed"
    elif $ppe.settings.image != $image then "waiting"
    elif IN($ppe.runtimeStatus; "backoff", "failed", "unhealthy") then "failed"
    elif $ppe.runtimeStatus == "running"
        and now - ($ppe.lastStartTimeUtc | seconds) >= $healthy_seconds
        and $model_reported[$device] != null
        and ($model_reported[$device] | seconds) >= ($ppe.lastStartTimeUtc | seconds) then "healthy"
    else "waiting" end)
| "\(map(select(. == "healthy")) | length) \(map(select(. == "failed")) | length)"'

healthy=0 failed=0 deadline=$((SECONDS + limit))
while [ "$healthy" -lt "$required" ]; do
    [ "$SECONDS" -lt "$deadline" ] || take_back "$healthy of $total devices are healthy after $limit s, $required required"
    sleep "$poll" & # in the background, since bash handles signals only after a foreground command
    wait $!
    # a hub that does not answer is asked again
    twins=$(agents) || continue
    modules=$(query "select * from devices.modules where moduleId = 'ppeEdge'") || continue
    counts=$(jq -r --argjson connected "$connected" --arg image "$image" --argjson healthy_seconds "$healthy_seconds" \
        --slurpfile slurped <(echo "$modules") "\$slurped[0] as \$modules | $count" <<<"$twins") || continue
    read -r healthy failed <<<"$counts"
    echo "$id: $total connected devices: $healthy healthy, $failed failed"
    [ "$failed" -le $((total - required)) ] || take_back "$failed of $total devices failed"
done
trap - INT TERM

# A hub holds at most 100 deployments: the newest three of each ring are kept.
deployments | grep -E "^ppe-edge-$ring-[0-9]+\$" | sort --version-sort --reverse | tail -n +4 | while read -r old; do
    az iot edge deployment delete "${hub[@]}" --deployment-id "$old"
done
