#!/usr/bin/env bash
# soak.sh [ARGUMENT...]: the proxy under a steady load for $MINUTES (30), at $RATE (100) requests a second, while everything fails in turn;
# fails when memory grows or a usage row is missing.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=hack/bench/lib.sh
. "$ROOT/hack/bench/lib.sh"

main() {
  install_packages psql=postgresql-client
  bench_programs
  ulimit -n "$(ulimit -Hn)"
  "$ROOT/hack/with-postgres.sh" "$ROOT/hack/bench/soak.sh" "$@"
}

main "$@"
