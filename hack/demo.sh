#!/usr/bin/env bash
# demo.sh: Spillway on a Kubernetes of its own, or on the one that KUBECONFIG (and CONTEXT) name: install, apply the
# quickstart, send a message, send it again while the Anthropic API is down, show what was counted.
#
# On another cluster than its own: ANTHROPIC_API_KEY set, the real API answers; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
# set, the real Bedrock does. Otherwise a program that speaks like them stands in. REGISTRY: where images are pushed for a cluster that is neither
# the demo's own nor kind's nor k3d's.
# shellcheck source=hack/demo/lib.sh
. "$(dirname "$0")/demo/lib.sh"

platform=spillway team=team-a pool=engineering model=claude-sonnet-4-6
fakes=http://fake-upstream.spillway-demo.svc nowhere=https://api.invalid
work=$CACHE/demo
mkdir -p "$work"

# Pods of the demo's own cluster reach nothing outside this machine.
real_plan() { ! own_cluster && [[ -n ${ANTHROPIC_API_KEY:-} ]]; }
real_bedrock() { ! own_cluster && [[ -n ${AWS_ACCESS_KEY_ID:-} && -n ${AWS_SECRET_ACCESS_KEY:-} ]]; }

main() {
  local begin=$SECONDS
  if own_cluster && [[ -n ${ANTHROPIC_API_KEY:-}${AWS_ACCESS_KEY_ID:-} ]]; then
    echo "The demo's own cluster reaches nothing outside this machine, so fake upstreams answer. For the real ones, name a cluster that reaches them by KUBECONFIG." >&2
  fi
  # Not in a step, for they change the PATH; both say what they do when it takes long.
  tools
  if own_cluster; then
    step "Kubernetes of its own" cluster up
  else
    step "Kubernetes at $(current_context)" kubectl version
  fi
  step "Images" images
  step "Images into the cluster" load
  step "Upstreams to talk to" upstreams
  if ! real_plan; then
    reach spillway-demo fake-upstream 8081
    control=$base/__control
  fi
  step "helm install spillway" install
  step "examples/quickstart.yaml" quickstart
  reach "$platform" "$(pool_service)" 80
  step "A message" message
  step "The Anthropic API goes down" plan_down
  step "The same message" message
  step "The Anthropic API is back" plan_up
  step "Usage arrives in status" usage_in_status
  show
  printf '\n%sready%s after %s\n' "$green" "$plain" "$(duration $((SECONDS - begin)))" >&2
  next
}

images() {
  local names=(operator proxy fake-upstream)
  # Elsewhere the official image of PostgreSQL can be pulled.
  if own_cluster; then names+=(postgres); fi
  "$ROOT/hack/images.sh" "${names[@]}" >"$work/images"
  awk '{sub(/.*:/, "", $2); printf "%s %s  ", $1, substr($2, 1, 7)}' "$work/images" >&3
}

reference() { awk -v name="$1" '$1 == name {print $2}' "$work/images"; }

load() {
  local name reference archive loaded
  # By the cluster's own id: a new one under the same name has none of them.
  loaded=$work/loaded-$(kubectl get namespace kube-system -o jsonpath='{.metadata.uid}')
  touch "$loaded"
  while read -r name reference archive; do
    if grep -qxF "$reference" "$loaded"; then continue; fi
    if own_cluster; then
      cluster load-image "$archive"
    else
      case $(current_context) in
        kind-*) kind load image-archive --name "$(current_context | sed 's/^kind-//')" "$archive" ;;
        k3d-*) k3d image import --cluster "$(current_context | sed 's/^k3d-//')" "$archive" ;;
        *)
          [[ -n ${REGISTRY:-} ]] || die "the nodes of $(current_context) cannot be given images: set REGISTRY to one that you may push to and they may pull from"
          buildah --storage-driver vfs push "oci-archive:$archive" "docker://$reference" 2>/dev/null ||
            skopeo copy "oci-archive:$archive" "docker://$reference" || die "pushing $reference failed: run 'buildah login' for it, and have skopeo installed"
          ;;
      esac
    fi
    echo "$reference" >>"$loaded"
    printf '%s ' "$name" >&3
  done <"$work/images"
}

