#!/usr/bin/env bash
# demo-down.sh: removes what demo.sh made. Compiled programs and images stay in the cache.
# shellcheck source=hack/demo/lib.sh
. "$(dirname "$0")/demo/lib.sh"

main() {
  tools
  if own_cluster; then
    step "Kubernetes and all in it" cluster down
  else
    step "Release and resources at $(current_context)" uninstall
  fi
  rm -rf "$CACHE/demo"
}

uninstall() {
  # Without the definitions there is nothing of theirs either.
  if kubectl get customresourcedefinition proxypools.spillway.dev >/dev/null 2>&1; then
    kubectl delete --ignore-not-found -f "$ROOT/examples/quickstart.yaml" --timeout=120s
  fi
  if helm status spillway --namespace spillway >/dev/null 2>&1; then
    helm uninstall spillway --namespace spillway --wait --timeout 5m
  fi
  kubectl delete --ignore-not-found namespace team-a spillway spillway-demo
  # The definitions are kept by the release. They go with the demo unless somebody uses them.
  local kinds=(proxypools proxyusers accesskeys bedrockcredentials)
  kinds=("${kinds[@]/%/.spillway.dev}")
  if [[ -z $(kubectl get "$(IFS=,; echo "${kinds[*]}")" --all-namespaces --output name 2>/dev/null) ]]; then
    kubectl delete --ignore-not-found customresourcedefinition "${kinds[@]}"
  fi
}

main
