#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The key watch: a key that goes takes the volume with it, one that comes back brings it back, as the policy says.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

store=$SHM/store mnt=$T/mnt
quick=watch_interval=100ms,watch_retry=100ms,watch_grace=0s
new_volume "$store"

status() { "$CTL" status --json "$mnt" | jq -r "$1"; }
is() { [ "$(status "$1")" = "$2" ]; }
# becomes FILTER VALUE: within a time that no machine needs.
becomes() { wait_for 60 is "$1" "$2" || fail "$1 is $(status "$1"), not $2: $(tail -n 5 "$T/mnt.mount.log")"; }
stays_unlocked() {
	sleep 1
	is .mount.state unlocked || fail "the state is $(status .mount.state)"
}

say "disabled and enabled, under writers"
start "$store" "$mnt" -o "$quick"
echo content >"$mnt/file"
exec 5<>"$mnt/file"
is .mount.watch.state healthy
before=$SECONDS
"$CTL" key disable local:test
becomes .mount.state locked
echo "locked $((SECONDS - before)) s after the key was disabled"
is .mount.watch.state disabled
is .mount.watch.locked true
expect_errno EKEYREVOKED stat "$mnt/file"
expect_code 0 "$CTL" status "$mnt"
expect_text "key watch: +disabled"
"$CTL" key enable local:test
becomes .mount.state unlocked
[ "$(cat <&5)" = content ] || fail "an open file did not go on"
exec 5>&-

say "scheduled for deletion, kept, destroyed"
"$CTL" key schedule-deletion --days 3 local:test
becomes .mount.state locked
becomes .mount.watch.state pending-deletion
"$CTL" key cancel-deletion local:test
becomes .mount.watch.state disabled
is .mount.state locked
"$CTL" key enable local:test
becomes .mount.state unlocked

say "a rotation is seen, and is no reason to lock"
"$CTL" key rotate local:test
becomes '.mount.watch.slots[0].newer_version' 2
"$CTL" rewrap "$mnt" >/dev/null
becomes '.mount.watch.slots[0].newer_version' null
is .mount.state unlocked

say "and is taken up by itself where that is wanted"
version() { status ".mount.volume.slots[0].version"; }
"$CTL" watch "$mnt" auto_rewrap=yes | grep -q "auto_rewrap" || fail "not shown"
"$CTL" key rotate local:test
becomes '.mount.volume.slots[0].version' 3
becomes '.mount.watch.slots[0].newer_version' null
is .mount.state unlocked
rewrapped='.event == "slot.rewrap" and .outcome == "success" and .program == "cmekfs" and .version == "3"'
jq -e -s "any($rewrapped)" "$CMEKFS_AUDIT_LOG" >/dev/null || fail "no event"
"$CTL" lock "$mnt"
"$CTL" key rotate local:test # nothing is changed while it is locked
becomes '.mount.watch.slots[0].newer_version' 4
[ "$(version)" = 3 ] || fail "a locked volume's header was changed"
"$CTL" unlock "$mnt"
becomes '.mount.volume.slots[0].version' 4
"$CTL" watch "$mnt" auto_rewrap=no >/dev/null
"$CTL" header dump "$store" >"$T/dumped"
restart "$store" "$mnt" -o "$quick"
[ "$(version)" = 4 ] || fail "the header has version $(version)"

say "what an operator locks stays locked"
"$CTL" lock "$mnt"
sleep 1
is .mount.state locked
"$CTL" unlock "$mnt"
is .mount.state unlocked
"$CTL" key disable local:test
becomes .mount.state locked
"$CTL" lock --reason "for good" "$mnt"
"$CTL" key enable local:test
becomes .mount.watch.state healthy
sleep 1
is .mount.state locked
is .mount.lock_reason "for good"
"$CTL" unlock "$mnt"
is .mount.state unlocked

say "a key store that is gone, and comes back"
mv "$T/keys/keys.json" "$T/keys/away"
sleep 1
mv "$T/keys/away" "$T/keys/keys.json"
becomes .mount.watch.state healthy
becomes .mount.state unlocked
stop "$store" "$mnt"

