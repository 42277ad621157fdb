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
