# shellcheck shell=bash
# Sourced by demo.sh and demo-down.sh: which cluster it is, and how to reach what runs there.
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

export CLUSTER_NAME=${CLUSTER_NAME:-demo}
kubeconfig=$CACHE/cluster/$CLUSTER_NAME/kubeconfig

# Whether the demo brings a cluster of its own, or uses the one that KUBECONFIG or CONTEXT name.
given=${CONTEXT:-}${KUBECONFIG:-}
if [[ $given == "$kubeconfig" ]]; then given=''; fi
own_cluster() { [[ -z $given ]]; }

tools() {
  install_packages curl=curl jq=jq
  if own_cluster || ! have helm || ! have kubectl; then cluster_tools; fi
  if own_cluster; then
    cluster_packages
    export KUBECONFIG=$kubeconfig
  fi
}

kubectl() { command kubectl ${CONTEXT:+--context "$CONTEXT"} "$@"; }
helm() { command helm ${CONTEXT:+--kube-context "$CONTEXT"} "$@"; }

current_context() { echo "${CONTEXT:-$(kubectl config current-context)}"; }

forwards=()
stop_forwards() { ((${#forwards[@]} == 0)) || kill "${forwards[@]}" 2>/dev/null || true; }
trap stop_forwards EXIT

# shellcheck disable=SC2034 # for the callers
# reach NAMESPACE SERVICE PORT: sets `base` to a URL of that Service that works on this machine.
reach() {
  local namespace=$1 service=$2 port=$3 log
  if own_cluster; then
    base=http://$(kubectl get service -n "$namespace" "$service" -o jsonpath='{.spec.clusterIP}'):$port
    base=${base%:80}
    return
  fi
  log=$(mktemp)
  kubectl port-forward -n "$namespace" "service/$service" ":$port" >"$log" 2>&1 &
  forwards+=($!)
  until_ok 20 grep -q '^Forwarding from 127' "$log" || die "kubectl port-forward to $namespace/$service: $(<"$log")"
  base=http://127.0.0.1:$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$log")
  rm -f "$log"
}
