#!/usr/bin/env bash
# with-postgres.sh COMMAND...: runs it with DATABASE_URL naming a PostgreSQL of its own, which is gone afterwards. Not
# durable, for tests: a crash of the machine may lose what was written.
# shellcheck source=hack/lib.sh
. "$(dirname "$0")/lib.sh"

# In one function: bash reads a script while it runs, and somebody may edit it meanwhile.
main() {
  install_packages "/usr/lib/postgresql/*/bin/initdb=postgresql"

  bin=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 || true)
  bin=${bin:-$(command -v initdb || true)}
  [[ -n $bin ]] || die "no PostgreSQL server programs: install Debian's package postgresql"
  bin=$(dirname "$bin")

  dir=$(mktemp -d "${TMPDIR:-/tmp}/spillway-postgres-XXXXXX")
  # PostgreSQL refuses to run as root.
  as=()
  if ((EUID == 0)); then
    as=(runuser -u postgres --)
    chown postgres "$dir"
  fi

  # shellcheck disable=SC2317 # by the trap
  stop() {
    (cd "$dir" && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1) || true
    rm -rf "$dir"
  }
  trap stop EXIT
  trap 'exit 130' INT TERM

  cd "$dir"
  "${as[@]}" "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
  options="-c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=400 -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
  # A port is free until somebody else takes it: the server decides.
  for _ in {1..20}; do
    port=$((20700 + RANDOM % 10000))
    if "${as[@]}" "$bin/pg_ctl" -D data -o "$options -c port=$port" -l server.log -w -t 30 start >/dev/null 2>&1; then break; fi
    port=
  done
  [[ -n $port ]] || { cat server.log >&2; die "PostgreSQL did not start"; }

  cd "$OLDPWD"
  # TLS is verified unless a URL says otherwise, and this server has none.
  DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable" "$@"
}

main "$@"
exit
