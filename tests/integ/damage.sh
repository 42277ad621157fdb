#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A store is damaged at random, and cmekfs must give for each block what the independent reader gives: its content, or
# EIO, and never anything else.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need_cmekfs
$PYTHON -c 'import cryptography' 2>/dev/null || skip "python3-cryptography is not installed"

kinds=(none flip_page flip_block zero_page zero_block swap_blocks swap_pages truncate extend)
rounds=1
[ "$LONG" = 0 ] || rounds=20

for ((round = 1; round <= rounds; round++)); do
	for block in 4096 16384; do
		dir=$SHM/damage-$round-$block
		mkdir -m 700 "$dir"
		say "B $block, round $round"
		$PYTHON "$HERE/damage.py" make "$dir" "$block" "$round" 80 "${kinds[@]}"
		export CMEKFS_LOCAL_KEYSTORE=$dir/keys.json
		start "$dir/store" "$T/mnt"
		$PYTHON "$HERE/damage.py" compare "$dir" "$T/mnt"
		stop "$dir/store" "$T/mnt"
		rm -rf "$dir"
	done
done
