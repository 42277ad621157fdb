#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Extended attributes, ACLs, umask, setgid and sticky directories are as on the store's own file system; the same after a
# remount, and nothing of an attribute is in the store in clear.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

compare() {
	local fs=$1 base store mnt plain
	if [ "$fs" = disk ]; then
		base=$T/disk
		mkdir "$base"
	else
		base=$T/$fs
		mkimage "$fs" 500M "$base"
	fi
	store=$base/store plain=$base/plain mnt=$T/mnt-$fs
	mkdir "$plain"
	new_volume "$store"
	start "$store" "$mnt"
	chmod 755 "$plain" "$mnt"
	say "$fs"
	$PYTHON "$HERE/xattrs.py" "$plain" "$mnt"
	(cd "$mnt" && getfattr -R -h -d -m - . && getfacl -R .) >"$T/want"
	if [ "$CMEK_FS" = cmekfs ]; then
		setfattr -n user.colour -v chartreuse "$mnt/moved"
		getfattr -R -h -d -m - "$store" | grep -E 'chartreuse|colour|user\.n7' && fail "an attribute is in the store in clear"
		setfattr -x user.colour "$mnt/moved"
	fi
	restart "$store" "$mnt"
	(cd "$mnt" && getfattr -R -h -d -m - . && getfacl -R .) | diff "$T/want" - || fail "not the same after a remount"
	stop "$store" "$mnt"
	[ "$fs" = disk ] || umount "$base"
}

need getfattr getfacl
compare disk
for fs in xfs btrfs; do
	part compare $fs
done
