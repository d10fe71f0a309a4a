#!/usr/bin/env bash
# with-cluster.sh control-plane|node COMMAND...: runs it with KUBECONFIG naming a Kubernetes of its own, and helm and
# kubectl on the PATH. control-plane is an API server with controllers and no node; node runs pods, has the images and
# names them in SPILLWAY_IMAGE_{OPERATOR,PROXY,FAKE_UPSTREAM,POSTGRES}. The cluster is gone afterwards.
#
# With KUBECONFIG set that cluster is used and left as it is; for `node` it must be able to pull the images that these
# four variables name.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"

# In one function: bash reads a script while it runs, and somebody may edit it meanwhile.
main() {
  mode=$1
  shift
  cluster_tools

  if [[ -n ${KUBECONFIG:-} ]]; then
    echo "using the cluster of KUBECONFIG=$KUBECONFIG" >&2
    if [[ $mode == node ]]; then
      : "${SPILLWAY_IMAGE_OPERATOR:?name the images that this cluster can pull}" "${SPILLWAY_IMAGE_PROXY:?}" \
        "${SPILLWAY_IMAGE_FAKE_UPSTREAM:?}" "${SPILLWAY_IMAGE_POSTGRES:?}"
    fi
    exec "$@"
  fi

  # One for each clone and mode, so that clones do not meet and what a killed run left is found and cleaned by the next.
  clone=$(sha256sum <<<"$ROOT")
  export CLUSTER_NAME=test-${clone:0:8}-$mode
  mkdir -p "$CACHE/lock"
  exec 9>"$CACHE/lock/$CLUSTER_NAME"
  flock --nonblock 9 || { echo "waiting for another run in this clone" >&2; flock 9; }

  # Its processes must not keep the lock.
  trap 'cluster down >&2 9>&-' EXIT
  trap 'exit 130' INT TERM

  if [[ $mode == node ]]; then
    cluster_packages
    KUBECONFIG=$(cluster up 9>&-)
    while read -r name reference archive; do
      cluster load-image "$archive" 9>&-
      name=${name//-/_}
      export "SPILLWAY_IMAGE_${name^^}=$reference"
    done < <("$ROOT/hack/images.sh" operator proxy fake-upstream postgres)
  else
    KUBECONFIG=$(cluster up --control-plane-only 9>&-)
  fi
  export KUBECONFIG

  "$@" 9>&-
}

main "$@"
exit
