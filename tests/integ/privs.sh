#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What takes suid, sgid and capabilities from a file takes them here: by every kind of change, by its owner, a member of
# its group, somebody else and root, with the kernel's writeback cache and without it. The same after a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

store=$T/store mnt=$T/mnt
need getcap
attributes() { (cd "$1" && find . -type f -exec getcap {} + | sort && find . -type f -printf '%P %m\n' | sort); }
for option in writeback nowriteback; do
	[ $option = writeback ] && options=() || options=(-o nowriteback)
	new_volume "$store"
	mkdir "$T/plain"
	start "$store" "$mnt" "${options[@]}"
	chmod 755 "$T/plain" "$mnt"
	$PYTHON "$HERE/privs.py" "$T/plain" "$mnt" $option
	$PYTHON -c 'import os, sys; os.umask(0); os.open(sys.argv[1], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o6755)' "$mnt/made"
	attributes "$mnt" >"$T/want"
	restart "$store" "$mnt" "${options[@]}"
	attributes "$mnt" | diff "$T/want" - || fail "not the same after a remount"
	[ "$(stat -c %a "$mnt/made")" = 6755 ] || fail "a file that was made with O_TRUNC lost its suid bit"
	stop "$store" "$mnt"
	rm -rf "$store" "$T/plain"
done
