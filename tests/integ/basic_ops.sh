#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Each file operation does what it does on ext4, failures with the exact errno; what it left is the same after a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
for block in 4096 16384; do
	if [ "$CMEK_FS" = cmekfs ]; then
		new_volume "$store" -b $block
	else
		new_volume "$store"
	fi
	start "$store" "$mnt"
	# With another block size only what depends on it.
	what=()
	[ $block = 4096 ] || what=(Data Unlink.test_open_file Open.test_trunc Open.test_direct)
	$PYTHON "$HERE/basic_ops.py" "$mnt" "$block" "${what[@]}"
	cp -a "$mnt/." "$T/copy"
	restart "$store" "$mnt"
	$PYTHON "$HERE/compare_tree.py" "$T/copy" "$mnt"
	stop "$store" "$mnt"
	rm -rf "$store" "$T/copy"
done
