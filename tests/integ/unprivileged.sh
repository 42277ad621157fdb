#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A user without privileges makes a volume and mounts it with fusermount3; more files than descriptors.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root # to become that user
need_fuse
need fusermount3 runuser
[ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid root"
if ! runuser -u nobody -- test -w /dev/fuse; then
	# A machine without udev's rules: in a mount namespace of our own it is as everywhere else.
	own_mounts
	mknod -m 666 "$T/fuse" c 10 229
	mount --bind "$T/fuse" /dev/fuse
	runuser -u nobody -- test -w /dev/fuse || skip "/dev/fuse is root's"
fi

store=$SHM/user/store mnt=$T/user/mnt
install -d -o nobody -m 755 "$SHM/user" "$T/user" "$T/user/home" "$mnt"
install -d -o nobody -m 700 "$T/user/keys"

# as COMMAND...: as that user, with few descriptors.
as() {
	runuser -u nobody -- env HOME="$T/user/home" CMEKFS_LOCAL_KEYSTORE="$T/user/keys/keys.json" \
		CMEKFS_VOLUMES="$T/user/keys/volumes.json" CMEKFS_AUDIT_LOG="$T/user/keys/audit.log" \
		CMEKFS_RUNTIME_DIR="$T/user/home/run" bash -c 'ulimit -n 256 && exec "$@"' as "$@"
}

as true 2>/dev/null || skip "can't become nobody"
as "$CTL" --version >/dev/null 2>&1 || skip "nobody can't run the programs of this build"
as "$CTL" key create local:mine
as mkdir "$store"
as "$MKFS" --key local:mine "$store" >/dev/null
mount_it() { as "$CMEKFS" "$store" "$mnt" >>"$T/mnt.mount.log" 2>&1 || fail "$(tail -n 3 "$T/mnt.mount.log")"; }
unmount_it() {
	as fusermount3 -u "$mnt"
	wait_for 60 ended "$store" || fail "the file system did not end"
}
mount_it
# shellcheck disable=SC2016 # for the inner shell
as bash -c 'cd "$1" && for i in $(seq 3000); do echo "$i" >"file-$i"; done; mkdir d; ln file-1 d/link; ln -s ../file-2 d/symlink' - "$mnt"
[ "$(as find "$mnt" -type f | wc -l)" = 3001 ] || fail "not all files are listed"
[ "$(stat -c %U "$store")" = nobody ] || fail "the store belongs to somebody else"

say "nobody else sees it, root included, nor does anybody look into its processes"
as chmod 777 "$mnt" "$mnt/d"
expect_errno EACCES listdir "$mnt"
expect_errno EACCES stat "$mnt/file-1"
expect_code 1 runuser -u daemon -- cat "$mnt/file-1"
expect_text "permission denied"
for pid in $(fs_pids "$store"); do
	expect_code 1 as cat "/proc/$pid/mem"
	expect_text "permission denied"
	expect_code 1 as cat "/proc/$pid/environ"
done
unmount_it
mount_it
# shellcheck disable=SC2016
as bash -c 'cd "$1" && for i in $(seq 3000); do [ "$(<"file-$i")" = "$i" ] || exit 1; done; [ d/link -ef file-1 ] && [ "$(cat d/symlink)" = 2 ]' - "$mnt" ||
	fail "not the same after a remount"

say "what its owner may only read by now is replayed after a kill, too"
# shellcheck disable=SC2016
as bash -c 'cd "$1" && for i in 1 2 3; do
	head -c 9000 /dev/urandom >"object-$i" && sync "object-$i" && chmod 444 "object-$i" || exit 1
done; mv object-3 d/moved && chmod 555 d; md5sum object-1 object-2 d/moved' - "$mnt" >"$T/want"
mapfile -t pids < <(fs_pids "$store")
kill -9 "${pids[@]}"
umount -l "$mnt"
wait_for 60 ended "$store" || fail "a killed daemon is still there"
mount_it
# shellcheck disable=SC2016
as bash -c 'cd "$1" && md5sum object-1 object-2 d/moved && chmod 755 d' - "$mnt" | diff "$T/want" - || fail "not the same after a replay"
[ "$(as stat -c %a "$mnt/object-1" "$mnt/d/moved" | tr '\n' ' ')" = "444 444 " ] || fail "modes were changed"

as rm -r "$mnt/d"
as "$PYTHON" "$HERE/random_ops.py" "$mnt" "$T/user/home/model" 1 300 4096
unmount_it
