#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PostgreSQL under load while its volume is locked and unlocked: what it has acknowledged is there afterwards.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$pg_bin/initdb" ] || skip "PostgreSQL's server is not installed"
id postgres >/dev/null 2>&1 || skip "no user postgres"

store=$SHM/store mnt=$T/mnt
run=$T/run # sockets, and logs of the servers
rounds=$([ "$LONG" = 1 ] && echo 20 || echo 2)
data=$mnt/data

# pg PROGRAM ARGUMENTS...: as the user postgres; a client finds our server by the socket directory alone.
pg() { (cd "$run" && runuser -u postgres -- env PATH="$pg_bin:$PATH" PGHOST="$run" PGPORT=5432 LC_ALL=C "$@"); }
start_server() {
	pg pg_ctl -s -w -t 120 -D "$data" -l "$run/server.log" \
		-o "-c listen_addresses='' -c unix_socket_directories='$run' -c fsync=on" start || {
		tail -n 20 "$run/server.log" >&2
		fail "the server does not start"
	}
	postmaster=$(head -n 1 "$data/postmaster.pid")
}
sql() { pg psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
# All its processes work in its directory. One that ends has no name any more long before its pid is free.
no_server() { ! kill -0 "$postmaster" 2>/dev/null && [ -z "$(find /proc/[0-9]*/cwd -lname "$data" 2>/dev/null || true)" ]; }

new_volume "$store"
start "$store" "$mnt"
mkdir -p "$run"
chown postgres: "$run"
install -d -o postgres -g postgres -m 700 "$data"
pg initdb -D "$data" --data-checksums -A trust -E UTF8 >/dev/null
start_server
sql -d postgres -c "create table t (id int primary key, filler text)"

for round in $(seq "$rounds"); do
	say "round $round: locked under load"
	# shellcheck disable=SC2016 # for the inner shell, which says each id when its commit has been acknowledged
	pg bash -c '
		i=$1
		while psql -X -q -A -t -v ON_ERROR_STOP=1 -d postgres -c "insert into t values ($i, repeat(md5($i::text), 50))" >/dev/null 2>&1; do
			echo $i
			i=$((i + 1))
		done' - $((round * 100000)) >"$T/acknowledged" &
	load=$!
	wait_for 60 test -s "$T/acknowledged" || fail "nothing is written"
	sleep 1
	"$CTL" lock "$mnt"
	wait_for 60 bash -c "! kill -0 $load 2>/dev/null" || fail "the load does not notice the lock"
	wait $load || true
	sleep 1
	"$CTL" unlock "$mnt"
	# It may have noticed and given up, or wait for its checkpoint to fail: an operator starts it anew in any case.
	pg pg_ctl -s -w -t 60 -D "$data" -m immediate stop 2>/dev/null || true
	wait_for 60 no_server || fail "a process of the server is left"
	start_server
	last=$(tail -n 1 "$T/acknowledged")
	echo "acknowledged up to $last"
	[ "$(sql -d postgres -c "select count(*) from t where id between $((round * 100000)) and $last")" = $((last - round * 100000 + 1)) ] ||
		fail "an acknowledged row is missing"
	pg pg_amcheck --install-missing --heapallindexed -d postgres
done
pg pg_ctl -s -w -D "$data" -m fast stop
pg pg_checksums --check -D "$data" | grep -E 'Bad checksums: +0$'
stop "$store" "$mnt"
