#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The store fills up: ENOSPC reaches the caller, what was synced stays, and work goes on when there is space again.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

mnt=$T/mnt

# removed_unwritten STORE: a file for which there is not room enough is removed, and its room is for others. With nothing
# kept: else the file would not be taken.
removed_unwritten() {
	say "a file that could not be written is removed"
	start "$1" "$mnt" -o reserve=0
	expect_errno OK touch "$mnt/small"
	if head -c 100000000 /dev/zero 2>/dev/null >"$mnt/large" && sync "$mnt/large" 2>/dev/null; then
		fail "100 MB had room"
	fi
	echo small >>"$mnt/small"
	rm "$mnt/large"
	wait_for 60 sync "$mnt/small" 2>/dev/null || fail "its room has not come back"
	restart "$1" "$mnt"
	[ "$(cat "$mnt/small")" = small ] || fail "what waited for room is lost"
	stop "$1" "$mnt"
}

# filled STORE: fills it by files that are fsynced one by one, checks that only ENOSPC happens and nothing is lost.
filled() {
	local store=$1 n
	new_volume "$store"
	start "$store" "$mnt"
	mkdir "$mnt/kept"
	for n in 1 2 3 4 5; do
		head -c 700001 /dev/urandom >"$mnt/kept/$n"
	done
	sync "$mnt"/kept/* "$mnt/kept"
	cp -a "$mnt/kept" "$T/kept"
	$PYTHON "$HERE/fill.py" fill "$mnt" "$T/listed"
	$PYTHON "$HERE/compare_tree.py" "$T/kept" "$mnt/kept"
	$PYTHON "$HERE/fill.py" check "$mnt" "$T/listed"
	expect_errno OK listdir "$mnt"
	say "space is back"
	rm -r "$mnt/fill"
	expect_errno OK write "$mnt/after" 1000000 0
	expect_errno OK mkdir "$mnt/dir-after"
	expect_errno OK touch "$mnt/dir-after/file"
	restart "$store" "$mnt"
	$PYTHON "$HERE/compare_tree.py" "$T/kept" "$mnt/kept"
	[ "$(stat -c %s "$mnt/after")" = 1000000 ] || fail "a file written after the full store is not there"
	stop "$store" "$mnt"
	# A full btrfs turns the volume read-only sometimes (operations.md).
	[ "$(stat -f -c %T "$store")" = btrfs ] || removed_unwritten "$store"
	say "full at the unmount"
	start "$store" "$mnt"
	rm -r "$T/listed"
	$PYTHON "$HERE/fill.py" fill "$mnt" "$T/listed"
	stop_code=any stop "$store" "$mnt" # it may say once more that something could not be written
	start "$store" "$mnt"
	$PYTHON "$HERE/fill.py" check "$mnt" "$T/listed"
	$PYTHON "$HERE/compare_tree.py" "$T/kept" "$mnt/kept"
	rm -r "$mnt/fill"
	stop "$store" "$mnt"
	rm -rf "$T/kept" "$T/listed"
}

say "ENOSPC: tmpfs"
mkdir "$T/tmpfs"
mount -t tmpfs -o size=40m none "$T/tmpfs"
filled "$T/tmpfs/store"
umount "$T/tmpfs"

# on FS: the same on a small image of that file system.
on() {
	local fs=$1
	need "mkfs.$fs"
	mkimage "$fs" "$([ "$fs" = ext4 ] && echo 48M || echo 400M)" "$T/$fs"
	[ "$fs" = ext4 ] || leave_room 70000000 "$T/$fs"
	filled "$T/$fs/store"
	umount "$T/$fs"
}
for fs in ext4 xfs btrfs; do
	say "ENOSPC: $fs"
	part on $fs
done
