#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A PostgreSQL cluster lives on the mount: initdb with checksums, load, immediate stop and recovery, remount, checks;
# pg_basebackup and pg_dump are written to the mount and restored from there.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$pg_bin/initdb" ] || skip "PostgreSQL's server is not installed"
id postgres >/dev/null 2>&1 || skip "no user postgres"

store=$SHM/store mnt=$T/mnt
run=$T/run # sockets, and logs of the servers
scale=$([ "$LONG" = 1 ] && echo 50 || echo 4)
seconds=$([ "$LONG" = 1 ] && echo 60 || echo 4)
data=$mnt/data

# pg PROGRAM ARGUMENTS...: as the user postgres; a client finds our server by the socket directory alone.
pg() { (cd "$run" && runuser -u postgres -- env PATH="$pg_bin:$PATH" PGHOST="$run" PGPORT=5432 LC_ALL=C "$@"); }
server() { # server DATA start|stop ...
	local dir=$1
	shift
	pg pg_ctl -s -w -t 60 -D "$dir" -l "$run/server.log" \
		-o "-c listen_addresses='' -c unix_socket_directories='$run' -c fsync=on" "$@" || {
		tail -n 20 "$run/server.log" >&2
		fail "pg_ctl $*"
	}
}
sql() { pg psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
# sums DATABASE: by which two copies of the database are compared.
sums() { sql -d "$1" -c "select count(*), sum(abalance), sum(hashtext(t::text)) from pgbench_accounts t"; }
check() {
	pg pg_amcheck --install-missing --heapallindexed -j 2 -d bench
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

new_volume "$store"
start "$store" "$mnt"
mkdir -p "$run"
chown postgres: "$run"
install -d -o postgres -g postgres -m 700 "$data" "$mnt/backup" "$mnt/dump" "$mnt/restored"

say "initdb, load"
pg initdb -D "$data" --data-checksums -A trust -E UTF8 >/dev/null
server "$data" start
pg createdb bench
pg pgbench -i -q -s "$scale" bench >/dev/null 2>&1
pg pgbench -n -c 4 -j 2 -T "$seconds" bench | grep -E '^(tps|number of transactions actually)'

say "immediate stop under load, recovery"
pg pgbench -n -c 4 -j 2 -T 60 bench >/dev/null 2>&1 &
load=$!
sleep 2
server "$data" stop -m immediate
wait $load && fail "pgbench did not notice that the server stopped"
server "$data" start
grep -q "redo done" "$run/server.log" || fail "the server did not recover"
check
# Each transaction of pgbench adds one delta to an account and to the history.
[ "$(sql -d bench -c 'select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts')" = t ] ||
	fail "accounts and history differ after the recovery"

if [ "$CMEK_FS" = cmekfs ]; then
	say "all of it moved to a new data key under load, and the old one destroyed"
	history=$(sql -d bench -c 'select count(*) from pgbench_history')
	pg pgbench -n -c 4 -j 2 -T 600 --log --log-prefix="$run/acknowledged" bench >/dev/null 2>&1 &
	load=$!
	expect_code 0 "$CTL" rotate "$mnt"
	expect_code 0 "$CTL" reencrypt --now "$mnt"
	expect_text 'data key 1 is destroyed'
	# Now the mount goes, and nothing can be read again from what the kernel has.
	postmaster=$(head -n 1 "$data/postmaster.pid")
	kill -KILL "$(storage_pid "$store")"
	kill -QUIT "$postmaster" 2>/dev/null || true # it may have ended by itself
	wait $load && fail "pgbench did not notice that the file system was gone"
	wait_for 120 has_ended "$postmaster" || fail "the server has not ended"
	wait_for 60 ended "$store" || fail "processes are left"
	wait "${mount_pid[$mnt]}" || true
	unset "mount_pid[$mnt]"
	start "$store" "$mnt"
	server "$data" start
	# What pgbench has logged was acknowledged; not all that was is in its log.
	acknowledged=$(cat "$run"/acknowledged.* | wc -l)
	[ "$(sql -d bench -c 'select count(*) from pgbench_history')" -ge $((history + acknowledged)) ] ||
		fail "acknowledged transactions are lost"
	[ "$(sql -d bench -c 'select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts')" = t ] ||
		fail "accounts and history differ"
fi

say "base backup and dump onto the mount, under load"
pg pgbench -n -c 2 -T 60 bench >/dev/null 2>&1 &
load=$!
pg pg_basebackup -D "$mnt/backup" -X stream --checkpoint=fast
sql -d bench -c "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'pgbench'"
wait $load && fail "pgbench did not notice that its sessions were ended"
pg pg_dump -Fd -j 2 -f "$mnt/dump/bench" bench
pg pg_dump -Fc -f "$mnt/dump/bench.custom" bench
before=$(sums bench)
server "$data" stop -m fast
pg pg_checksums --check -D "$data" | grep -E 'Bad checksums: +0$'

say "remount"
restart "$store" "$mnt"
pg pg_checksums --check -D "$data" | grep -E 'Bad checksums: +0$'
pg pg_verifybackup "$mnt/backup"
server "$data" start
[ "$(sums bench)" = "$before" ] || fail "the database differs after a remount: $(sums bench), not $before"
check

say "restored from the dumps"
for dump in "$mnt/dump/bench" "$mnt/dump/bench.custom"; do
	pg createdb restored
	pg pg_restore -d restored "$dump"
	[ "$(sums restored)" = "$before" ] ||
		fail "restored from $dump: not the same"
	pg dropdb restored
done
server "$data" stop -m fast

say "restored from the base backup"
pg cp -a "$mnt/backup/." "$mnt/restored"
server "$mnt/restored" start
check
server "$mnt/restored" stop -m fast
pg pg_checksums --check -D "$mnt/restored" | grep -E 'Bad checksums: +0$'
stop "$store" "$mnt"
