#!/bin/sh
# Pins the worker's packages with hashes, for all platforms, from pyproject.toml. Needs uv and a package index.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --upgrade --universal --generate-hashes --python-version 3.10 --no-annotate --no-header \
        --no-emit-index-url pyproject.toml "$@"
}
note="# Pinned with hashes for Python 3.10 and newer on every platform; see tools/requirements.sh"
{ echo "$note"; compile; } > s2sr_qgis/runner/requirements.txt
# The oldest TensorFlow that the pinned protobuf is tested with.
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT
printf 'tensorflow>=2.21\ntensorflow-cpu>=2.21\n' > "$constraint"
{ echo "$note"; compile --extra train --constraint "$constraint"; } > s2sr_qgis/runner/requirements-train.txt
