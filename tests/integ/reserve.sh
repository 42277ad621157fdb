#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Room of the store is kept for what was taken already, and what will find none is refused at once.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

mnt=$T/mnt
said() { grep -q "$1" "$T/mnt.mount.log" || fail "not in the log: $1"; }

# fills STORE: with the kernel's cache, and without.
fills() {
	new_volume "$1" --journal-size 8M
	start "$1" "$mnt" -o commit=1
	$PYTHON "$HERE/reserve.py" cached "$mnt" "$1"
	restart "$1" "$mnt" -o nowriteback
	$PYTHON "$HERE/reserve.py" through "$mnt" "$1"
	stop "$1" "$mnt"
	"$FSCK" -n --data "$1" >"$T/out" || fail "fsck: $(cat "$T/out")"
}

say "tmpfs"
mkdir "$T/tmpfs"
mount -t tmpfs -o size=160m none "$T/tmpfs"
store=$T/tmpfs/store
fills "$store"

status() { "$CTL" status --json "$mnt" | jq -r ".mount.room$1"; }
setting() { cat "/sys/class/bdi/$(mountpoint -d "$mnt")/$1"; }

say "what is told of it"
start "$store" "$mnt"
[ "$(status .reserve_bytes) $(status .reserve_held_bytes) $(status .full)" = "2621440 2621440 false" ] || fail "$(status)"
"$CTL" status "$mnt" | grep FULL && fail "it is not full"
head -c 300000000 /dev/zero >"$mnt/file" 2>/dev/null && fail "300 MB had room"
[ "$(status .level) $(status .full)" = "full true" ] || fail "$(status)"
"$CTL" status "$mnt" | grep "THE STORE IS FULL" || fail "status does not say that it is full"
"$CTL" metrics "$mnt" | grep -x 'cmekfs_store_full{.*} 1' || fail "no metric says that it is full"
said "the store is full"
rm "$mnt/file"
has_room() { [ "$(df --output=avail "$mnt" | tail -n 1)" -gt 100000 ]; }
wait_for 5 has_room || fail "$(df "$mnt")"
said "the store has room again"

mount -o remount,size=24m "$T/tmpfs"
$PYTHON "$HERE/reserve.py" reads "$mnt" "$CTL"
mount -o remount,size=160m "$T/tmpfs"

say "few dirty pages are kept when there is little room"
if [ -w "/sys/class/bdi/$(mountpoint -d "$mnt")/strict_limit" ]; then
	[ "$(setting strict_limit) $(setting max_ratio)" = "1 1" ] || fail "$(setting strict_limit) $(setting max_ratio)"
	mount -o remount,size=300g "$T/tmpfs" # it is not used
	df "$mnt" >/dev/null
	many() { df "$mnt" >/dev/null && [ "$(setting strict_limit) $(setting max_ratio)" = "0 40" ]; }
	wait_for 10 many || fail "$(setting strict_limit) $(setting max_ratio), with plenty of room"
	mount -o remount,size=160m "$T/tmpfs"
fi

say "a crash on a full store: its journal is replayed into the reserve"
restart "$store" "$mnt" -o commit=3600
mkdir "$mnt/dir"
for n in 1 2 3 4 5 6 7 8; do
	head -c 100000 /dev/urandom >"$T/$n"
done
# Durable in the journal alone, and their room is taken by somebody else.
for n in 1 2 3 4 5 6 7 8; do
	cp "$T/$n" "$mnt/dir/$n"
	sync "$mnt/dir/$n"
done
sync "$mnt/dir"
mapfile -t pids < <(fs_pids "$store")
kill -9 "${pids[@]}"
umount -l "$mnt"
wait_for 60 ended "$store" || fail "a killed daemon is still there"
head -c 1G /dev/zero >"$T/tmpfs/taken" 2>/dev/null && fail "1 GB had room"
# The records are of blocks that the store has freed since: room for them has to be found once more.
for n in 1 2 3 4 5 6 7 8; do
	stored=$(find "$store" -type f -size +90k -size -140k | sed -n "${n}p")
	[ -z "$stored" ] || fallocate -p -l 1M "$stored"
done
head -c 1G /dev/zero >>"$T/tmpfs/taken" 2>/dev/null && fail "1 GB had room"
start "$store" "$mnt"
[ "$(stat -c %s "$store/.cmekfs/reserve")" = 0 ] || fail "it was replayed without the reserve: nothing is tested"
for n in 1 2 3 4 5 6 7 8; do
	cmp "$T/$n" "$mnt/dir/$n"
done
expect_errno OK chmod "$mnt/dir" 700
rm "$T/tmpfs/taken"

say "reserve=0: nothing is kept, and the error comes with the sync"
restart "$store" "$mnt" -o reserve=0
[ ! -e "$store/.cmekfs/reserve" ] || fail "there is a reserve"
[ "$(status '')" = null ] || fail "$(status '')"
[ "$(setting strict_limit 2>/dev/null || echo 0)" = 0 ] || fail "few dirty pages"
expect_errno ENOSPC write "$mnt/file" 300000000
rm "$mnt/file"
restart "$store" "$mnt" -o reserve=20M
[ "$(stat -c %s "$store/.cmekfs/reserve")" = 20971520 ] || fail "not the size that was asked for"
stop "$store" "$mnt"
start "$store" "$mnt" -o ro
[ "$(status '')" = null ] || fail "$(status '')"
stop "$store" "$mnt"
for bad in 1 1k -1 x 2T; do
	expect_code 2 "$CMEKFS" "$store" "$mnt" -o "reserve=$bad"
done

say "another file of that name is left alone"
echo precious >"$T/tmpfs/precious"
rm "$store/.cmekfs/reserve"
ln "$T/tmpfs/precious" "$store/.cmekfs/reserve"
start "$store" "$mnt"
head -c 300000000 /dev/zero >"$mnt/file" 2>/dev/null && fail "300 MB had room"
rm "$mnt/file"
stop "$store" "$mnt"
[ "$(cat "$T/tmpfs/precious")" = precious ] || fail "it was used as the reserve"
rm "$store/.cmekfs/reserve"
mkdir "$store/.cmekfs/reserve"
start "$store" "$mnt"
expect_errno OK write "$mnt/file" 1000
said "no room of the store is kept"
stop "$store" "$mnt"
umount "$T/tmpfs"

# on FS: the same on an image of that file system.
on() {
	need "mkfs.$1"
	mkimage "$1" 400M "$T/$1"
	leave_room 120000000 "$T/$1"
	fills "$T/$1/store"
	umount "$T/$1"
}
for fs in ext4 xfs btrfs; do
	say "$fs"
	part on $fs
done
