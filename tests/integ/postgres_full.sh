#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PostgreSQL on a store that fills up: what needs room fails, all else goes on, as on any file system; when there is room again
# it has each row of which the commit was answered. With no room kept the server may stop, and recovers with the same.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
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

# until_full: one commit a statement, and its answer in a file, until one fails. $n: how many were answered.
until_full() {
	# shellcheck disable=SC2016 # for the inner shell
	pg bash -c 'for ((i = 1; i <= 100000; i++)); do
			echo "insert into rows select $i, string_agg(md5(random()::text), chr(45)) from generate_series(1, 3000) returning id;"
		done | psql -X -q -A -t -v ON_ERROR_STOP=1 -d postgres >"$1" 2>"$1.error"' - "$run/answered" &&
		fail "the store does not fill up"
	tail -n 2 "$run/answered.error"
	n=$(wc -l <"$run/answered")
	[ "$n" -gt 20 ] || fail "full after $n rows already"
	df -h "$T/disk" | tail -n 1
}

# stays_up: the server has told why, and everything that needs no room works.
stays_up() {
	grep -q 'No space left' "$run/answered.error" || fail "the insert was not told why"
	grep -E 'PANIC|terminated by signal|recovery' "$run/server.log" && fail "the server has not stayed up"
	[ "$(sql -c 'select count(*) from rows')" = "$n" ] || fail "not readable while the store is full"
	sql -c checkpoint || fail "no checkpoint while the store is full: $(grep -E 'PANIC|ERROR|FATAL' "$run/server.log")"
}

intact() {
	[ "$(sql -c "select count(*) from rows where id between 1 and $n")" = "$n" ] || fail "rows are lost: $(sql -c 'select count(*), max(id) from rows'), not $n"
	sql -c 'select sum(length(text)) from rows' >/dev/null || fail "rows can't be read"
	pg pg_amcheck --install-missing --heapallindexed -d postgres || fail "damaged"
}

# full [OPTION]...: of the mount.
full() {
	rm -rf "$run"
	mkdir -p "$T/disk" "$run"
	chown postgres: "$run"
	mount -t tmpfs -o size=120m none "$T/disk"
	if [ "$CMEK_FS" = cmekfs ]; then new_volume "$store" --journal-size 8M; else new_volume "$store"; fi
	start "$store" "$mnt" "$@"
	install -d -o postgres -g postgres -m 700 "$data"
	pg initdb -D "$data" --data-checksums -A trust -E UTF8 --wal-segsize=4 >/dev/null
	server start || fail "the server does not start: $(tail -n 5 "$run/server.log")"
	sql -c 'create table rows (id int primary key, text text)'
	until_full
	if [ $# -eq 0 ]; then stays_up; fi
	mount -o remount,size=400m "$T/disk"
	if [ $# -gt 0 ]; then
		server restart -m immediate || server start || fail "the server does not recover: $(tail -n 5 "$run/server.log")"
	fi
	intact
	sql -c "insert into rows values (0, 'more')"
	server stop
	restart "$store" "$mnt" "$@"
	server start
	intact
	[ "$(sql -c 'select text from rows where id = 0')" = more ] || fail "what came after is lost"
	server stop
	pg pg_checksums -c -D "$data" >/dev/null || fail "checksums are wrong"
	stop "$store" "$mnt"
	umount "$T/disk"
}

say "it stays up"
full
if [ "$CMEK_FS" = cmekfs ]; then
	say "with no room kept"
	full -o reserve=0
fi
