#!/usr/bin/env bash
# crds.sh [--check]: writes the resource definitions from the Rust types to crds/generated and into the chart, or checks
# that both are current.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
cargo_env

chart=charts/spillway/files/crds
cargo run --quiet --locked --package spillway-crds --bin crdgen -- "$@"
if [[ ${1:-} == --check ]]; then
  diff -r crds/generated "$chart" || die "$chart is not current: run 'make crds'"
else
  rm -f "$chart"/*.yaml
  cp crds/generated/*.yaml "$chart/"
fi
