#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# No (key, nonce) pair seals twice: over remounts, in daemons and in the foreground, after kill -9, and on a store that
# was rolled back to a copy. Needs a build with --enable-nonce-log, named by CMEK_NONCE_BUILD.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
[ -n "${CMEK_NONCE_BUILD:-}" ] || skip "CMEK_NONCE_BUILD names no build with --enable-nonce-log"
CMEKFS=$CMEK_NONCE_BUILD/cmekfs
MKFS=$CMEK_NONCE_BUILD/mkfs.cmekfs
# shellcheck disable=SC2034 # for lib.sh
CTL=$CMEK_NONCE_BUILD/cmekctl
export CMEK_NONCE_LOG_FILE=$T/nonces

store=$SHM/store mnt=$T/mnt

# The same files with the same contents, in the same order, each time.
work() {
	local dir=$1 n
	mkdir -p "$dir/dir"
	$PYTHON "$HERE/odd_tree.py" "$dir/odd"
	for n in $(seq 20); do
		head -c $((n * 9999)) /dev/zero >"$dir/dir/$n"
	done
	fio --name=v --filename="$dir/fio" --rw=randwrite --bs=4k --size=4m --numjobs=2 --thread --offset_increment=4m \
		--ioengine=psync --fdatasync=50 --output="$T/fio.out" ||
		fail "fio"
	rm -r "$dir/odd"
}
all_differ() {
	local lines repeated
	lines=$(wc -l <"$CMEK_NONCE_LOG_FILE")
	repeated=$(sort "$CMEK_NONCE_LOG_FILE" | uniq -d | head -n 5)
	[ -z "$repeated" ] || fail "sealed twice ($1): $repeated"
	say "$1: $lines seals, $(cut -d ' ' -f 1 "$CMEK_NONCE_LOG_FILE" | sort -u | wc -l) keys, no pair twice"
}

need fio
new_volume "$store"
for round in 1 2; do
	start_daemon "$store" "$mnt"
	work "$mnt/w"
	stop "$store" "$mnt"
	start_daemon "$store" "$mnt"
	rm -r "$mnt/w"
	work "$mnt/w"
	stop "$store" "$mnt"
	all_differ "remount $round"
done
[ "$(wc -l <"$CMEK_NONCE_LOG_FILE")" -gt 10000 ] || fail "hardly anything was recorded"

"$CMEKFS" "$store" "$mnt" -f >>"$T/mnt.mount.log" 2>&1 &
foreground=$!
wait_for 10 mounted "$mnt" || fail "not mounted in the foreground"
work "$mnt/f"
stop "$store" "$mnt"
wait $foreground || fail "the mount in the foreground ended with an error"
all_differ "foreground"

for round in 1 2 3; do
	start_daemon "$store" "$mnt"
	work "$mnt/k$round" >/dev/null 2>&1 &
	load=$!
	sleep "0.$((RANDOM % 9 + 1))"
	kill -KILL "$(storage_pid "$store")"
	wait $load || true
	wait_for 30 ended "$store" || fail "the mount does not end"
	if mounted "$mnt"; then umount "$mnt"; fi
	all_differ "kill -9, round $round"
done

say "the store is rolled back"
cp -a "$store" "$SHM/copy"
for round in 1 2 3; do
	start_daemon "$store" "$mnt"
	work "$mnt/same"
	stop "$store" "$mnt"
	rm -r "$store"
	cp -a "$SHM/copy" "$store"
	all_differ "rolled back, round $round"
done

say "two copies of one store are mounted at once"
cp -a "$SHM/copy" "$SHM/copy2"
start_daemon "$store" "$mnt"
start_daemon "$SHM/copy2" "$T/mnt2"
work "$mnt/both" &
work "$T/mnt2/both"
wait $!
stop "$store" "$mnt"
stop "$SHM/copy2" "$T/mnt2"
all_differ "two copies"
