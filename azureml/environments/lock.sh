#!/usr/bin/env bash
# Locks the environment: writes conda.lock.yml with the exact versions of the packages in conda.yml and of all that they need, and
# prints the base image with its digest. Needs uv and curl, and reaches PyPI, download.pytorch.org and mcr.microsoft.com.
#   azureml/environments/lock.sh
# Then set conda_file and image in ppe-yolo.yml as printed, and the version that `ppe-yolo azureml lint azureml` asks for.
set -euo pipefail
cd "$(dirname "$0")"
image=$(sed -n 's/^image: //p' ppe-yolo.yml)
name=${image#mcr.microsoft.com/}
reference=${name#*[:@]} # the tag, the digest or TAG@DIGEST
# without these types, the registry sends the digest of another form of the manifest
types=application/vnd.docker.distribution.manifest.v2+json,application/vnd.docker.distribution.manifest.list.v2+json
types=$types,application/vnd.oci.image.index.v1+json
headers=$(curl -sSfI -H "Accept: $types" "https://mcr.microsoft.com/v2/${name%%[:@]*}/manifests/${reference##*@}" 2>&1) ||
    {
        echo "lock: ppe-yolo.yml: image: $image: ${headers##*$'\n'}: check the name and the connection to mcr.microsoft.com" >&2
        exit 2
    }
digest=$(tr -d '\r' <<<"$headers" | sed -n 's/^docker-content-digest: *//Ip')
[[ $digest == sha256:* ]] || { echo "lock: ppe-yolo.yml: image: $image: expected a digest, got none" >&2 && exit 2; }
# PyTorch's index has old versions of other packages, hence the strategy
python=$(sed -n 's/^ *- python=//p' conda.yml)
locked=$(sed -n 's/^ *- "\(.*\)"$/\1/p' conda.yml | uv pip compile --quiet --no-header --no-annotate --python-version "$python" \
    --python-platform x86_64-manylinux_2_28 --index-strategy unsafe-best-match -)
{
    echo "# Written by lock.sh from conda.yml."
    sed -n '/^name:/,/^  - pip:/p; /--extra-index-url/p' conda.yml
    grep '==' <<<"$locked" | sed 's/.*/      - "&"/'
} > conda.lock.yml.new
mv conda.lock.yml.new conda.lock.yml
echo "conda_file: conda.lock.yml"
echo "image: ${image%%[:@]*}@$digest"
