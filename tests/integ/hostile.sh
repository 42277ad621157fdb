#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Somebody changes the store: what was changed is EIO or not there, never wrong data, and everything else is untouched.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
new_volume "$store"
start "$store" "$mnt"
$PYTHON "$HERE/hostile.py" prepare "$mnt" "$store" "$T/map"
restart "$store" "$mnt"
$PYTHON "$HERE/hostile.py" again "$mnt" "$store" "$T/map"
stop "$store" "$mnt"
cp -a "$store" "$SHM/good"
for case in $($PYTHON "$HERE/hostile.py" cases "$([ "$LONG" = 1 ] && echo all)"); do
	rm -rf "$store"
	cp -a "$SHM/good" "$store"
	$PYTHON "$HERE/hostile.py" damage "$case" "$store" "$T/map"
	start "$store" "$mnt"
	timeout 60 $PYTHON "$HERE/hostile.py" check "$case" "$mnt" "$T/mnt.mount.log" || fail "case $case"
	[ -n "$(storage_pid "$store")" ] || fail "case $case: the file system died"
	stop "$store" "$mnt"
done

say "somebody changes the store while it is in use"
rm -rf "$store"
cp -a "$SHM/good" "$store"
mkdir "$T/bait"
printf bait >"$T/bait/file"
start "$store" "$mnt"
$PYTHON "$HERE/hostile.py" live "$mnt" "$store" "$T/map" "$T/bait" "$([ "$LONG" = 1 ] && echo 300 || echo 3)" 1
[ -n "$(storage_pid "$store")" ] || fail "the file system died"
stop_code=any stop "$store" "$mnt" # it may say that something could not be written

say "another file system in the store, and the store in itself, are not entered"
rm -rf "$store"
cp -a "$SHM/good" "$store"
stored() { $PYTHON -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$T/map" "$1"; }
mount -t tmpfs none "$store/$(stored d)"
mount --bind "$store" "$store/$(stored e)"
start "$store" "$mnt"
for dir in d e; do
	expect_errno EXDEV stat "$mnt/$dir"
	expect_errno EXDEV listdir "$mnt/$dir"
	expect_errno EXDEV touch "$mnt/$dir/new"
	expect_errno EXDEV rmdir "$mnt/$dir"
	expect_errno EXDEV rename "$mnt/$dir" "$mnt/moved"
done
[ "$(timeout 60 find "$mnt" 2>"$T/found" | wc -l)" = 15 ] || fail "find: $(cat "$T/found")"
stop "$store" "$mnt"
umount "$store/$(stored e)" "$store/$(stored d)"

say "what was found is in the log, with where it was"
grep -Eq 'read: inode [0-9]+ \([^)]+\), byte [0-9]+: does not authenticate' "$T/mnt.mount.log" || fail "no block"
grep -Eq 'readlink: inode [0-9]+ \([^)]+\): does not authenticate' "$T/mnt.mount.log" || fail "no symlink"
grep -Eq 'readdir: inode [0-9]+ \(\.\): left out [0-9]+ entries' "$T/mnt.mount.log" || fail "no entry"
grep -Eq 'getxattr: inode [0-9]+ \([^)]+\): does not authenticate' "$T/mnt.mount.log" || fail "no attribute"

say "both copies of the header are another volume's"
rm -rf "$store"
cp -a "$SHM/good" "$store"
new_volume "$SHM/other"
cp "$SHM/other/.cmekfs"/header.[01] "$store/.cmekfs/"
expect_code 22 "$CMEKFS" "$store" "$mnt"
expect_text "the header is of volume .*, but the volume that this host knows there is"
cp "$SHM/good/.cmekfs"/header.[01] "$store/.cmekfs/"
start "$store" "$mnt"
stop "$store" "$mnt"
