#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# New keys for a volume that is in use: what was written stays readable, what is written is under the new data key, and a
# kill leaves a journal with records under both. Another program reads all of it.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
FSCK=${CMEK_BUILD:+$CMEK_BUILD/}fsck.cmekfs
store=$T/store
mnt=$T/mnt

new_volume "$store"
"$CTL" -q key create local:second
"$CTL" -q slot add "$store" local:second
start "$store" "$mnt"
mkdir "$mnt/before"
head -c 2000000 /dev/urandom >"$mnt/before/file"
cp "$mnt/before/file" "$T/file"
cp -a "$store/.cmekfs/header.0" "$T/old-header"

say "rotated three times under load"
(
	i=0
	while [ ! -e "$T/enough" ]; do
		i=$((i + 1))
		echo "line $i" >>"$mnt/before/log"
		printf '%07d\n' $i | dd of="$mnt/before/file" bs=8 seek=$((i % 1000)) conv=notrunc status=none
		[ $((i % 20)) -ne 0 ] || sync "$mnt/before/log" "$mnt/before/file"
	done
	echo $i >"$T/lines"
) &
writer=$!
for n in 2 3 4; do
	expect_code 0 "$CTL" rotate "$mnt"
	expect_text "data key $n\$" 'the mount has it already'
	mkdir "$mnt/after.$n"
	echo "after $n" >"$mnt/after.$n/file"
	sync "$mnt/after.$n/file"
done
touch "$T/enough"
wait $writer
lines=$(cat "$T/lines")
sync "$mnt/before/log" "$mnt/before/file"
[ "$(wc -l <"$mnt/before/log")" -eq "$lines" ] || fail "lines are missing"
cp "$mnt/before/file" "$T/file"
find "$store" -name .cmekfs.dir -printf '%l\n' | grep -q v1:0004: || fail "new directories are not under the new data key"

say "killed: the journal has records under several data keys"
kill -KILL "$(storage_pid "$store")"
wait_for 60 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
start "$store" "$mnt"
cmp "$mnt/before/file" "$T/file" || fail "a file has changed"
[ "$(wc -l <"$mnt/before/log")" -eq "$lines" ] || fail "lines were lost"
for n in 2 3 4; do
	grep -q "after $n" "$mnt/after.$n/file" || fail "a file under data key $n is lost"
done
stop "$store" "$mnt"
expect_code 0 "$FSCK" --data "$store"

say "each slot opens the new header; the old header lacks the new keys"
for slot in 0 1; do
	start "$store" "$mnt" -o slot=$slot
	cmp "$mnt/before/file" "$T/file" || fail "slot $slot opens something else"
	stop "$store" "$mnt"
done
cp "$store/.cmekfs/header.0" "$T/new-header"
cp "$T/old-header" "$store/.cmekfs/header.0"
cp "$T/old-header" "$store/.cmekfs/header.1"
expect_code 4 "$FSCK" -n --data "$store"
expect_text 'the header does not know its data key'
expect_code 0 "$CTL" header restore "$store" "$T/new-header"
expect_code 0 "$FSCK" -n --data "$store"
