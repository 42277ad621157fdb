#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Key slots of a mounted volume: added and removed under load, several programs at once, and what opens afterwards.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

new_volume "$store"
for key in one two three four; do
	"$CTL" key create local:$key >/dev/null
done
start "$store" "$mnt"
echo content >"$mnt/file"

say "several programs change the slots of a mounted volume at once"
pids=()
for key in one two three four; do
	"$CTL" -q slot add "$mnt" local:$key &
	pids+=($!)
done
for _ in $(seq 20); do
	echo more >>"$mnt/file"
	sync "$mnt/file"
done
for pid in "${pids[@]}"; do
	wait "$pid" || fail "a slot could not be added"
done
[ "$("$CTL" slot list "$store" | grep -c 'local:')" -eq 5 ] || fail "not all slots are there"

say "the first key goes, with its slot; the mount does not notice"
expect_code 0 "$CTL" slot remove --rekey "$mnt" 0
"$CTL" key disable local:test
"$CTL" key uses local:one | grep -q 'in use' || fail "the use of a mounted volume's key is not told"
echo last >>"$mnt/file"
restart "$store" "$mnt"
[ "$(wc -l <"$mnt/file")" -eq 22 ] || fail "the file has lost lines"
"$CTL" key uses local:test | grep -q 'No volume' || fail "a removed slot is told as a use"

say "each slot that stays opens the volume"
stop "$store" "$mnt"
for key in one two three four; do
	start "$store" "$mnt" -o "key=local:$key"
	grep -q last "$mnt/file" || fail "local:$key opens something else"
	stop "$store" "$mnt"
done
expect_code 22 "$CMEKFS" "$store" "$mnt" -o key=local:test

say "a header backup of a mounted volume; none is restored under a mount"
start "$store" "$mnt"
"$CTL" -q header backup "$mnt" "$T/backup"
expect_code 5 "$CTL" header restore "$store" "$T/backup"
stop "$store" "$mnt"
rm -r "$store/.cmekfs"
expect_code 0 "$CTL" header restore "$store" "$T/backup"
start "$store" "$mnt"
grep -q last "$mnt/file" || fail "the restored volume is another one"
stop "$store" "$mnt"
