#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Random operations of all kinds on a mount and on a plain directory of its store's file system: same results, same errno,
# and after each remount the same tree. CMEK_SEED repeats a run, CMEK_OPERATIONS and CMEK_STORE_FS change it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

seed=${CMEK_SEED:-$([ "$LONG" = 1 ] && echo $RANDOM$RANDOM || echo 1)}
total=${CMEK_OPERATIONS:-$([ "$LONG" = 1 ] && echo 1000000 || echo 12000)}
rounds=$([ "$LONG" = 1 ] && echo 50 || echo 4)
fs=${CMEK_STORE_FS:-ext4}
options=(commit=5 nojournal nowriteback "commit=1,held_max=1M,map_cache=1M,max_threads=2,fd_cache=64,key_cache=64" "nojournal,nowriteback,max_threads=1")
store=$T/disk/store plain=$T/disk/plain mnt=$T/mnt

say "CMEK_SEED=$seed, $total operations on $fs"
mkimage "$fs" 1G "$T/disk" noatime
mkdir "$plain"
new_volume "$store"
for round in $(seq "$rounds"); do
	option=${options[$(((round + seed) % ${#options[@]}))]}
	say "round $round, $option"
	if [ "$CMEK_FS" = cmekfs ]; then
		start "$store" "$mnt" -o "suid,dev,$option"
	else
		start "$store" "$mnt"
	fi
	if [ "$round" -gt 1 ]; then
		$PYTHON "$HERE/compare.py" tree "$mnt" "$plain"
	fi
	case $option in *nowriteback*) export CMEK_NOWRITEBACK=1 ;; *) unset CMEK_NOWRITEBACK ;; esac
	$PYTHON "$HERE/compare.py" ops "$mnt" "$plain" "$seed-$round" $((total / rounds))
	$PYTHON "$HERE/compare.py" tree "$mnt" "$plain"
	stop "$store" "$mnt"
done
start "$store" "$mnt"
$PYTHON "$HERE/compare.py" tree "$mnt" "$plain"
stop "$store" "$mnt"
umount "$T/disk"
