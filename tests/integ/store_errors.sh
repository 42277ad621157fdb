#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the store says reaches the caller: a quota, a store that is read-only, a store that fails.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

mnt=$T/mnt

say "EDQUOT: a quota group of btrfs"
quota() {
	need btrfs
	mkimage btrfs 400M "$T/quota"
	btrfs subvolume create "$T/quota/limited" >/dev/null
	btrfs quota enable "$T/quota"
	btrfs qgroup limit 40M "$T/quota/limited"
	store=$T/quota/limited/store
	new_volume "$store"
	start "$store" "$mnt"
	$PYTHON "$HERE/fill.py" fill "$mnt" "$T/listed" EDQUOT
	$PYTHON "$HERE/fill.py" check "$mnt" "$T/listed"
	btrfs qgroup limit none "$T/quota/limited"
	expect_errno OK write "$mnt/after" 1000000
	restart "$store" "$mnt"
	$PYTHON "$HERE/fill.py" check "$mnt" "$T/listed"
	stop "$store" "$mnt"
	umount "$T/quota"
}
part quota

say "a store that is read-only"
mkimage ext4 64M "$T/ro"
store=$T/ro/store
new_volume "$store"
start "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
mount -o remount,ro "$T/ro"
if [ "$CMEK_FS" = cmekfs ]; then
	expect_code 1 "$CMEKFS" "$store" "$mnt"
	expect_text "read-only"
	start "$store" "$mnt" -o ro
	[ "$(cat "$mnt/file")" = content ] || fail "not readable from a read-only store"
	expect_errno EROFS write "$mnt/file" 10
	stop "$store" "$mnt"
fi
mount -o remount,rw "$T/ro"

if [ "$CMEK_FS" = cmekfs ]; then
	say "a journal that fails, by a limit of file sizes: the mount goes on, read-only, and says so"
	start "$store" "$mnt"
	head -c 300000 /dev/urandom >"$T/some"
	cp "$T/some" "$mnt/some"
	sync "$mnt/some"
	$PYTHON - "$(storage_pid "$store")" "$mnt/some" <<-'END'
		import errno, os, resource, sys
		pid = int(sys.argv[1])
		hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
		resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
		fd = os.open(sys.argv[2], os.O_RDWR)
		data = os.read(fd, 300_000)
		for turn in range(10):
		    try:
		        os.pwrite(fd, data, 0)
		        os.fsync(fd)
		    except OSError as e:
		        if e.errno not in (errno.EFBIG, errno.EIO, errno.EROFS):
		            raise
		        sys.exit()
		sys.exit("the journal does not fail")
	END
	cmp "$T/some" "$mnt/some" || fail "not readable when the journal has failed"
	expect_errno EROFS mkdir "$mnt/dir"
	expect_code 0 "$CTL" status "$mnt"
	expect_text "^read-only: .*mount it anew"
	stop_code=any stop "$store" "$mnt"
	start "$store" "$mnt"
	cmp "$T/some" "$mnt/some" || fail "lost with the journal that failed"
	expect_errno OK mkdir "$mnt/dir"
	stop "$store" "$mnt"
fi

say "a store that fails: EIO at fsync, reads of what is cached go on, no hang"
start "$store" "$mnt"
head -c 300000 /dev/urandom >"$mnt/kept"
sync "$mnt/kept"
cp "$mnt/kept" "$T/kept"
$PYTHON - "$mnt/written" "$T/ro" <<-'END'
	import errno, fcntl, os, struct, sys
	fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
	os.write(fd, b"x" * 100_000)
	os.fsync(fd)
	# EXT4_IOC_SHUTDOWN without flushing its log: from now on everything fails. (xfs_io would visit all mounts of the
	# machine first.)
	store = os.open(sys.argv[2], os.O_RDONLY)
	fcntl.ioctl(store, 0x8004587D, struct.pack("I", 2))
	os.close(store)
	os.lseek(fd, 0, os.SEEK_SET)
	failed = []
	for attempt in range(3):
	    try:
	        os.write(fd, b"y" * 100_000)
	        os.fsync(fd)
	    except OSError as e:
	        failed.append(errno.errorcode[e.errno])
	        continue
	    sys.exit(f"fsync number {attempt} succeeded on a store that has failed")
	if not set(failed) <= {"EIO", "EROFS"}:
	    sys.exit(f"told: {failed}")
END
umount "$mnt" || umount -l "$mnt"
wait_for 30 ended "$store" || fail "the file system hangs on a store that has failed"
umount "$T/ro"
mount -o loop "$SHM/ro.img" "$T/ro"
start "$store" "$mnt"
cmp "$T/kept" "$mnt/kept" || fail "what was synced before the failure is lost"
[ "$(head -c 5 "$mnt/written" | tr -d xy)" = "" ] || fail "neither old nor new"
stop "$store" "$mnt"
umount "$T/ro"
