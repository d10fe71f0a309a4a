# shellcheck shell=bash
# Sourced after hack/lib.sh by bench.sh and soak.sh: programs, and a database with one pool, one user, one key.

# For the measured process; everything else runs on $OTHER_CORE.
SUBJECT_CORE=0 OTHER_CORE=1
export SUBJECT_CORE

# Compiles for production what is measured, and what measures it.
bench_programs() {
  cargo_env
  (cd "$ROOT" && cargo build --quiet --locked --workspace --profile release --bin spillway-proxy --bin bench --bin soak)
  (cd "$ROOT" && cargo build --quiet --locked --workspace --bin spillway-operator)
  export OPERATOR=$BIN_DIR/spillway-operator RELEASE_DIR=$CARGO_TARGET_DIR/$TRIPLE/release
}

# bench_inside COMMAND...: runs it on the other core, with a PostgreSQL of its own.
bench_inside() {
  ulimit -n "$(ulimit -Hn)"
  taskset --cpu-list "$OTHER_CORE" "$ROOT/hack/with-postgres.sh" "$@"
}

# bench_pool DIR [PLAN_URL BEDROCK_URL]: migrates, writes a pool with a key, and sets the proxy's environment and
# BENCH_ACCESS_KEY.
bench_pool() {
  local dir=$1 hasher encryption
  hasher=$(head -c 32 /dev/urandom | base64 -w0 | tr '+/' '-_')
  encryption=$(head -c 32 /dev/urandom | base64 -w0)
  export PROXY_DATABASE_URL=$DATABASE_URL PROXY_KEY_HASHER_SECRET=$hasher PROXY_LOCAL_ENCRYPTION_KEY=$encryption
  export PROXY_PLAN_API_KEY=${PLAN_API_KEY:-sk-ant-bench} AWS_EC2_METADATA_DISABLED=true
  export PROXY_BEDROCK_REGION=us-east-1 PROXY_BEDROCK_DEFAULT_MODEL=us.anthropic.claude-sonnet-4-5-20250929-v1:0
  mkdir -p "$dir/secrets"
  cat >"$dir/pool.yaml" <<YAML
apiVersion: v1
kind: Secret
metadata: {name: aws}
stringData: {AWS_ACCESS_KEY_ID: ${AWS_ACCESS_KEY_ID:-AKIAIOSFODNN7EXAMPLE}, AWS_SECRET_ACCESS_KEY: ${AWS_SECRET_ACCESS_KEY:-wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY}}
---
apiVersion: spillway.dev/v1alpha1
kind: BedrockCredential
metadata: {name: aws}
spec: {region: us-east-1, auth: {secretRef: {name: aws}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ProxyPool
metadata: {name: default}
spec:
  fallback: {bedrock: {region: us-east-1, defaultModel: "us.anthropic.claude-sonnet-4-5-20250929-v1:0", credentialRef: {name: aws}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ProxyUser
metadata: {name: bench}
spec: {email: bench@example.com, poolRef: {name: default}}
---
apiVersion: spillway.dev/v1alpha1
kind: AccessKey
metadata: {name: bench}
spec: {userRef: {name: bench}, secretName: bench-key}
YAML
  "$OPERATOR" migrate >"$dir/migrate.log" 2>&1 || { cat "$dir/migrate.log" >&2; die "the database could not be migrated"; }
  "$OPERATOR" apply -f "$dir/pool.yaml" --secrets-dir "$dir/secrets" >"$dir/apply.log" 2>&1 || { cat "$dir/apply.log" >&2; die "the pool could not be written"; }
  BENCH_ACCESS_KEY=$(sed -n 's/^ *ACCESS_KEY: *//p' "$dir/secrets/bench-key.yaml" | tr -d '"')
  export BENCH_ACCESS_KEY
  [[ -n $BENCH_ACCESS_KEY ]] || die "no access key in $dir/secrets"
}

# The value of a constant of the fake upstreams.
fake_credential() { sed -n "s/^pub const $1: &str = \"\(.*\)\";/\1/p" "$ROOT/e2e/src/upstream/config.rs"; }
