#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The end of a data key: re-encrypted under renames from where it has been to where it has not and back, proved, retired,
# destroyed, by the grace and by hand. Then fsck, another program, and old copies of the header.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

# dek ID: its state in the header. moved MB: how far re-encryption is.
dek() { "$CTL" status --json "$store" | $PYTHON -c 'import json, sys
print([d["state"] for d in json.load(sys.stdin)["deks"] if d["id"] == int(sys.argv[1])][0])' "$1"; }
dek_is() { [ "$(dek "$1")" = "$2" ]; }
# last PATH: a value of the last object that cmekctl --json has printed.
last() { tail -n 1 "$T/out" | $PYTHON -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$1"; }
events() { grep -c "\"event\":\"$1\",\"outcome\":\"success\"" "$CMEKFS_AUDIT_LOG" || true; }
same() { (cd "$mnt" && sha256sum --quiet -c "$T/sums") || fail "contents have changed"; }

new_volume "$store"
start "$store" "$mnt"
# Many directories, so that moving takes a while, with files, symlinks and long names.
for a in 0 1 2 3 4 5 6 7; do
	for b in 0 1 2 3; do
		mkdir -p "$mnt/tree/$a/$b"
		head -c $((50000 + a * 9000)) /dev/urandom >"$mnt/tree/$a/$b/file"
		ln -s "target of $a $b" "$mnt/tree/$a/$b/link"
		: >"$mnt/tree/$a/$b/$(printf 'n%.0s' {1..200})$b"
	done
done
head -c $((20000000 + LONG * 1000000000)) /dev/urandom >"$mnt/large"
setfattr -n user.comment -v "of a file" "$mnt/tree/1/1/file" 2>/dev/null || true
(cd "$mnt" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$T/sums"
(cd "$mnt" && find . -type l -printf '%p %l\n' | sort) >"$T/links"

say "under renames across directories, and files that have lost their names, one of which nobody has open just now"
expect_code 0 "$CTL" header backup "$store" "$T/before.backup"
exec 7<>"$mnt/gone"
head -c 300000 "$mnt/large" >&7
rm "$mnt/gone"
$PYTHON - "$mnt/large" "$mnt/gone too" "$T/has" "$T/enough" <<'PYTHON' &
import os, sys, time
large, path, has, enough = sys.argv[1:]
data = open(large, 'rb').read(500000)
with open(path, 'wb') as f:
    f.write(data)
    path_fd = os.open(path, os.O_PATH)
    os.fsync(f.fileno())
    f.seek(0)
    f.write(data[::-1])
os.unlink(path)
open(has, 'w').close()
while not os.path.exists(enough):
    time.sleep(0.05)
with open(f'/proc/self/fd/{path_fd}', 'rb') as f:
    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if f.read() != data[::-1]:
        sys.exit('it has changed')
PYTHON
holder=$!
wait_for 60 [ -e "$T/has" ] || fail "no file without a name"
expect_code 0 "$CTL" rotate "$mnt"
expect_code 0 "$CTL" header backup "$store" "$T/between.backup"
$PYTHON - "$mnt/tree" "$T/enough" <<'PYTHON' &
# Directories and entries change places with their like in other directories, and back, again and again.
import ctypes, itertools, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def swap(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), a)
top, enough = sys.argv[1:]
for n in itertools.count():
    if os.path.exists(enough):
        break
    swaps = []
    for a in range(0, 8, 2):
        swaps += [(f'{top}/{a}/{n % 4}', f'{top}/{a + 1}/{n % 4}')]
        swaps += [(f'{top}/{a}/{(n + 1) % 4}/{name}', f'{top}/{a + 1}/{(n + 1) % 4}/{name}') for name in ('file', 'link')]
    swaps += [(f'{top}/0', f'{top}/7')]
    for pair in swaps + swaps[::-1]:
        swap(*pair)
PYTHON
mover=$!
expect_code 0 "$CTL" reencrypt --json "$mnt"
[ "$(last state)" = "done" ] || fail "$(tail -n 1 "$T/out")"
dek_is 1 retired || fail "data key 1 is $(dek 1)"
[ "$(last ended_deks.0.id)" = 1 ] || fail "the output does not name it"
[ "$(last ended_deks.0.header_backups.0.path)" = "$T/before.backup" ] || fail "backups that hold it are not named"
[ "$(last verified.map_pages)" -gt 50 ] || fail "the proof is of $(last verified.map_pages) pages"
[ "$(last verified.nameless)" -ge 2 ] || fail "a file without a name was not looked at"
[ "$(events dek.retire)" = 1 ] || fail "no event"
grep -q '"event":"dek.retire".*"dek":1.*nothing else than data key 2 in' "$CMEKFS_AUDIT_LOG" || fail "the event has no proof"
touch "$T/enough"
wait $mover || fail "the one who renames has failed"
wait $holder || fail "a file without a name that nobody had open"
cmp <(head -c 300000 "$mnt/large") /dev/fd/7 || fail "the file without a name has changed"
exec 7>&-
same
(cd "$mnt" && find . -type l -printf '%p %l\n' | sort) | cmp - "$T/links" || fail "symlinks have changed"
expect_code 0 "$CTL" status "$mnt"
expect_text '^1 +retired +will be destroyed after 20'
restart "$store" "$mnt"
same

say "destroyed: when the grace is over, by a mount, which knows no file yet and is read from meanwhile; by hand"
expect_code 0 "$CTL" rotate "$mnt"
restart "$store" "$mnt"
"$CTL" -q reencrypt --grace 1s "$mnt" &
moving=$!
same
same
wait $moving || fail "re-encryption has failed"
wait_for 60 dek_is 2 destroyed || fail "data key 2 is $(dek 2) after its grace"
dek_is 1 retired || fail "data key 1 is $(dek 1) before the end of its own"
[ "$(events dek.destroy)" = 1 ] || fail "no event"
expect_code 0 "$CTL" rotate "$mnt"
expect_code 0 "$CTL" reencrypt --now "$mnt"
expect_text 'data key 3 is destroyed' 'data key 1 is destroyed' "$T/between.backup"
for n in 1 2 3; do
	dek_is $n destroyed || fail "data key $n is $(dek $n)"
done
expect_code 0 "$CTL" audit verify
same

say "killed while data keys are made, retired and destroyed"
active=4
for n in $(seq $((LONG * 54 + 6))); do
	expect_code 0 "$CTL" rotate "$mnt"
	active=$((active + 1))
	expect_code 0 "$CTL" reencrypt --now --background "$mnt"
	sleep "0.$((RANDOM % 600 + 100))"
	kill -KILL "$(storage_pid "$store")"
	wait_for 60 ended "$store" || fail "processes are left"
	wait "${mount_pid[$mnt]}" || true
	unset "mount_pid[$mnt]"
	start "$store" "$mnt"
	same
done
expect_code 0 "$CTL" reencrypt --now "$mnt"
for n in $(seq $((active - 1))); do
	dek_is "$n" destroyed || fail "data key $n is $(dek "$n")"
done
same
stop "$store" "$mnt"
$PYTHON - "$store" <<'PYTHON' || fail "a wrapped data key is left"
import json, sys
for copy in '01':
    data = open(f'{sys.argv[1]}/.cmekfs/header.{copy}', 'rb').read()
    table = json.loads(data[4096:4096 + int.from_bytes(data[48:56], 'little')])['deks']['table']
    assert [('wrapped' in d, d['state']) for d in table] == [(False, 'destroyed')] * (len(table) - 1) + [(True, 'active')], table
PYTHON
code=0
"$FSCK" -p "$store" >"$T/out" 2>&1 || code=$? # what the kills have left of symlinks on their way
[ $code -le 1 ] || fail "fsck -p: $code: $(cat "$T/out")"
expect_code 0 "$FSCK" -n --data "$store"
start "$store" "$mnt"
same
stop "$store" "$mnt"

say "another program reads it without the old keys"
if $PYTHON -c 'import cryptography' 2>/dev/null; then
	reader() { $PYTHON "$HERE/../reader/local_unwrap.py" "$store" | $PYTHON "$HERE/../reader/cmekfs_reader.py" --kek-file - "$store" "$@"; }
	reader verify >"$T/verify" || fail "$(cat "$T/verify")"
	grep -qx 'notes: 0' "$T/verify" || fail "$(cat "$T/verify")"
	reader cat tree/3/2/file | sha256sum | grep -q "^$(awk '$2 == "./tree/3/2/file" { print $1 }' "$T/sums") " ||
		fail "the other program reads something else"
fi

say "what needs an old key is named, and the key stays"
start "$store" "$mnt"
expect_code 0 "$CTL" rotate "$mnt"
mkdir -p "$store/.cmekfs/lost"
: >"$store/.cmekfs/lost/journal.0.0"
expect_code 1 "$CTL" reencrypt "$mnt"
expect_text '\.cmekfs/lost/journal\.0\.0 ' 'older ones are kept'
rm "$store/.cmekfs/lost/journal.0.0"
mkdir "$mnt/below"
echo "below a mount" >"$mnt/below/file"
expect_code 0 "$CTL" rotate "$mnt"
mkdir "$mnt/newer" # its names are under the new key, and have not to be moved
mv "$mnt/below" "$mnt/newer/below"
inode=$(stat -c %i "$mnt/newer/below")
stop "$store" "$mnt"
stored=$(find "$store" -inum "$inode")
mount -t tmpfs none "$stored"
start "$store" "$mnt"
expect_code 1 "$CTL" reencrypt --now "$mnt"
expect_text "^$(find "$store" -inum "$(stat -c %i "$mnt/newer")" -printf %P) .*entries that can't be looked at"
stop "$store" "$mnt"
umount "$(awk -v store="$store/" 'index($5, store) == 1 { print $5 }' /proc/self/mountinfo)" # a directory above has a new name
stored=$(find "$store" -path "$store/.cmekfs" -prune -o -type f -size +1000k -print)
inode=$(stat -c %i "$stored")
dd if=/dev/zero of="$stored" bs=4096 seek=3 count=1 conv=notrunc oflag=nofollow status=none
start "$store" "$mnt"
expect_code 0 "$CTL" rotate "$mnt"
expect_code 1 "$CTL" reencrypt "$mnt"
expect_text "^$(find "$store" -inum "$inode" -printf %P) .*inode $inode.* do not open"
[ "$(find "$mnt" -inum "$inode")" = "$mnt/large" ] || fail "the mount shows another inode number"
dek_is $((active + 1)) decrypt-only || fail "data key $((active + 1)) is $(dek $((active + 1)))"
head -c 20000000 /dev/urandom >"$mnt/large"
expect_code 0 "$CTL" reencrypt "$mnt"
dek_is $((active + 1)) retired || fail "data key $((active + 1)) is $(dek $((active + 1)))"
stop "$store" "$mnt"
expect_code 0 "$CTL" shred --retired-deks --yes-destroy "$("$CTL" status --json "$store" |
	$PYTHON -c 'import json, sys; print(json.load(sys.stdin)["uuid"])')" "$store"
dek_is $((active + 1)) destroyed || fail "data key $((active + 1)) is $(dek $((active + 1)))"

say "an old copy of the header opens nothing of it"
cp -a "$store" "$T/stolen"
for copy in 0 1; do
	cp "$T/before.backup" "$T/stolen/.cmekfs/header.$copy"
done
expect_code 4 "$FSCK" -n --data "$T/stolen"
expect_text 'the header does not know its data key'
for copy in 0 1; do
	cp "$T/between.backup" "$T/stolen/.cmekfs/header.$copy"
done
expect_code 4 "$FSCK" -n --data "$T/stolen"
expect_text 'the header does not know its data key'

say "and nothing at all once the key behind it is gone"
"$CTL" -q key create local:next
expect_code 0 "$CTL" rewrap --to local:next "$store"
expect_code 0 "$CTL" key schedule-deletion --days 0 local:test
mkdir "$T/thief"
expect_code 14 env CMEKFS_VOLUMES="$T/keys/thief.json" "$CMEKFS" "$T/stolen" "$T/thief"
start "$store" "$mnt"
(cd "$mnt" && grep -v ' \./large$' "$T/sums" | sha256sum --quiet -c) || fail "contents have changed"
[ "$(cat "$mnt/newer/below/file")" = "below a mount" ] || fail "what was below a mount has changed"
stop "$store" "$mnt"
