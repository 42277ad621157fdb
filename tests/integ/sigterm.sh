#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The ends of a mount: SIGTERM under write load loses nothing that was closed; the second mount of a store is refused;
# after a kill of the storage daemon the mount says so, and the next one has all that was fsynced.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
BUSY=5
rounds=$([ "$LONG" = 1 ] && echo 20 || echo 3)
new_volume "$store"

for round in $(seq "$rounds"); do
	say "SIGTERM, round $round"
	start_daemon "$store" "$mnt"
	mkdir "$mnt/term-$round"
	$PYTHON "$HERE/write_load.py" closed "$mnt/term-$round" "$T/closed-$round" &
	load=$!
	sleep 1
	kill -TERM "$(supervisor_pid "$store")"
	wait_for 30 ended "$store" || fail "processes are left 30 s after SIGTERM"
	if mounted "$mnt"; then fail "still mounted after SIGTERM"; fi
	wait $load || true
	[ -s "$T/closed-$round" ] || fail "the writer did nothing"
	start_daemon "$store" "$mnt"
	$PYTHON "$HERE/write_load.py" check "$mnt/term-$round" "$T/closed-$round"
	stop "$store" "$mnt"
done

say "a second mount"
start_daemon "$store" "$mnt"
mkdir -p "$T/second"
expect_code $BUSY "$CMEKFS" "$store" "$T/second"
expect_text "in use|mounted|busy"
if mounted "$T/second"; then fail "mounted twice"; fi
expect_code $BUSY "$CMEKFS" "$store" "$T/second" -o ro
stop "$store" "$mnt"
say "read-only ones share the store, and exclude a writer"
start_daemon "$store" "$mnt" -o ro
start_daemon "$store" "$T/second" -o ro
expect_errno EROFS touch "$mnt/new"
expect_errno EROFS mkdir "$mnt/new"
expect_errno EROFS unlink "$mnt/term-1"
mkdir -p "$T/third"
expect_code $BUSY "$CMEKFS" "$store" "$T/third"
umount "$mnt"
stop "$store" "$T/second"

for round in $(seq "$rounds"); do
	say "kill -9 of the storage daemon, round $round"
	start_daemon "$store" "$mnt"
	mkdir "$mnt/kill-$round"
	$PYTHON "$HERE/write_load.py" fsynced "$mnt/kill-$round" "$T/fsynced-$round" &
	load=$!
	sleep 1
	# Nobody inside, so that the mount point can be looked at while the mount is dead.
	kill -KILL "$(storage_pid "$store")"
	wait_for 30 ended "$store" || fail "the supervisor does not end when the storage daemon is gone"
	wait $load || true
	if mounted "$mnt"; then
		expect_errno ENOTCONN stat "$mnt"
		umount "$mnt"
	fi
	start_daemon "$store" "$mnt"
	$PYTHON "$HERE/write_load.py" check "$mnt/kill-$round" "$T/fsynced-$round"
	stop "$store" "$mnt"
done
