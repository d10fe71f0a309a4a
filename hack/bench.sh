#!/usr/bin/env bash
# bench.sh [ARGUMENT...]: measures the proxy beside nginx, prints a table of ratios and writes bench.json (or $BENCH_JSON).
# Arguments go to the program bench: --rounds, --seconds, --only (see --help). The measured process has one core for itself;
# load, upstream and database share another.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=hack/bench/lib.sh
. "$ROOT/hack/bench/lib.sh"

main() {
  (($(nproc) >= 2)) || die "two cores are needed: one for the measured process, one for everything else"
  install_packages nginx=nginx-light taskset=util-linux
  bench_programs
  bench_inside "$ROOT/hack/bench/measure.sh" "$@"
}

main "$@"