upstreams() {
  if real_plan && real_bedrock; then
    echo "the real ones" >&3
    return
  fi
  sed "s|FAKE_UPSTREAM_IMAGE|$(reference fake-upstream)|" "$ROOT/hack/demo/fake-upstream.yaml" | kubectl apply -f -
  kubectl rollout status -n spillway-demo deployment/fake-upstream --timeout=120s
  echo "Anthropic: $(real_plan && echo real || echo fake), Bedrock: $(real_bedrock && echo real || echo fake)" >&3
}

# Chart values for these images and upstreams. Listing an origin whole allows plain http to it.
values() {
  local registry operator proxy postgres
  operator=$(reference operator) proxy=$(reference proxy) postgres=$(reference postgres)
  registry=${operator%/spillway/operator:*}
  cat <<YAML
imageRegistry: $registry
operator:
  image: {tag: "${operator##*:}"}
  extraEnv:
$(real_plan || echo "    - {name: PROXY_PLAN_API_URL, value: '$fakes:8081'}")
$(real_bedrock || echo "    - {name: AWS_ENDPOINT_URL_BEDROCK_RUNTIME, value: '$fakes:8082'}")
proxy:
  image: {tag: "${proxy##*:}"}
allowedUpstreams: [api.anthropic.com, "*.amazonaws.com", "$fakes:8081", "$fakes:8082", "$nowhere"]
postgresql:
  enabled: true
$([[ -z $postgres ]] || echo "  image: {registry: $registry, repository: spillway/postgres, tag: '${postgres##*:}'}")
# The quickstart brings a pool of its own.
defaultPool: {enabled: false}
YAML
}

install() {
  values >"$work/values.yaml"
  helm upgrade --install spillway "$ROOT/charts/spillway" --namespace "$platform" --create-namespace \
    --values "$work/values.yaml" --wait --timeout 5m
}

# secret NAMESPACE NAME KEY=VALUE...: values go through a pipe, never through an argument list.
secret() {
  local namespace=$1 name=$2
  shift 2
  printf '%s\n' "$@" | kubectl create secret generic -n "$namespace" "$name" --from-env-file=/dev/stdin \
    --dry-run=client -o yaml | kubectl apply -f -
}

quickstart() {
  kubectl create namespace "$team" --dry-run=client -o yaml | kubectl apply -f -
  kubectl label --overwrite namespace "$team" "spillway.dev/pool=$pool"
  secret "$platform" anthropic "ANTHROPIC_API_KEY=$(real_plan && echo "$ANTHROPIC_API_KEY" || echo sk-ant-fake-plan-0000000000000000)"
  if real_bedrock; then
    secret "$team" aws "AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY" \
      ${AWS_SESSION_TOKEN:+"AWS_SESSION_TOKEN=$AWS_SESSION_TOKEN"}
  else
    secret "$team" aws AWS_ACCESS_KEY_ID=AKIAFAKEUPSTREAM0001 \
      AWS_SECRET_ACCESS_KEY=fake/upstream+secret/0123456789ABCDEFGHIJ
  fi
  kubectl apply -f "$ROOT/examples/quickstart.yaml"
  kubectl wait -n "$platform" "proxypool/$pool" --for=condition=Ready --timeout=180s
  kubectl wait -n "$team" bedrockcredential/team-aws proxyuser/alice accesskey/alice-laptop --for=condition=Ready --timeout=60s
}

# The Service that the pool's URL names.
pool_service() {
  kubectl get -n "$platform" proxypool "$pool" -o jsonpath='{.status.url}' | sed 's|^http://||; s|[.:/].*||'
}

# key_of FIELD: an entry of the Secret that the operator wrote.
key_of() { kubectl get secret -n "$team" alice-laptop -o "jsonpath={.data.$1}" | base64 -d; }

