#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PostgreSQL under load while its volume is locked and unlocked, by hand and because its key is gone at each kind of key
# service and comes back: what it has acknowledged is there afterwards, and it has never seen a wrong byte.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
need_cmekfs
need_root
need_fuse
need jq
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$pg_bin/initdb" ] || skip "PostgreSQL's server is not installed"
id postgres >/dev/null 2>&1 || skip "no user postgres"

store=$SHM/store mnt=$T/mnt
run=$T/run # sockets, and logs of the servers
scale=$([ "$LONG" = 1 ] && echo 20 || echo 1)
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
status() { "$CTL" status --json "$mnt" | jq -r .mount.state; }
is() { [ "$(status)" = "$1" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# What happens to a key, by the service.
take_key() {
	case $1 in
	hand) "$CTL" lock "$mnt" ;;
	*) "$CTL" key disable "${key[$1]}" ;;
	esac
}
give_key() {
	case $1 in
	hand) "$CTL" unlock "$mnt" ;;
	ibm) emulate ibm "{\"change\": \"${key[ibm]}\", \"state\": 1}" >/dev/null ;; # which would have us wait for half a minute
	*) "$CTL" key enable "${key[$1]}" ;;
	esac
}

# round NUMBER WHO: the mount is unlocked by WHO's key alone.
round() {
	local number=$1 who=$2 first=$(($1 * 100000)) last load bench begin
	say "round $number: locked under load, $who"
	start "$store" "$mnt" -o "key=${key[$who]},watch_interval=200ms,watch_retry=200ms,watch_grace=1s"
	: >"$run/server.log"
	start_server
	# shellcheck disable=SC2016 # for the inner shell, which says each id when its commit has been acknowledged
	pg bash -c '
		i=$1
		while psql -X -q -A -t -v ON_ERROR_STOP=1 -d bench -c "insert into t values ($i, repeat(md5($i::text), 50))" >/dev/null 2>&1; do
			echo $i
			i=$((i + 1))
		done' - $first >"$T/acknowledged" &
	load=$!
	pg pgbench -n -c 4 -j 2 -T 600 bench >"$T/pgbench.log" 2>&1 &
	bench=$!
	wait_for 60 test -s "$T/acknowledged" || fail "nothing is written"
	sleep 1
	begin=${EPOCHREALTIME/[.,]/}
	take_key "$who"
	wait_for 120 is locked || fail "it does not lock: $(tail -n 5 "$T/mnt.mount.log")"
	echo "locked $(((${EPOCHREALTIME/[.,]/} - begin) / 1000)) ms after the key was gone"
	wait_for 120 gone $load || fail "the load does not notice the lock"
	wait_for 120 gone $bench || fail "pgbench does not notice the lock"
	wait $load || true
	grep -q "Key has been revoked" "$run/server.log" || fail "the server does not say why"
	if wait $bench; then fail "pgbench had no trouble"; fi
	sleep 1
	give_key "$who"
	wait_for 120 is unlocked || fail "it does not unlock: $(tail -n 5 "$T/mnt.mount.log")"
	# It may have noticed and given up, or wait for its checkpoint to fail: an operator starts it anew in any case.
	pg pg_ctl -s -w -t 60 -D "$data" -m immediate stop 2>/dev/null || true
	wait_for 60 no_server || fail "a process of the server is left"
	start_server
	last=$(tail -n 1 "$T/acknowledged")
	echo "acknowledged up to $last"
	[ "$(sql -d bench -c "select count(*) from t where id between $first and $last")" = $((last - first + 1)) ] ||
		fail "an acknowledged row is missing"
	# Each transaction of pgbench adds one delta to an account and to the history.
	[ "$(sql -d bench -c 'select sum(abalance) = (select coalesce(sum(delta), 0) from pgbench_history) from pgbench_accounts')" = t ] ||
		fail "pgbench's sums differ"
	pg pg_amcheck --install-missing --heapallindexed -d bench
	pg pg_ctl -s -w -t 120 -D "$data" -m fast stop
	pg pg_checksums --check -D "$data" | grep -E 'Bad checksums: +0$'
	stop "$store" "$mnt"
}

emulator_start
declare -A key=([hand]=local:test [local]=local:test)
aws_env
key[aws]=aws-kms://alias/db
"$CTL" key create "${key[aws]}" >/dev/null
if [ "$LONG" = 1 ]; then
	gcp_env
	ibm_env
	key[gcp]=gcp-kms://projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/db
	"$CTL" key create "${key[gcp]}" >/dev/null
	key[ibm]=$(emulate ibm '{"key": {"instance": "8e19aaff-df40-4623-bef2-86cb19a9d8bd", "account": "0123456789abcdef", "region": "eu-de"}}' |
		jq -r .crn)
fi
# Operations that manage keys take no alias.
key[aws]=$("$CTL" key describe --json "${key[aws]}" | jq -r .key)
keys=()
for who in "${!key[@]}"; do
	[ "$who" = hand ] || [ "$who" = local ] || keys+=(--key "${key[$who]}")
done
new_volume "$store" "${keys[@]}"

say "initdb"
start "$store" "$mnt"
mkdir -p "$run"
chown postgres: "$run"
install -d -o postgres -g postgres -m 700 "$data"
pg initdb -D "$data" --data-checksums -A trust -E UTF8 >/dev/null
start_server
pg createdb bench
pg pgbench -i -q -s "$scale" bench >/dev/null 2>&1
sql -d bench -c "create table t (id int primary key, filler text)"
pg pg_ctl -s -w -t 120 -D "$data" -m fast stop
stop "$store" "$mnt"

if [ "$LONG" = 1 ]; then
	rounds=(hand local aws gcp ibm hand local aws gcp ibm hand local aws gcp ibm hand local aws gcp ibm)
else
	rounds=(hand local aws)
fi
for i in "${!rounds[@]}"; do
	round $((i + 1)) "${rounds[$i]}"
done
emulator_stop
