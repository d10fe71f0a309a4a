#!/usr/bin/env bash
# The part of bench.sh that runs beside a database.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=hack/bench/lib.sh
. "$ROOT/hack/bench/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bench_pool "$work"
"$RELEASE_DIR/bench" --proxy "$RELEASE_DIR/spillway-proxy" --core "$SUBJECT_CORE" --dir "$work" \
  --json "${BENCH_JSON:-$ROOT/bench.json}" "$@"