say "ignored, by -o and by the configuration"
printf '[watch]\ninterval = 100ms\nretry = 100ms\ngrace = 0s\non_disabled = ignore\n' >"$T/watch.conf"
start "$store" "$mnt" -o "config=$T/watch.conf"
"$CTL" key disable local:test
becomes .mount.watch.state disabled
stays_unlocked
"$CTL" key enable local:test
stop "$store" "$mnt"
start "$store" "$mnt" -o "config=$T/watch.conf,watch_on_disabled=lock"
"$CTL" key disable local:test
becomes .mount.state locked
"$CTL" key enable local:test
becomes .mount.state unlocked
stop "$store" "$mnt"
start "$store" "$mnt" -o nowatch
is .mount.watch null
stop "$store" "$mnt"

say "grace"
start "$store" "$mnt" -o watch_interval=100ms,watch_retry=100ms,watch_grace=1h
"$CTL" key disable local:test
becomes .mount.watch.state disabled
stays_unlocked
"$CTL" key enable local:test
becomes .mount.watch.state healthy
stop "$store" "$mnt"

say "a policy that is changed while mounted"
start "$store" "$mnt" -o "$quick,watch_on_disabled=ignore"
policy() { "$CTL" watch --json "$mnt" | jq -r "$1"; }
[ "$(policy .interval)" = 100ms ] && [ "$(policy .on_disabled)" = ignore ] && [ "$(policy .on_denied)" = lock ]
"$CTL" key disable local:test
becomes .mount.watch.state disabled
stays_unlocked
expect_code 2 "$CTL" watch "$mnt" on_disabled=lock interval=never
[ "$(policy .on_disabled)" = ignore ] || fail "half of it was set"
expect_code 2 "$CTL" watch "$mnt" on_disabled
expect_code 0 "$CTL" watch "$mnt" on_disabled=lock:0s retry=200ms grace=90m
expect_text "on_disabled +lock:0s" "retry +200ms" "grace +90m" "on_destroyed +lock$"
becomes .mount.state locked
"$CTL" key enable local:test
becomes .mount.state unlocked
[ "$(policy .on_disabled)" = lock:0s ] || fail "an unlock has put the policy back"
grep -q '"event":"watch.set","outcome":"success"' "$CMEKFS_AUDIT_LOG" || fail "not in the audit log"
stop "$store" "$mnt"
start "$store" "$mnt" -o nowatch
expect_code 23 "$CTL" watch "$mnt" # unsupported
stop "$store" "$mnt"

say "two slots: healthy while one is"
"$CTL" key create local:second >/dev/null
mkdir "$SHM/two"
"$MKFS" --key local:test --key local:second "$SHM/two" >/dev/null
start "$SHM/two" "$mnt" -o "$quick"
"$CTL" key disable local:test
becomes '.mount.watch.slots[0].state' disabled
stays_unlocked
"$CTL" key disable local:second
becomes .mount.state locked
"$CTL" key enable local:test
becomes .mount.state unlocked
"$CTL" key enable local:second
stop "$SHM/two" "$mnt"

say "unmount, with a file open"
start "$store" "$mnt" -o "$quick,watch_on_disabled=unmount"
exec 5<>"$mnt/file"
"$CTL" key disable local:test
wait_for 60 bash -c "! grep -qF ' $mnt ' /proc/self/mountinfo" || fail "still mounted"
if cat <&5 2>/dev/null; then fail "read from a locked volume"; fi
[ -n "$(storage_pid "$store")" ] || fail "it ended under an open file"
exec 5>&-
wait_for 60 ended "$store" || fail "it did not end when the last file was closed"
wait "${mount_pid[$mnt]}" || fail "exit code $?"
unset "mount_pid[$mnt]"
"$CTL" key enable local:test

say "destroyed"
start "$store" "$mnt" -o "$quick"
[ "$(cat "$mnt/file")" = content ]
"$CTL" key schedule-deletion --days 0 local:test
becomes .mount.state locked
becomes .mount.watch.state destroyed
stop "$store" "$mnt"
