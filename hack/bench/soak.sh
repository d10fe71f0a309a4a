#!/usr/bin/env bash
# The part of soak.sh that runs beside a database.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=hack/bench/lib.sh
. "$ROOT/hack/bench/lib.sh"

work=$(mktemp -d)
keep=$CACHE/log/soak-$(date +%Y%m%d-%H%M%S).log
trap 'mkdir -p "$CACHE/log"; cp "$work/proxy.log" "$keep" 2>/dev/null && echo "the log of the proxy: $keep" >&2; rm -rf "$work"' EXIT
# The keys that the fake upstreams accept.
export PLAN_API_KEY=${PLAN_API_KEY:-$(fake_credential PLAN_API_KEY)}
export AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-$(fake_credential AWS_ACCESS_KEY_ID)} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-$(fake_credential AWS_SECRET_ACCESS_KEY)}
bench_pool "$work"
"$RELEASE_DIR/soak" --proxy "$RELEASE_DIR/spillway-proxy" --dir "$work" --minutes "${MINUTES:-30}" --rate "${RATE:-100}" "$@"
