#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# fallocate and the search for data and holes, with the kernel's writeback cache and without it; the same after a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

store=$T/store mnt=$T/mnt
for option in writeback nowriteback; do
	[ $option = writeback ] && options=() || options=(-o nowriteback)
	new_volume "$store"
	start "$store" "$mnt" "${options[@]}"
	$PYTHON "$HERE/space.py" "$mnt"
	rm -f "$mnt"/*sparse*
	cp -a --sparse=always "$mnt/." "$T/copy"
	restart "$store" "$mnt" "${options[@]}"
	$PYTHON "$HERE/compare_tree.py" "$T/copy" "$mnt"
	stop "$store" "$mnt"
	rm -rf "$store" "$T/copy"
done
