#!/usr/bin/env bash
# Runs moto's server, which speaks the real protocols of AWS KMS and STS, on a loopback port: hack/moto-server.sh PORT
# It is installed once, from PyPI, into the cache.
set -euo pipefail
port=${1:?usage: hack/moto-server.sh PORT}
version=5.2.5
venv=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/moto-$version
mkdir -p "$(dirname "$venv")"
(
  flock 9
  if [ ! -x "$venv/bin/moto_server" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version" >&2
  fi
) 9>"$venv.lock"
exec "$venv/bin/moto_server" -H 127.0.0.1 -p "$port"
