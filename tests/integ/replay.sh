#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the last mount left in its journal: replayed by a read-write mount, shown by a read-only one that writes nothing,
# shown also when the store has no room for it; a journal that is damaged is not gone on with unless it is asked for.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need_cmekfs

mnt=$T/mnt
python() { $PYTHON "$HERE/replay.py" "$@"; }

# The stored files, and what they hold: everything but .cmekfs.
stored_files() { find "$1" -path "$1/.cmekfs" -prune -o -type f -print; }
store_sum() {
	find "$1" -print0 | sort -z | xargs -0 stat -c '%N %s %i %Y' | sha256sum
	find "$1" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
}

# crash STORE: a volume whose changes are in the journal alone. In the store are the old contents of all files, as if the
# power had failed before what the journal has was written in place.
crash() {
	local store=$1 n=0 file old pids
	while :; do
		rm -rf "$store" "$T/old"
		new_volume "$store" --journal-size 8M
		start "$store" "$mnt"
		python write "$mnt"
		restart "$store" "$mnt"
		SECONDS=0
		mkdir "$T/old"
		for file in $(stored_files "$store"); do
			cp --sparse=always "$file" "$T/old/$(basename "$file")"
		done
		python change "$mnt"
		python touch "$mnt"
		mapfile -t pids < <(fs_pids "$store")
		kill -9 "${pids[@]}"
		# the journal is checkpointed after 30 s; on a machine as slow as that it is tried again
		[ $SECONDS -lt 25 ] && break
		n=$((n + 1))
		[ $n -lt 10 ] || skip "this machine is too slow"
		umount -l "$mnt"
		wait_for 60 ended "$store"
		unset "mount_pid[$mnt]"
	done
	umount -l "$mnt"
	wait_for 60 ended "$store" || fail "a killed daemon is still there"
	unset "mount_pid[$mnt]"
	for old in "$T/old"/*; do
		file=$(find "$store" -name "$(basename "$old")")
		cat "$old" >"$file"
	done
	for file in $(stored_files "$store"); do
		[ -e "$T/old/$(basename "$file")" ] || truncate -s 0 "$file"
	done
}

say "read-only: the final state, and nothing is written"
store=$T/store
crash "$store"
[ "$(stat -c %s "$store/.cmekfs/journal.0")" = 8388608 ] || fail "the mount changed the size of the journal"
before=$(store_sum "$store")
expect_code 0 "$CTL" status --journal "$store"
expect_text "to be replayed by the next mount: [0-9]+ records of [0-9]+ files"
start "$store" "$mnt" -o ro
python check "$mnt"
[ "$(stat -c %s "$mnt/cut")" = 123456 ] || fail "size of a file that nobody has opened"
expect_errno EROFS write "$mnt/new" 10
stop "$store" "$mnt"
[ "$(store_sum "$store")" = "$before" ] || fail "a read-only mount changed the store"
grep -q "read from its journal" "$T/mnt.mount.log" || fail "the log does not say where the changes are"

say "two at a time, as read-only mounts do"
start "$store" "$mnt" -o ro
start "$store" "$T/second" -o ro
python check "$mnt"
python check "$T/second"
umount "$T/second"
stop "$store" "$mnt"

say "read-write: the same, from the store"
start "$store" "$mnt"
grep -q "replayed the journal" "$T/mnt.mount.log" || fail "the log does not tell of the replay"
python check "$mnt"
stop "$store" "$mnt"
expect_code 0 "$CTL" status --journal "$store"
expect_text "journal: .*, empty"
start "$store" "$mnt" -o ro
python check "$mnt"
stop "$store" "$mnt"

say "a store without room for it: mounted read-only, and shown"
full() {
	mkimage ext4 96M "$T/small"
	store=$T/small/store
	crash "$store"
	: >"$T/mnt.mount.log"
	rm -f "$store/.cmekfs/reserve" # else there is room (reserve.sh)
	dd if=/dev/zero of="$T/small/filler" bs=64K 2>/dev/null || true
	dd if=/dev/zero of="$T/small/filler2" bs=4K 2>/dev/null || true
	start "$store" "$mnt"
	grep -q "mounting read-only" "$T/mnt.mount.log" || fail "there was room after all"
	grep " $mnt " /proc/self/mountinfo | grep -q " ro," || fail "the kernel was not told that it is read-only"
	python check "$mnt"
	expect_errno EROFS write "$mnt/new" 10
	stop "$store" "$mnt"
	rm "$T/small/filler" "$T/small/filler2"
	start "$store" "$mnt"
	python check "$mnt"
	echo after >"$mnt/after"
	stop "$store" "$mnt"
	umount "$T/small"
}
part full

say "a damaged record in the middle"
store=$T/store
crash "$store"
python damage "$store/.cmekfs/journal.0"
before=$(store_sum "$store")
expect_code 0 "$CTL" status --journal "$store"
expect_text "journal: .*, damaged" "record [0-9]+ is damaged"
for option in rw ro; do
	expect_code 21 "$CMEKFS" "$store" "$mnt" -o $option
	expect_text "record [0-9]+ is damaged" "salvage"
done
start "$store" "$mnt" -o ro,salvage
cat "$mnt/overwritten" >/dev/null # all that is whole can be read
stop "$store" "$mnt"
[ "$(store_sum "$store")" = "$before" ] || fail "the store was changed without being asked"
start "$store" "$mnt" -o salvage
cat "$mnt/overwritten" >/dev/null
echo after >"$mnt/after"
stop "$store" "$mnt"
[ -e "$store/.cmekfs/lost/journal.0.0" ] || fail "the damaged journal was not kept"
expect_code 0 "$CTL" status "$store"
expect_text "1 put aside"
start "$store" "$mnt"
[ "$(cat "$mnt/after")" = after ] || fail "not usable after salvaging"
stop "$store" "$mnt"
