#!/usr/bin/env bash
# conformance.sh SUITE: runs the conformance suite in that folder with the programs of a development build, and ends with
# its count. What hack/conformance-excluded names is counted as skipped.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"

suite=$1
cargo_env
install_packages jq=jq python3=python3 /usr/share/doc/python3-venv=python3-venv "/usr/lib/postgresql/*/bin/initdb=postgresql"
(cd "$ROOT" && cargo build --quiet --locked --workspace --bin spillway-operator --bin spillway-proxy)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

requirements=$(sha256sum "$suite/requirements.txt")
# Its exit status is judged below, check by check.
python3 "$suite/run.py" --venv "$CACHE/tools/conformance-${requirements:0:12}" --bin-dir "$BIN_DIR" --report "$work/report.json" \
  >"$work/log" 2>&1 </dev/null || true
grep '^-- ' "$work/log" || true
[[ -s $work/report.json ]] || { tail -40 "$work/log"; die "the conformance suite did not report"; }

# One line for each result: outcome, check[fixture], detail.
jq -r '.results[] | [.outcome, .check + (if .fixture then "[" + .fixture + "]" else "" end), (.detail // "" | gsub("[\n\t]"; " "))] | @tsv' \
  "$work/report.json" >"$work/results"

passed=0 failed=0 skipped=0
patterns=() reasons=()
declare -A excused=() left_out=()
while read -r pattern reason; do
  [[ -z $pattern || $pattern == '#'* ]] && continue
  patterns+=("$pattern") reasons+=("$reason") excused[$pattern]=0
done <"$ROOT/hack/conformance-excluded"

while IFS=$'\t' read -r outcome name detail; do
  for i in "${!patterns[@]}"; do
    # shellcheck disable=SC2053 # a glob
    if [[ $name == ${patterns[i]} ]]; then
      if [[ $outcome == failed ]]; then excused[${patterns[i]}]=1; fi
      left_out[${reasons[i]}]=$((${left_out[${reasons[i]}]:-0} + 1))
      skipped=$((skipped + 1))
      continue 2
    fi
  done
  case $outcome in
    passed) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *)
      failed=$((failed + 1))
      echo "FAIL $name: $detail"
      ;;
  esac
done <"$work/results"

for pattern in "${patterns[@]}"; do
  if ((!excused[$pattern])); then
    failed=$((failed + 1))
    echo "FAIL hack/conformance-excluded: nothing fails under $pattern any more: remove it"
  fi
done
for reason in "${!left_out[@]}"; do echo "left out, $reason still to be built: ${left_out[$reason]} checks"; done
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0 && passed > 0))
