#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A real tree and an odd one are copied in, and are the same byte for byte after a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
sources=(/usr/share/doc /usr/include /usr/lib/python3)
[ "$LONG" = 0 ] || sources=(/usr/share /usr/include /usr/lib/python3 /usr/lib/python3.11)

new_volume "$store"
start "$store" "$mnt"

say "the odd tree"
$PYTHON "$HERE/odd_tree.py" "$T/odd"
cp -a "$T/odd" "$mnt/odd"
mkdir "$mnt/tar"
tar -C "$T/odd" --format=posix -cf - --exclude=./special/socket . | tar -C "$mnt/tar" --same-owner --warning=no-timestamp -xpf -
if command -v rsync >/dev/null; then
	rsync -aHD --numeric-ids "$T/odd/" "$mnt/rsync/"
fi
# Made on the mount instead of copied there.
$PYTHON "$HERE/odd_tree.py" "$mnt/made"

say "the real tree"
mkdir "$mnt/real"
for dir in "${sources[@]}"; do
	[ -d "$dir" ] || continue
	mkdir -p "$mnt/real$(dirname "$dir")"
	cp -a "$dir" "$mnt/real$dir"
	$PYTHON "$HERE/compare_tree.py" --no-content "$dir" "$mnt/real$dir"
done

restart "$store" "$mnt"
say "compared after a remount"
$PYTHON "$HERE/compare_tree.py" "$T/odd" "$mnt/odd"
if [ -d "$mnt/rsync" ]; then
	# For rsync times that differ in nanoseconds only are equal.
	$PYTHON "$HERE/compare_tree.py" --seconds "$T/odd" "$mnt/rsync"
fi
rm "$T/odd/special/socket"
touch -r "$mnt/tar/special" "$T/odd/special"
$PYTHON "$HERE/compare_tree.py" "$T/odd" "$mnt/tar"
for dir in "${sources[@]}"; do
	[ -d "$dir" ] || continue
	$PYTHON "$HERE/compare_tree.py" "$dir" "$mnt/real$dir"
done

say "removed again"
rm -rf "$mnt/odd" "$mnt/tar" "$mnt/rsync" "$mnt/made" "$mnt/real/usr/include"
[ "$(ls -A "$mnt")" = real ] || fail "something is left: $(ls -A "$mnt")"
restart "$store" "$mnt"
$PYTHON "$HERE/compare_tree.py" /usr/lib/python3 "$mnt/real/usr/lib/python3"
rm -rf "$mnt/real"
stop "$store" "$mnt"
if [ "$CMEK_FS" = cmekfs ]; then
	left=$(find "$store" -mindepth 1 -not -path "$store/.cmekfs*")
	[ -z "$left" ] || fail "the volume is empty and the store has: $left"
fi