message() {
  local answer
  # The key goes through a pipe: an argument could be read by everybody on this machine.
  answer=$(printf 'header = "x-api-key: %s"\n' "$(key_of ANTHROPIC_AUTH_TOKEN)" |
    curl --silent --show-error --fail-with-body --max-time 120 --config - \
      --header 'content-type: application/json' --header 'anthropic-version: 2023-06-01' \
      --data '{"model":"'$model'","max_tokens":64,"messages":[{"role":"user","content":"Say hello to the platform team."}]}' \
      "$base/v1/messages") || die "the proxy answered: $answer"
  jq -r '"\(.id): \(.content[0].text)"' <<<"$answer" | head -c 90 >&3
}

fake_plan() { curl --silent --show-error --fail --request PUT --data "{\"mode\":\"$1\"}" "$control/plan/mode"; }

# The real API cannot be asked to fail: the pool is pointed at a name that never resolves instead.
plan_down() {
  if real_plan; then plan_url "\"$nowhere\""; else fake_plan down; fi
}

plan_up() {
  if real_plan; then plan_url null; else fake_plan up; fi
}

plan_url() {
  kubectl patch -n "$platform" proxypool "$pool" --type merge --patch '{"spec":{"plan":{"apiUrl":'"$1"'}}}'
  local generation
  generation=$(kubectl get -n "$platform" proxypool "$pool" -o jsonpath='{.metadata.generation}')
  kubectl wait -n "$platform" "proxypool/$pool" --for=jsonpath='{.status.observedGeneration}'="$generation" --timeout=30s
  sleep 2 # until every proxy has it
}

# query SQL: as the database's owner, in its pod.
query() { kubectl exec -n "$platform" spillway-postgresql-0 -- psql --username spillway --dbname spillway --no-psqlrc "$@"; }

# Waits until status tells what the table holds.
usage_in_status() {
  until_ok 60 usage_is_current || die "status has $(requests_in_status) requests, the table $(requests_in_table)"
  echo "$(requests_in_status) requests" >&3
}

requests_in_table() { query -Atc "SELECT count(*) FROM token_usages WHERE namespace = '$team'"; }
requests_in_status() { kubectl get accesskey -n "$team" alice-laptop -o jsonpath='{.status.usage.requests}'; }
usage_is_current() { [[ $(requests_in_table) == "$(requests_in_status)" ]]; }

show() {
  printf '\n%stoken_usages%s\n' "$bold" "$plain"
  query -c "SELECT created_at::timestamptz(0), user_name, model, provider, fallback_reason AS fallback, status,
    input_tokens AS input, output_tokens AS output, cost_micro_usd AS micro_usd, latency_ms AS ms
    FROM token_usages WHERE namespace = '$team' ORDER BY created_at DESC LIMIT 4"
  printf '%skubectl get proxypools,proxyusers,accesskeys,bedrockcredentials -A%s\n' "$bold" "$plain"
  kubectl get proxypools,proxyusers,accesskeys,bedrockcredentials -A
}

next() {
  echo
  if own_cluster; then
    echo "Next, in this shell:"
    echo "  export KUBECONFIG=$KUBECONFIG PATH=$CLUSTER_TOOLS:\$PATH"
  else
    echo "Next, with this in another shell:"
    echo "  kubectl port-forward -n $platform service/$(pool_service) 8080:80"
    echo "in this one:"
    base=http://127.0.0.1:8080
  fi
  cat <<TEXT
  export ANTHROPIC_BASE_URL=$base
  export ANTHROPIC_AUTH_TOKEN="\$(kubectl get secret -n $team alice-laptop -o jsonpath='{.data.ANTHROPIC_AUTH_TOKEN}' | base64 -d)"
  claude                          # or any Anthropic SDK
  kubectl get accesskeys -A -w    # what it costs
  make demo-down                  # the end
TEXT
}

main
