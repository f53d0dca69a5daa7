#!/usr/bin/env bash
# Deploys a manifest to the boxes of one ring and waits until all of them run it. Where a box reports a failure, or the time
# is up, the deployment is taken back: the ring's boxes return to the one before.
#   IOT_HUB=NAME roll_out.sh MANIFEST RING BUILD      WAIT_SECONDS (1800) and POLL_SECONDS (30) may be set too
# Exit code 0: all boxes run it; 1: taken back; 2: a mistake. Needs a shell that is logged in to Azure (az, azure-iot).
set -euo pipefail
mistake() {
    echo "roll_out: $1" >&2
    exit 2
}
[ $# -eq 3 ] || mistake "expected MANIFEST RING BUILD, got $# arguments"
[ -n "${IOT_HUB:-}" ] || mistake "IOT_HUB: expected the hub's name, got none"
manifest=$1 ring=$2 build=$3 limit=${WAIT_SECONDS:-1800} poll=${POLL_SECONDS:-30}
[[ $ring =~ ^[a-z]+$ ]] || mistake "expected a ring of small letters, got $ring"
[[ $build =~ ^[0-9]+$ ]] || mistake "expected a build's number, got $build"
[ -r "$manifest" ] || mistake "$manifest: no such file"

# A bare name makes azure-iot search the subscription, which the role IoT Hub Data Contributor does not allow.
[[ $IOT_HUB == *.* ]] || IOT_HUB=$IOT_HUB.azure-devices.net
hub=(--hub-name "$IOT_HUB" --auth-type login)
condition="tags.ppe.ring='$ring'"
id="ppe-edge-$ring-$build"

boxes=$(az iot hub query "${hub[@]}" --query 'length(@)' --output tsv \
    --query-command "select * from devices where capabilities.iotEdge = true and $condition")
[ "$boxes" -gt 0 ] || mistake "expected boxes whose twin has the tag ppe.ring=$ring, got none"

take_back() {
    trap - INT TERM
    az iot edge deployment delete "${hub[@]}" --deployment-id "$id"
    echo "$id: taken back: $1" >&2
    exit 1
}
trap 'take_back "stopped"' INT TERM

# of all deployments that a box falls under it takes the one of the highest priority: the newest build
az iot edge deployment create "${hub[@]}" --deployment-id "$id" --content "$manifest" --target-condition "$condition" \
    --priority "$build" --output none
good=0 bad=0 deadline=$((SECONDS + limit))
while [ "$good" -lt "$boxes" ]; do
    [ "$SECONDS" -lt "$deadline" ] || take_back "$good of $boxes boxes run it after $limit s"
    sleep "$poll" & # in the background, since a shell hears no signal while it waits for a command in front
    wait $!
    # a hub that does not answer this time is asked again
    counts=$(az iot edge deployment show "${hub[@]}" --deployment-id "$id" --output tsv \
        --query "systemMetrics.results.[reportedSuccessfulCount || '0', reportedFailedCount || '0']") || continue
    read -r good bad <<<"${counts//[$'\t\n']/ }"
    echo "$id: of $boxes boxes $good run it, $bad report a failure"
    [ "$bad" -eq 0 ] || take_back "$bad of $boxes boxes report a failure"
done
trap - INT TERM

# a hub holds 100 deployments: of each ring the newest three stay
az iot edge deployment list "${hub[@]}" --query "[?starts_with(id, 'ppe-edge-$ring-')].id" --output tsv |
    sort --version-sort --reverse | tail -n +4 | while read -r old; do
    az iot edge deployment delete "${hub[@]}" --deployment-id "$old"
done
