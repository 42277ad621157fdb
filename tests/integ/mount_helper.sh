#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# mount -t cmekfs through the helper mount.cmekfs: options, remounts, wrong ones, what the mount table says; by fstab, and by what
# is in contrib/systemd.
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
# What takes them away counts, wherever it stands: mount(8) puts it in front.
mount -t cmekfs -o allow_dev,allow_suid,nosuid "$store" "$mnt"
options nosuid
if findmnt -n -o OPTIONS "$mnt" | grep -q nodev; then fail "-o allow_dev: it is nodev"; fi
leave
# mount -f: all is checked, nothing is mounted.
mount -f -t cmekfs "$store" "$mnt"
if findmnt -n "$mnt" >/dev/null; then fail "mount -f has mounted"; fi
expect_code 3 mount -t cmekfs "$T/nowhere" "$mnt"
expect_code 3 mount -t cmekfs "$store" "$T/nowhere"
expect_code 2 mount -t cmekfs "$store" "$store"

say "by fstab, as the examples are"
UNITS=$HERE/../../contrib/systemd
SOME=64 NONE=32 # of mount -a
mkdir "$T/data"
for name in store2 store3; do new_volume "$SHM/$name"; done
sed "s,/srv/store,$SHM/store,; s,/srv/,$T/data/," "$UNITS/fstab.example" >"$T/fstab"
mkdir "$T/data/data" "$T/data/data2" "$T/data/archive"
[ "$(grep -c '^/' "$T/fstab")" -eq 3 ] || fail "this test wants three examples"
if findmnt --verify --tab-file "$T/fstab" 2>&1 | grep -iE '[1-9][0-9]* (parse )?errors?|\[E\]'; then fail "no good fstab"; fi
generator=/usr/lib/systemd/system-generators/systemd-fstab-generator
if [ -x "$generator" ]; then
	mkdir "$T/units"
	SYSTEMD_FSTAB=$T/fstab "$generator" "$T/units" "$T/units" "$T/units"
	[ "$(find "$T/units" -name '*.mount' -type f | wc -l)" -eq 3 ] || fail "not three units: $(ls "$T/units")"
	[ "$(find "$T/units" -name '*.automount' -type f | wc -l)" -eq 1 ] || fail "not one automount: $(ls "$T/units")"
	[ "$(cat "$T"/units/*.mount | grep -c '^Type=cmekfs$')" -eq 3 ] || fail "another type: $(cat "$T"/units/*.mount)"
fi
mount -T "$T/fstab" "$T/data/archive"
mnt=$T/data/archive options '^fuse.cmekfs ' 'ro,' 'nosuid' 'noexec' 'noatime'
expect_code 0 "$CTL" watch "$T/data/archive"
expect_text "grace +1m" # an option of ours
mount -T "$T/fstab" -a
findmnt "$T/data/data" >/dev/null || fail "mount -a has not mounted it"
if findmnt "$T/data/data2" >/dev/null; then fail "mount -a has mounted what is noauto"; fi
mount -T "$T/fstab" -a # again is fine
mount -T "$T/fstab" "$SHM/store2" # by its store
echo content >"$T/data/data2/file"
for name in data data2 archive; do umount "$T/data/$name"; done
for name in store store2 store3; do wait_for 30 ended "$SHM/$name" || fail "the mount of $name does not end"; done
"$CTL" key disable local:test
expect_code 12 mount -T "$T/fstab" "$T/data/data"
expect_text "the key local:test is disabled"
expect_code $NONE mount -T "$T/fstab" -a
expect_text "the key local:test is disabled"
"$CTL" key enable local:test
sed -i 's/noauto,x-systemd.automount,//' "$T/fstab"
mv "$SHM/store2" "$SHM/away"
expect_code $SOME mount -T "$T/fstab" -a
expect_text "$SHM/store2: no such directory"
mv "$SHM/away" "$SHM/store2"
umount "$T/data/data"
wait_for 30 ended "$SHM/store" || fail "the mount does not end"

say "a passphrase as a credential, by the drop-in"
mkdir "$T/credentials"
(umask 077 && echo "a passphrase" >"$T/credentials/passphrase")
export CMEKFS_LOCAL_KEYSTORE=$T/credentials/keys.json
"$CTL" key create --passphrase --passphrase-file "$T/credentials/passphrase" local:test >/dev/null
mkdir "$SHM/store4"
"$MKFS" --key local:test --passphrase-file "$T/credentials/passphrase" "$SHM/store4" >/dev/null
given=$(sed -n 's/^Environment=OPTIONS=//p' "$UNITS/passphrase.conf")
expect_code 10 "$CMEKFS" "$SHM/store4" "$T/data/data"
"$CMEKFS" -o "${given//%d/$T/credentials}" "$SHM/store4" "$T/data/data"
findmnt "$T/data/data" >/dev/null
umount "$T/data/data"
wait_for 30 ended "$SHM/store4" || fail "the mount does not end"
