#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Random reads, writes, truncations and mappings of a few files against a model in memory, with remounts. CMEK_SEED
# repeats a run; the long one looks elsewhere each time.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
seed=${CMEK_SEED:-$([ "$LONG" = 1 ] && echo $RANDOM$RANDOM || echo 1)}
rounds=$([ "$LONG" = 1 ] && echo 40 || echo 4)
ops=$([ "$LONG" = 1 ] && echo 20000 || echo 1500)
say "CMEK_SEED=$seed"
for block in 4096 65536; do
	if [ "$CMEK_FS" = cmekfs ]; then
		new_volume "$store" -b $block
	else
		new_volume "$store"
	fi
	start "$store" "$mnt"
	for round in $(seq "$rounds"); do
		$PYTHON "$HERE/random_ops.py" "$mnt" "$T/model-$block" "$seed-$block-$round" "$ops" "$block"
		restart "$store" "$mnt"
	done
	$PYTHON "$HERE/random_ops.py" "$mnt" "$T/model-$block" "$seed-$block-end" 0 "$block"
	stop "$store" "$mnt"
	rm -rf "$store"
done
