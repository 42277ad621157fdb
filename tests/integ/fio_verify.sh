#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# fio writes blocks with checksums in random order, several jobs in one file, buffered and with O_DIRECT; after a
# remount it reads and verifies them. Volumes of three block sizes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need fio

size=$([ "$LONG" = 1 ] && echo 512M || echo 12M)
jobs=3

# run MOUNT BLOCK DIRECT WHAT...
run() {
	local mnt=$1 bs=$2 direct=$3
	shift 3
	fio --name=v --filename="$mnt/file-$bs-$direct" --rw=randwrite --bs="$bs" --size="$size" --numjobs=$jobs \
		--offset_increment="$size" --direct="$direct" --ioengine=psync --thread --randseed=42 --verify=crc32c \
		--verify_fatal=1 --verify_state_save=0 --fallocate=none --group_reporting --output="$T/fio.out" "$@" ||
		fail "fio: $(tail -n 20 "$T/fio.out")"
}

for block in 4096 16384 65536; do
	store=$SHM/store-$block mnt=$T/mnt-$block
	if [ "$CMEK_FS" = cmekfs ]; then
		new_volume "$store" -b $block
	else
		new_volume "$store"
	fi
	start "$store" "$mnt"
	for bs in 4k 16k; do
		for direct in 0 1; do
			run "$mnt" $bs $direct --do_verify=0 --end_fsync=1
		done
	done
	# Pieces that don't fit into blocks.
	run "$mnt" 1536 0 --do_verify=1 --end_fsync=1 --size=1536k --offset_increment=1536k
	restart "$store" "$mnt"
	run "$mnt" 4k 0 --verify_only
	run "$mnt" 4k 1 --verify_only
	run "$mnt" 16k 0 --verify_only
	run "$mnt" 16k 1 --verify_only
	run "$mnt" 1536 0 --verify_only --size=1536k --offset_increment=1536k
	say "volume with blocks of $block bytes: verified"
	stop "$store" "$mnt"
	rm -rf "$store"
done
