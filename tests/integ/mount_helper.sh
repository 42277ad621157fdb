#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# mount -t cmekfs through the helper mount.cmekfs: options, remounts read-only, wrong ones, what the mount table says.
# It runs in a mount namespace of its own, where the helper is in mount(8)'s path.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
own_mounts

mkdir "$T/helper"
ln -s "$(command -v "$CMEKFS")" "$T/helper/mount.cmekfs"
mount -t overlay -o "lowerdir=$T/helper:/usr/sbin" none /usr/sbin || skip "no overlay file system"
[ /sbin -ef /usr/sbin ] || mount -t overlay -o "lowerdir=$T/helper:/sbin" none /sbin

store=$SHM/store mnt="$T/a mount" # a blank is no reason to fail
new_volume "$store"
mkdir "$mnt"

# options REGEX...: each is among the options of the mount.
options() {
	local regex got
	got=$(findmnt -n -o FSTYPE,SOURCE,OPTIONS "$mnt")
	for regex; do
		grep -Eq -- "$regex" <<<"$got" || fail "not in the mount table: $regex; there is: $got"
	done
}
leave() {
	umount "$mnt"
	wait_for 30 ended "$store" || fail "the mount does not end"
}

mount -t cmekfs "$store" "$mnt"
options '^fuse.cmekfs ' "$store" 'rw' 'allow_other' 'default_permissions'
echo content >"$mnt/file"
leave

mount -t cmekfs -o ro,nosuid,nodev,noexec,noatime,nofail,_netdev,x-systemd.requires=network.target "$store" "$mnt"
options 'ro,' 'nosuid' 'nodev' 'noexec' 'noatime'
[ "$(cat "$mnt/file")" = content ] || fail "the file is not there"
expect_errno EROFS touch "$mnt/other"
leave

for bad in nonsense slot=99 slot=x commit=-1 key held_max=1; do
	expect_code 2 mount -t cmekfs -o "$bad" "$store" "$mnt"
	expect_text "${bad%%=*}"
done
for good in nowriteback commit=1 max_threads=2 held_max=4M,map_cache=4M slot=0 fsname=ledger; do
	mount -t cmekfs -o "$good" "$store" "$mnt"
	[ "$(cat "$mnt/file")" = content ] || fail "-o $good: the file is not there"
	echo more >"$mnt/more"
	[ "$(cat "$mnt/more")" = more ] || fail "-o $good: what was written is not there"
	case $good in fsname=*) options '^fuse.cmekfs ledger ' ;; esac
	leave
done
# A remount is refused, and changes nothing.
mount -t cmekfs -o rw "$store" "$mnt"
expect_code 2 mount -t cmekfs -o remount,ro "$store" "$mnt"
expect_text "remount: unmount it, and mount it with the new options"
echo more >"$mnt/more"
leave
# Device nodes, when they are asked for.
mount -t cmekfs "$store" "$mnt"
options nosuid nodev
leave
mount -t cmekfs -o allow_dev,allow_suid "$store" "$mnt"
if findmnt -n -o OPTIONS "$mnt" | grep -q nosuid; then fail "-o allow_suid: it is nosuid"; fi
mknod "$mnt/null" c 1 3
echo gone >"$mnt/null"
rm "$mnt/null"
leave
# mount -f: all is checked, nothing is mounted.
mount -f -t cmekfs "$store" "$mnt"
if findmnt -n "$mnt" >/dev/null; then fail "mount -f has mounted"; fi
expect_code 3 mount -t cmekfs "$T/nowhere" "$mnt"
expect_code 3 mount -t cmekfs "$store" "$T/nowhere"
expect_code 2 mount -t cmekfs "$store" "$store"
