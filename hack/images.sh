#!/usr/bin/env bash
# images.sh NAME...: builds images (operator, proxy, fake-upstream, postgres) as OCI archives and prints for each
# NAME REFERENCE ARCHIVE. An image's tag is the hash of its content, so that what has not changed is not built again.
# PROFILE=release compiles for production; without it programs are those that tests run.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"

registry=${REGISTRY:-localhost}
declare -A program=([operator]=spillway-operator [proxy]=spillway-proxy [fake-upstream]=fake-upstream)
certificates=/etc/ssl/certs/ca-certificates.crt

main() {
  install_packages buildah=buildah strip=binutils "$certificates=ca-certificates"
  local name bins=()
  for name in "$@"; do
    [[ $name == postgres ]] || bins+=(--bin "${program[$name]:?no image of that name: $name}")
  done
  if ((${#bins[@]})); then
    cargo_env
    # The whole workspace, as tests do: a part of it would be compiled with other features, and compiled again.
    (cd "$ROOT" && cargo build --quiet --locked --workspace --profile "${PROFILE:-dev}" "${bins[@]}" >&2)
    if [[ -n ${PROFILE:-} ]]; then BIN_DIR=$CARGO_TARGET_DIR/$TRIPLE/$PROFILE; fi
  fi
  mkdir -p "$CACHE/images"
  for name in "$@"; do image "$name"; done
}

image() {
  local name=$1 hash reference archive
  if [[ $name == postgres ]]; then
    install_packages "/usr/lib/postgresql/*/bin/initdb=postgresql"
    hash=$( (dpkg-query -W -f '${Package} ${Version}\n' 'postgresql-*' libc6; cat "$ROOT"/e2e/images/postgres/*) | sha256sum)
  else
    hash=$(cat "$BIN_DIR/${program[$name]}" "$certificates" "$ROOT/images/$name.Containerfile" | sha256sum)
  fi
  hash=${hash:0:16}
  reference=$registry/spillway/$name:$hash
  archive=$CACHE/images/$name-$hash.tar
  if [[ -s $archive ]]; then touch "$archive"; else build "$name" "$reference" "$archive"; fi
  find "$CACHE/images" -name "$name-????????????????.tar" ! -path "$archive" -mtime +1 -delete
  echo "$name $reference $archive"
}

build() {
  local name=$1 reference=$2 archive=$3 context
  # buildah keeps its own store; it is of no use once the archive is there.
  context=$(mktemp -d "$CACHE/images/.building-XXXXXX")
  local buildah=(buildah --storage-driver vfs --root "$context/store" --runroot "$context/run")
  if [[ $name == postgres ]]; then
    "$ROOT/e2e/images/postgres/build.sh" "$context/context"
  else
    mkdir "$context/context"
    strip -o "$context/context/${program[$name]}" "$BIN_DIR/${program[$name]}"
    cp -L "$certificates" "$context/context/ca-certificates.crt"
    cp "$ROOT/images/$name.Containerfile" "$context/context/Containerfile"
  fi
  "${buildah[@]}" bud --quiet --isolation chroot --tag "$reference" --file "$context/context/Containerfile" "$context/context" >/dev/null
  "${buildah[@]}" push --quiet "$reference" "oci-archive:$archive.new:$reference" >/dev/null
  mv "$archive.new" "$archive"
  "${buildah[@]}" rmi --all --force >/dev/null || true
  rm -rf "$context"
}

main "$@"
