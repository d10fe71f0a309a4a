#!/usr/bin/env bash
# conformance.sh SUITE: runs the conformance suite in that folder with the programs of a development build, and ends with
# its count.
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
while IFS=$'\t' read -r outcome name detail; do
  case $outcome in
    passed) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *)
      failed=$((failed + 1))
      echo "FAIL $name: $detail"
      ;;
  esac
done <"$work/results"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0 && passed > 0))
