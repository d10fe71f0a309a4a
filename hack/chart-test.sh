#!/usr/bin/env bash
# chart-test.sh: what the chart renders is accepted by the API server that KUBECONFIG names, is what the operator can
# run with, and nothing in it changes from one rendering to the next.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

chart=charts/spillway
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# check WHAT COMMAND...
check() {
  local what=$1 status
  shift
  set +e
  (set -e; "$@") >"$work/output" 2>&1
  status=$?
  set -e
  if ((status == 0)); then
    echo "ok - $what"
  else
    echo "not ok - $what"
    sed 's/^/    /' "$work/output"
    failures=$((failures + 1))
  fi
}

render() { helm template spillway "$chart" --namespace spillway --kube-version 1.35 "$@"; }

# Arguments for each way to install.
small=(--set postgresql.enabled=true)
ordinary=(--set database.urlSecretRef.name=database)
# shellcheck disable=SC2034 # by name, below
large=(--values hack/chart-test/large.yaml)

is_accepted() {
  render "$@" >"$work/manifests.yaml"
  # Namespaced objects need their namespaces; a dry run of the definitions does not define anything.
  kubectl apply --server-side --dry-run=server --force-conflicts --filename "$work/manifests.yaml"
}

is_stable() {
  render "$@" >"$work/one"
  render "$@" >"$work/two"
  cmp "$work/one" "$work/two"
}

# A Secret in a template would be made anew wherever manifests are rendered without a cluster.
holds_no_secret() {
  render "$@" >"$work/manifests.yaml"
  ! grep -n '^kind: Secret' "$work/manifests.yaml"
}

runs_restricted() {
  local namespace=spillway-restricted
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f -
  kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted
  helm template spillway "$chart" --namespace "$namespace" --kube-version 1.35 "$@" >"$work/manifests.yaml"
  kubectl apply --server-side --dry-run=server --filename "$work/manifests.yaml" 2>"$work/warnings"
  cat "$work/warnings"
  ! grep -i 'violate' "$work/warnings"
}

refuses() {
  local message=$1
  shift
  if render "$@" >"$work/manifests.yaml" 2>"$work/message"; then
    echo "it was rendered"
    return 1
  fi
  grep -F -- "$message" "$work/message" || { cat "$work/message"; return 1; }
}

# Installs on the API server; there is no node, so nothing runs.
installs_and_upgrades() {
  helm upgrade --hide-notes --install spillway "$chart" --namespace spillway "${small[@]}" --set operator.replicas=1
  helm upgrade --hide-notes --install spillway "$chart" --namespace spillway "${small[@]}"
  kubectl wait customresourcedefinition/proxypools.spillway.dev --for=condition=Established --timeout=30s
  until_ok 30 kubectl explain proxypool.spec.plan
}

knows_the_example() { kubectl apply --server-side --dry-run=server --filename examples/quickstart.yaml; }

# may WHO NAMESPACE VERB RESOURCE[/NAME] [--subresource=...]: whether the service account may.
may() { kubectl auth can-i "${@:3}" --namespace "$2" --as "system:serviceaccount:spillway:$1" --quiet; }

# Rights as they are after an install with watchNamespaces={team-a} and poolNamespaces={pools}.
has_least_rights() {
  render "${ordinary[@]}" --set "watchNamespaces={team-a}" --set "poolNamespaces={pools}" --set fullnameOverride=narrow |
    kubectl apply --server-side --force-conflicts --filename -
  local right
  for right in "team-a get secrets" "team-a create secrets" "pools get secrets" "spillway create secrets" \
    "pools patch deployments.apps" "pools patch serviceaccounts" "pools create proxypools.spillway.dev" \
    "elsewhere patch accesskeys.spillway.dev --subresource=status" "spillway update leases.coordination.k8s.io/narrow"; do
    # shellcheck disable=SC2086 # words
    may narrow $right || { echo "missing: $right"; return 1; }
  done
  for right in "elsewhere get secrets" "kube-system list secrets" "spillway delete secrets" "team-a patch deployments.apps" \
    "pools create pods" "pools create pods --subresource=exec" "team-a create proxypools.spillway.dev" \
    "team-a delete accesskeys.spillway.dev" "spillway get leases.coordination.k8s.io/other" "team-a get configmaps" \
    "pools escalate roles.rbac.authorization.k8s.io" "pools create serviceaccounts --subresource=token"; do
    # shellcheck disable=SC2086
    if may narrow $right; then
      echo "too much: $right"
      return 1
    fi
  done
}

keeps_definitions() {
  helm uninstall spillway --namespace spillway --no-hooks
  kubectl get customresourcedefinitions accesskeys.spillway.dev proxypools.spillway.dev
}

for namespace in spillway team-a pools; do
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
done

for shape in small ordinary large; do
  declare -n arguments=$shape
  check "helm lint, $shape" helm lint --strict --kube-version 1.35 "$chart" "${arguments[@]}"
  check "the API server accepts it, $shape" is_accepted "${arguments[@]}"
  check "it renders the same each time, $shape" is_stable "${arguments[@]}"
  check "it holds no secret, $shape" holds_no_secret "${arguments[@]}"
  check "its pods fit the restricted standard, $shape" runs_restricted "${arguments[@]}"
done
check "without a database it says what to set" refuses "set postgresql.enabled=true to try" --set operator.replicas=2
check "two databases are one too many" refuses "keep the one that you mean" "${small[@]}" "${ordinary[@]}"
check "a misspelt value is refused" refuses "'replica' not allowed" "${small[@]}" --set operator.replica=3
check "a registry is no URL" refuses "imageRegistry" "${small[@]}" --set imageRegistry=https://example.com
check "it installs and upgrades" installs_and_upgrades
check "the API server accepts examples/quickstart.yaml" knows_the_example
check "the operator's rights are the least" has_least_rights
check "an uninstall keeps the definitions" keeps_definitions
((failures == 0))
