#!/bin/sh
# What the official image's entrypoint does with these variables: a fresh data directory gets the user, its password and
# the database; then the server runs.
set -eu

if [ "${1#-}" != "$1" ]; then
	set -- postgres "$@"
fi

if [ "$1" = postgres ]; then
	mkdir -p "$PGDATA"
	# At every start: a volume's fsGroup opens the directory to the group, which the server refuses.
	chmod 700 "$PGDATA"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
		POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
	fi
	: "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE}"
	user=${POSTGRES_USER:-postgres}
	echo "$POSTGRES_PASSWORD" >/tmp/password
	initdb --pgdata "$PGDATA" --username "$user" --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256 \
		--encoding UTF8 --locale C.UTF-8
	rm -f /tmp/password
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	if [ "${POSTGRES_DB:-$user}" != postgres ]; then
		echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" | postgres --single -j -D "$PGDATA" postgres >/dev/null
	fi
fi
unset POSTGRES_PASSWORD

if [ "$1" = postgres ]; then
	shift
	set -- postgres -c listen_addresses='*' "$@"
fi
exec "$@"
