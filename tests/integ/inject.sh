#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every system call on the store fails once, one after the other: nothing that was synced is lost, nothing unreadable.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

library=${CMEK_BUILD:-}/tests/inject/faults.so
[ -e "$library" ] || skip "no faults.so in CMEK_BUILD"
! ldd "$library" | grep -qE 'lib[at]san' || skip "a sanitizer and a preloaded library get in each other's way"
need nm setpriv
# Whatever reaches a file system by a descriptor (paths are for files elsewhere), if the program calls it, can be made
# to fail.
calls="copy_file_range fallocate fchmod fchmodat fchown fchownat fdatasync fgetxattr flistxattr fremovexattr fsetxattr fstat
	fstatat fstatfs fstatvfs fsync ftruncate futimens futimes getdents64 getxattr linkat listxattr lseek mkdirat mkfifoat
	mknodat name_to_handle_at open openat openat2 open_by_handle_at pread preadv preadv2 pwrite pwritev pwritev2 readdir
	readdir64 readlinkat removexattr renameat renameat2 sendfile setxattr splice statx symlinkat sync_file_range syncfs
	unlinkat utimensat write"
symbols() { nm -D "$1" "$2" | awk '{ sub(/@.*/, "", $NF); print $NF }'; }
left_out=$(symbols --undefined-only "$CMEKFS" | grep -xF "$(tr -s ' \t' '\n' <<<"$calls")" |
	grep -vxF "$(symbols --defined-only "$library")" || true)
[ -z "$left_out" ] || fail "tests/inject/faults.c knows nothing of: $left_out"

seed=${CMEK_SEED:-$([ "$LONG" = 1 ] && echo $RANDOM || echo 1)}
say "CMEK_SEED=$seed"

mkdir "$T/disk"
mount -t tmpfs -o size=200m none "$T/disk"
store=$T/disk/good mnt=$T/mnt
new_volume "$store"
start "$store" "$mnt" -o journal_size=8M
$PYTHON "$HERE/inject.py" prepare "$mnt"
stop "$store" "$mnt"
$PYTHON "$HERE/inject.py" --seed "$seed" --every "$([ "$LONG" = 1 ] && echo 1 || echo 150)" \
	"$library" "$store" "$T/disk" "$T"
umount "$T/disk"
