#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# fsck.cmekfs on volumes that mounts made: one that is in use, one whose mount was killed, one with a tree of everything.
# What it makes of broken ones is in tests/images.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

new_volume "$store"
start "$store" "$mnt"
$PYTHON "$HERE/odd_tree.py" "$mnt/tree" || fail "can't make the tree"
head -c 3000000 /dev/urandom >"$mnt/big"
truncate -s 100M "$mnt/sparse"
echo end >>"$mnt/sparse"
ln "$mnt/big" "$mnt/again"

say "a mounted volume is left alone"
expect_code 8 "$FSCK" -n "$store"
expect_text 'in use'
expect_code 16 "$FSCK" -n -y "$store"

say "a tree of everything is clean"
stop "$store" "$mnt"
expect_code 0 "$FSCK" --data "$store"
expect_text '^clean$'
expect_code 0 "$FSCK" -y --data "$store"
expect_code 0 "$FSCK" --no-key "$store"

say "a killed mount leaves a journal: told by -n, replayed by -p"
start "$store" "$mnt"
for i in $(seq 50); do
	echo "line $i" >>"$mnt/log"
	sync "$mnt/log"
done
kill -KILL "$(storage_pid "$store")"
wait_for 60 ended "$store" || fail "the mount did not end"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
expect_code 4 "$FSCK" -n --data "$store"
expect_text 'its journal has to be replayed' 'Contents were not checked'
expect_code 1 "$FSCK" -p --data "$store"
expect_text 'replayed$'
expect_code 0 "$FSCK" -n --data "$store"
start "$store" "$mnt"
[ "$(wc -l <"$mnt/log")" -eq 50 ] || fail "lines were lost"
stop "$store" "$mnt"

say "the right key, or what needs none"
"$CTL" -q key disable local:test
expect_code 8 "$FSCK" "$store"
expect_text 'is disabled'
expect_code 0 "$FSCK" --no-key "$store"
