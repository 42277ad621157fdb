#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Stores on ext4, XFS and btrfs, which differ in the length of symlinks, in link counts and in what fsync carries: the
# odd tree and the file operations, before and after a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

mnt=$T/mnt
$PYTHON "$HERE/odd_tree.py" "$SHM/odd"

on() {
	local fs=$1 store=$T/$1/store
	need "mkfs.$fs"
	mkimage "$fs" 500M "$T/$fs"
	new_volume "$store"
	start "$store" "$mnt"
	cp -a "$SHM/odd" "$mnt/odd"
	what=(Links Rename Unlink Directories Attributes Special Data.test_sparse Data.test_mmap Open.test_append)
	[ "$LONG" = 0 ] || what=()
	$PYTHON "$HERE/basic_ops.py" "$mnt" 4096 "${what[@]}"
	restart "$store" "$mnt"
	$PYTHON "$HERE/compare_tree.py" "$SHM/odd" "$mnt/odd"
	rm -r "${mnt:?}"/*
	[ -z "$(ls -A "$mnt")" ] || fail "something is left"
	stop "$store" "$mnt"
	if [ "$CMEK_FS" = cmekfs ]; then
		[ -z "$(find "$store" -mindepth 1 -not -path "$store/.cmekfs*")" ] || fail "something is left in the store"
		[ -z "$(ls -A "$store/.cmekfs/links")" ] || fail "continuations of links are left: $(ls "$store/.cmekfs/links")"
	fi
	umount "$T/$fs"
}
for fs in ext4 xfs btrfs; do
	say "$fs"
	part on $fs
done
