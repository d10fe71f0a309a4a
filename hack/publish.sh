#!/usr/bin/env bash
# publish.sh [SKOPEO_FLAG...]: compiles the operator and the proxy for production and pushes their images to
# $REGISTRY/spillway/{operator,proxy}:$TAG; TAG is the chart's appVersion unless given. Sign in before it, with
# `skopeo login`; PROFILE=dev publishes the programs that tests run.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"

[[ -n ${REGISTRY:-} ]] || die "REGISTRY is not set: make publish REGISTRY=registry.example.com"
tag=${TAG:-$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$ROOT/charts/spillway/Chart.yaml")}
profile=${PROFILE:-release}
[[ $profile == dev ]] && profile=

install_packages skopeo=skopeo
images=$(PROFILE=$profile REGISTRY=localhost "$ROOT/hack/images.sh" operator proxy)
while read -r name _ archive; do
  skopeo copy --quiet "$@" "oci-archive:$archive" "docker://$REGISTRY/spillway/$name:$tag"
  echo "$REGISTRY/spillway/$name:$tag"
done <<<"$images"
