#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PostgreSQL on a store that fills up: its transactions fail, or it stops; when there is room again it recovers, with each
# row of which the commit was answered.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
[ "$LONG" = 1 ] || skip "takes half a minute: with CMEK_LONG=1"
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$pg_bin/initdb" ] || skip "PostgreSQL's server is not installed"
id postgres >/dev/null 2>&1 || skip "no user postgres"

store=$T/disk/store mnt=$T/mnt data=$T/mnt/data
run=$T/run # sockets, and the log of the server

pg() { (cd "$run" && runuser -u postgres -- env PATH="$pg_bin:$PATH" PGHOST="$run" PGPORT=5432 LC_ALL=C "$@"); }
server() {
	pg pg_ctl -s -w -t 120 -D "$data" -l "$run/server.log" \
		-o "-c listen_addresses='' -c unix_socket_directories='$run' -c max_wal_size=32MB -c min_wal_size=32MB" "$@"
}
sql() { pg psql -X -q -A -t -v ON_ERROR_STOP=1 -d postgres "$@"; }

mkdir "$T/disk"
mount -t tmpfs -o size=120m none "$T/disk"
if [ "$CMEK_FS" = cmekfs ]; then new_volume "$store" --journal-size 8M; else new_volume "$store"; fi
start "$store" "$mnt"
mkdir -p "$run"
chown postgres: "$run"
install -d -o postgres -g postgres -m 700 "$data"
pg initdb -D "$data" --data-checksums -A trust -E UTF8 --wal-segsize=4 >/dev/null
server start || fail "the server does not start: $(tail -n 5 "$run/server.log")"
sql -c 'create table rows (id int primary key, text text)'

say "until it is full"
# One commit a statement, and its answer in a file, until one fails.
# shellcheck disable=SC2016 # for the inner shell
pg bash -c 'for ((i = 1; i <= 100000; i++)); do
		echo "insert into rows select $i, string_agg(md5(random()::text), chr(45)) from generate_series(1, 3000) returning id;"
	done | psql -X -q -A -t -v ON_ERROR_STOP=1 -d postgres >"$1" 2>"$1.error"' - "$run/answered" &&
	fail "the store does not fill up"
tail -n 2 "$run/answered.error"
grep -Eqi 'no space left|disk space|terminat|closed the connection|connection to server was lost' "$run/answered.error" || fail "stopped for another reason"
n=$(wc -l <"$run/answered")
[ "$n" -gt 20 ] || fail "full after $n rows already"
df -h "$T/disk" | tail -n 1

say "space is back"
mount -o remount,size=400m "$T/disk"
server restart -m immediate || server start || fail "the server does not recover: $(tail -n 5 "$run/server.log")"
intact() {
	[ "$(sql -c "select count(*) from rows where id between 1 and $n")" = "$n" ] || fail "rows are lost: $(sql -c 'select count(*), max(id) from rows'), not $n"
	sql -c 'select sum(length(text)) from rows' >/dev/null || fail "rows can't be read"
	pg pg_amcheck --install-missing --heapallindexed -d postgres || fail "damaged"
}
intact
sql -c "insert into rows values (0, 'more')"
server stop
restart "$store" "$mnt"
server start
intact
[ "$(sql -c 'select text from rows where id = 0')" = more ] || fail "what came after is lost"
server stop
pg pg_checksums -c -D "$data" >/dev/null || fail "checksums are wrong"
stop "$store" "$mnt"
umount "$T/disk"
