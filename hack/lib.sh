# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, how they are built, how steps are shown.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/spillway
export ROOT CACHE

# Rust by rustup may not be on the PATH of a shell without a login.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
[[ -d /usr/local/go/bin ]] && PATH=$PATH:/usr/local/go/bin
export PATH

if [[ -t 2 ]]; then bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' red='' green='' dim='' plain=''; fi

die() {
  printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# One target directory and one set of flags for tests, lints and images, so that nothing is compiled twice.
cargo_env() {
  have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs); rust-toolchain.toml picks the version"
  TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
  local flags
  flags=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$TRIPLE")_RUSTFLAGS
  export TRIPLE CARGO_BUILD_TARGET=$TRIPLE SQLX_OFFLINE=true
  # Static programs run in an image that holds nothing else.
  export "$flags=-C target-feature=+crt-static"
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
  export BIN_DIR=$CARGO_TARGET_DIR/$TRIPLE/debug
}

# Makes sure that each command or file exists, which may be a glob: install_packages COMMAND=DEBIAN_PACKAGE...
install_packages() {
  local pair missing=()
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin have "${pair%%=*}" || compgen -G "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  ((${#missing[@]})) || return 0
  have apt-get || die "missing: ${missing[*]} (Debian's names); install them and run this again"
  ((EUID == 0)) || die "missing: run 'sudo apt-get install ${missing[*]}' and this again"
  local log=$CACHE/log/apt.log
  mkdir -p "$CACHE/log"
  echo "installing ${missing[*]}" >&2
  {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1 </dev/null || { tail -20 "$log" >&2; die "apt-get failed, see $log"; }
}

# Puts the cluster tool, helm and kubectl on the PATH, built if need be.
cluster_tools() {
  have go || die "go is missing: install Go from https://go.dev/dl (e2e/cluster/go.mod says which version)"
  local programs
  programs=$(sh "$ROOT/e2e/cluster/build.sh")
  export PATH=$programs:$PATH CLUSTER_TOOLS=$programs
}

# A tool that PyPI ships as a program: python_tool PACKAGE==VERSION PROGRAM.
python_tool() {
  local venv=$CACHE/tools/${1/==/-}
  if [[ ! -x $venv/bin/$2 ]]; then
    install_packages python3=python3 /usr/share/doc/python3-venv=python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "$1"
  fi
  export PATH=$venv/bin:$PATH
}

# What a node needs beside the cluster tool.
cluster_packages() {
  install_packages containerd=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins nft=nftables \
    conntrack=conntrack ip=iproute2 mount=mount
}

duration() {
  local seconds=$1
  if ((seconds >= 60)); then printf '%d min %02d s' $((seconds / 60)) $((seconds % 60)); else printf '%d s' "$seconds"; fi
}

# step TITLE COMMAND...: runs it with its output in a file; one line says how long it took. What it writes to file
# descriptor 3 is shown behind the title.
step() {
  local title=$1 begin=$SECONDS status log note
  shift
  mkdir -p "$CACHE/log"
  log=$(mktemp "$CACHE/log/step-XXXXXX")
  note=$(mktemp "$CACHE/log/note-XXXXXX")
  printf '%s==>%s %-46s ' "$bold" "$plain" "$title" >&2
  # Not `|| status=$?`, which would switch errexit off inside.
  set +e
  (set -e; "$@") >"$log" 2>&1 3>"$note" </dev/null
  status=$?
  set -e
  if ((status)); then
    printf '%sfailed%s after %s\n' "$red" "$plain" "$(duration $((SECONDS - begin)))" >&2
    tail -40 "$log" | sed 's/^/    /' >&2
    echo "    (all of it: $log)" >&2
    rm -f "$note"
    return "$status"
  fi
  printf '%sdone%s %8s  %s%s%s\n' "$green" "$plain" "$(duration $((SECONDS - begin)))" "$dim" "$(<"$note")" "$plain" >&2
  rm -f "$log" "$note"
}

# until_ok SECONDS COMMAND...: repeats it until it succeeds.
until_ok() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.3
  done
}
