#!/usr/bin/env bash
# The metadata that lets a clone build without a database (.sqlx).
#   hack/sqlx.sh prepare   write it anew after a change to a query or a migration
#   hack/sqlx.sh check     compare it with the queries and the migrations; fails on drift
# DATABASE_URL names a PostgreSQL server on which a database may be made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1:-}
case $mode in prepare | check) ;; *)
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
  ;;
esac
: "${DATABASE_URL:?names a PostgreSQL server, such as postgres://postgres@127.0.0.1/postgres}"

database=sqlx_prepare_$$
url=${DATABASE_URL%/*}/$database
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"; psql -q "$DATABASE_URL" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)"' EXIT

psql -q "$DATABASE_URL" -c "CREATE DATABASE $database"
for migration in migrations/*.sql; do
  psql -q -v ON_ERROR_STOP=1 -f "$migration" "$url" >/dev/null
done

# The macros write what they learn from the database when they are expanded, so make cargo expand them.
touch core/src/lib.rs
env -u SQLX_OFFLINE DATABASE_URL="$url" SQLX_OFFLINE_DIR="$fresh" cargo check -q -p spillway-core

if [ "$mode" = prepare ]; then
  rm -rf .sqlx
  mkdir .sqlx
  cp "$fresh"/*.json .sqlx/
  echo "wrote $(find .sqlx -name '*.json' | wc -l) queries to .sqlx"
elif ! diff -rq "$fresh" .sqlx; then
  echo "queries and .sqlx differ: run hack/sqlx.sh prepare and commit .sqlx" >&2
  exit 1
fi
