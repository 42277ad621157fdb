#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Contents and names move to a new data key while the volume is in use: under writers, paused, held by a lock, and killed in the
# middle. Afterwards another program reads all of it, and each block authenticates.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

# state: what the mount says of re-encryption. field NAME: one value of it.
state() { "$CTL" reencrypt --status --json "$mnt"; }
field() { state | $PYTHON -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
state_is() { [ "$(field state)" = "$1" ]; }
has_moved() { [ "$(field bytes_moved)" -gt 0 ]; }

new_volume "$store"
start "$store" "$mnt"
mkdir -p "$mnt/dir/deep"
head -c $((60000000 + LONG * 1000000000)) /dev/urandom >"$mnt/large"
for n in 1 2 3 4 5 6 7 8 9; do
	head -c $((n * 5000)) "$mnt/large" >"$mnt/dir/deep/$n"
done
ln "$mnt/dir/deep/9" "$mnt/linked"
: >"$mnt/empty"
truncate -s 60000000 "$mnt/sparse"
echo end >>"$mnt/sparse"
cp /bin/ls "$mnt/suid"
chmod 4755 "$mnt/suid"
touch -d '2001-02-03 04:05:06' "$mnt/dir/deep/1"
sha256sum <"$mnt/large" >"$T/large.sum"
$PYTHON "$HERE/odd_tree.py" "$mnt/odd"
if setfattr -n user.comment -v "quarterly figures" "$mnt/dir/deep/3" 2>/dev/null; then
	setfattr -n user.dir -v z "$mnt/odd"
fi
# A symlink with two names becomes two.
rm "$mnt/odd/links/second-name-of-a-symlink"
# Without the times of directories: the one that is at work when it is killed keeps that time.
list_tree() { $PYTHON "$HERE/../reader/list_tree.py" --full "$1" | awk -F '\t' -v OFS='\t' '/^d/ { $5 = "-" } { print }'; }
list_tree "$mnt/odd" >"$T/odd.list"
list_tree "$mnt/dir" >"$T/dir.list"
(cd "$mnt" && find . -path ./odd -prune -o -type f ! -name log ! -name block -print | sort | xargs sha256sum) >"$T/sums"

say "nothing to do, and what is refused"
expect_code 0 "$CTL" reencrypt "$mnt"
expect_code 2 "$CTL" reencrypt --pause "$mnt"
expect_code 2 "$CTL" reencrypt --pause --stop "$mnt"
expect_code 0 "$CTL" reencrypt --stop "$mnt"

say "under writers: paused, locked, killed, and to its end"
exec 7<>"$mnt/gone"
head -c 700000 "$mnt/large" >&7
rm "$mnt/gone"
expect_code 0 "$CTL" rotate "$mnt"
(
	i=0
	while [ ! -e "$T/enough" ]; do
		i=$((i + 1))
		echo "line $i" >>"$mnt/log"
		printf '%07d\n' $i | dd of="$mnt/block" bs=8 seek=$((i % 1000)) conv=notrunc status=none
		mv "$mnt/dir/deep/2" "$mnt/dir/2"
		mv "$mnt/dir/2" "$mnt/dir/deep/2"
		[ $((i % 20)) -ne 0 ] || sync "$mnt/log" "$mnt/block"
	done
	echo $i >"$T/lines"
) &
writer=$!
expect_code 0 "$CTL" reencrypt --rate 1 --background "$mnt"
wait_for 120 has_moved || fail "nothing is moved: $(state)"
expect_code 0 "$CTL" reencrypt --pause "$mnt"
expect_text paused
moved=$(field bytes_moved)
touch "$T/enough"
wait $writer
lines=$(cat "$T/lines")
[ "$(wc -l <"$mnt/log")" -eq "$lines" ] || fail "lines are missing"
[ "$(field bytes_moved)" -eq "$moved" ] || fail "it is paused and goes on"
expect_code 0 "$CTL" reencrypt --background "$mnt"
expect_code 0 "$CTL" lock "$mnt"
expect_code 0 "$CTL" unlock "$mnt"
state_is running || fail "after a lock and an unlock: $(state)"
sync "$mnt/log" "$mnt/block"
cp "$mnt/block" "$T/block"
exec 7>&-
kill -KILL "$(storage_pid "$store")"
wait_for 60 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
start "$store" "$mnt"
state_is running || fail "it does not go on by itself after a kill: $(state)"
expect_code 0 "$CTL" reencrypt --rate 0 --json "$mnt"
tail -n 1 "$T/out" | grep -q '"state":"done"' || fail "the last line is $(tail -n 1 "$T/out")"
[ ! -e "$store/.cmekfs/reencrypt" ] || fail "its state was left behind"
expect_code 0 "$CTL" reencrypt "$mnt"
expect_text 'under data key 2; 0 MB and 0 names were moved'
stop "$store" "$mnt"

# What a kill can leave: pieces of symlinks that had not got their place.
code=0
"$FSCK" -p "$store" >"$T/out" 2>&1 || code=$?
[ $code -le 1 ] || fail "fsck -p: $code: $(cat "$T/out")"

check() {
	expect_code 0 "$FSCK" -n --data "$store"
	start "$store" "$mnt" "$@"
	(cd "$mnt" && sha256sum --quiet -c "$T/sums") || fail "contents have changed"
	[ $# -gt 0 ] || list_tree "$mnt/odd" | diff "$T/odd.list" - >"$T/diff" || fail "names have changed: $(cat "$T/diff")"
	list_tree "$mnt/dir" | diff "$T/dir.list" - >"$T/diff" || fail "names have changed: $(cat "$T/diff")"
	cmp "$mnt/block" "$T/block" || fail "what was written meanwhile has changed"
	[ "$(wc -l <"$mnt/log")" -eq "$lines" ] || fail "lines were lost"
	[ "$(stat -c %a "$mnt/suid")" = 4755 ] || fail "the mode has changed"
	[ "$(stat -c %Y "$mnt/dir/deep/1")" = "$(date -d '2001-02-03 04:05:06' +%s)" ] || fail "a time has changed"
	[ "$(stat -c %h "$mnt/linked")" = 2 ] || fail "a hard link is lost"
	[ "$(stat -c %b "$mnt/sparse")" -lt 1000 ] || fail "holes were filled"
	stop "$store" "$mnt"
}
check
check -o ro

say "no id, no symlink, no attribute and no page names the old data key"
find "$store" -name .cmekfs.dir -printf '%l\n' | grep -v '^v1:0002:' && fail "directories are under the old data key"
find "$store" -path "$store/.cmekfs" -prune -o -type l ! -name .cmekfs.dir ! -name '*.l' -printf '%l\n' |
	grep -v '^10002' && fail "symlinks are under the old data key"
getfattr -h -R -d -m - "$store" 2>/dev/null | grep 'user.cmekfs.*\.0001=' && fail "attributes are under the old data key"
cat >"$T/old.py" <<'PYTHON'
import os, stat, struct, sys
old = []
for top, dirs, files in os.walk(sys.argv[1]):
    if '.cmekfs' in dirs:
        dirs.remove('.cmekfs')
    for name in files:
        path = os.path.join(top, name)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            continue
        with open(path, 'rb') as f:
            page = f.read(8)
            while page[:4] == b'CMK\1':
                if struct.unpack_from('<I', page, 4)[0] != 2:
                    old.append(path)
                f.seek(4096 - 8 + 96 * 4096, 1)
                page = f.read(8)
print(*old)
sys.exit(len(old) > 0)
PYTHON
$PYTHON "$T/old.py" "$store" || fail "map pages are under the old data key"

say "a mount without a journal, or a read-only one, does not do it"
start "$store" "$mnt" -o nojournal
expect_code 23 "$CTL" reencrypt "$mnt"
stop "$store" "$mnt"
start "$store" "$mnt" -o ro
expect_code 23 "$CTL" reencrypt "$mnt"
stop "$store" "$mnt"
expect_code 3 "$CTL" reencrypt "$store"
