#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What a service manager hears of a mount: that it is ready, its state, and a sign of life only while requests are served.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
new_volume "$store"
: >"$T/heard"
$PYTHON "$HERE/notify.py" "$T/manager" "$T/heard" &
manager=$!
trap 'kill $manager' EXIT
wait_for 60 test -S "$T/manager"
export NOTIFY_SOCKET=$T/manager WATCHDOG_USEC=300000

# heard REGEX [FROM]: behind that many lines.
heard() { tail -n +$((${2:-0} + 1)) "$T/heard" | grep -Eq -- "$1"; }
# hears REGEX: from now on.
hears() {
	local from
	from=$(wc -l <"$T/heard")
	wait_for 60 heard "$1" "$from" || fail "not heard: $1: $(tail -n 5 "$T/heard")"
}
signs() { grep -c '^WATCHDOG=1$' "$T/heard" || true; }

say "ready, alive, locked, read-only, degraded, ended"
start "$store" "$mnt" -o watch_interval=100ms,watch_retry=100ms,watch_grace=0s,watch_on_disabled=read-only,watch_on_pending_deletion=ignore
wait_for 60 heard "^READY=1 STATUS=mounted on $mnt\$" || fail "$(cat "$T/heard")"
hears '^WATCHDOG=1$'
from=$(wc -l <"$T/heard")
"$CTL" lock --reason "for the test" "$mnt"
wait_for 60 heard "^STATUS=mounted on $mnt: locked: for the test" "$from" || fail "$(cat "$T/heard")"
hears '^WATCHDOG=1$' # a locked mount is alive
from=$(wc -l <"$T/heard")
"$CTL" unlock "$mnt"
wait_for 60 heard "^STATUS=mounted on $mnt\$" "$from" || fail "$(cat "$T/heard")"
from=$(wc -l <"$T/heard")
"$CTL" key disable local:test
wait_for 60 heard "read-only: key watch: disabled; degraded: the keys are disabled" "$from" || fail "$(cat "$T/heard")"
"$CTL" key enable local:test
wait_for 60 heard "^STATUS=mounted on $mnt\$" "$from" || fail "$(cat "$T/heard")"
"$CTL" key schedule-deletion --days 3 local:test
wait_for 60 heard ": degraded: the keys are pending-deletion" "$from" || fail "$(cat "$T/heard")"
"$CTL" key cancel-deletion local:test
"$CTL" key enable local:test

# silent WHY: three seconds have thirty signs of life, and now next to none (of those that were on their way).
silent() {
	local before
	before=$(signs)
	sleep 3
	[ "$(signs)" -le $((before + 5)) ] || fail "signs of life while $1"
}

say "a daemon that hangs gives no sign"
daemon=$(storage_pid "$store")
kill -STOP "$daemon"
silent "the daemon is stopped"
kill -CONT "$daemon"
hears '^WATCHDOG=1$'
from=$(wc -l <"$T/heard")
stop "$store" "$mnt"
wait_for 60 heard '^STOPPING=1 STATUS=writing everything back$' "$from" || fail "$(cat "$T/heard")"

say "not for another process"
WATCHDOG_PID=1 start "$store" "$mnt"
wait_for 60 heard '^READY=1 STATUS' "$from"
from=$(wc -l <"$T/heard")
sleep 1
if heard WATCHDOG "$from"; then fail "a sign of life for somebody else's watchdog"; fi
stop "$store" "$mnt"

say "in the background: the new process is told of first"
from=$(wc -l <"$T/heard")
start_daemon "$store" "$mnt"
wait_for 60 heard "^MAINPID=$(supervisor_pid "$store") READY=1\$" "$from" || fail "$(cat "$T/heard")"
stop "$store" "$mnt"

frozen() {
	local writer
	need fsfreeze
	mkimage ext4 128M "$T/disk"
	new_volume "$T/disk/store"
	start "$T/disk/store" "$mnt" -o max_threads=1
	hears '^WATCHDOG=1$'
	fsfreeze -f "$T/disk"
	dd if=/dev/zero of="$mnt/file" bs=4096 count=1 conv=fsync 2>/dev/null &
	writer=$!
	wait_for 60 grep -q "requests that don't come to an end" "$T/mnt.mount.log" || {
		fsfreeze -u "$T/disk"
		fail "not noticed"
	}
	silent "the only thread waits for the store"
	fsfreeze -u "$T/disk"
	wait $writer
	hears '^WATCHDOG=1$'
	stop "$T/disk/store" "$mnt"
	umount "$T/disk"
}
say "threads that all wait for the store are no sign either"
part frozen
