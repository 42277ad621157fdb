#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Key slots of a mounted volume: added and removed under load, several programs at once, and what opens afterwards.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

new_volume "$store"
for key in one two three four; do
	"$CTL" key create local:$key >/dev/null
done
start "$store" "$mnt"
echo content >"$mnt/file"

say "several programs change the slots of a mounted volume at once"
pids=()
for key in one two three four; do
	"$CTL" -q slot add "$mnt" local:$key &
	pids+=($!)
done
for _ in $(seq 20); do
	echo more >>"$mnt/file"
	sync "$mnt/file"
done
for pid in "${pids[@]}"; do
	wait "$pid" || fail "a slot could not be added"
done
[ "$("$CTL" slot list "$store" | grep -c 'local:')" -eq 5 ] || fail "not all slots are there"

say "the first key goes, with its slot; the mount does not notice"
expect_code 0 "$CTL" slot remove --rekey "$mnt" 0
"$CTL" key disable local:test
"$CTL" key uses local:one | grep -q 'in use' || fail "the use of a mounted volume's key is not told"
echo last >>"$mnt/file"
restart "$store" "$mnt"
[ "$(wc -l <"$mnt/file")" -eq 22 ] || fail "the file has lost lines"
"$CTL" key uses local:test | grep -q 'No volume' || fail "a removed slot is told as a use"

say "each slot that stays opens the volume"
stop "$store" "$mnt"
for key in one two three four; do
	start "$store" "$mnt" -o "key=local:$key"
	grep -q last "$mnt/file" || fail "local:$key opens something else"
	stop "$store" "$mnt"
done
expect_code 22 "$CMEKFS" "$store" "$mnt" -o key=local:test

say "a header backup of a mounted volume; none is restored under a mount"
start "$store" "$mnt"
"$CTL" -q header backup "$mnt" "$T/backup"
expect_code 5 "$CTL" header restore "$store" "$T/backup"
stop "$store" "$mnt"
rm -r "$store/.cmekfs"
expect_code 0 "$CTL" header restore "$store" "$T/backup"
start "$store" "$mnt"
grep -q last "$mnt/file" || fail "the restored volume is another one"
stop "$store" "$mnt"

say "a recovery code: its slot is used when it is asked for, and follows a rotation without the code"
umask 077
store=$T/store3
"$CTL" -q key create local:five
"$MKFS" -q --key local:five "$store"
"$CTL" slot add --recovery "$store" >"$T/out"
grep -Eo '^  ([0-9A-Z]{5}-){11}[0-9A-Z]{5}$' "$T/out" | tr -d ' ' >"$T/code"
expect_text '^added slot 1: recovery:paper:[0-9A-Za-z_-]{43} ' '-o slot=1'
"$CTL" -q slot add --recovery --code-file "$T/code2" "$store" safe-2
expect_code 4 "$CTL" -q slot add --recovery --code-file "$T/code2" "$store" safe-3
[ "$(stat -c %a "$T/code2")" = 600 ] || fail "others can read the code"
[ "$("$CTL" slot list "$store" | grep -c recovery:)" -eq 2 ] || fail "a slot without a code"
start "$store" "$mnt"
echo content >"$mnt/file"
expect_code 0 "$CTL" rotate "$mnt"
echo later >>"$mnt/file"
stop "$store" "$mnt"
if $PYTHON -c 'import cryptography' 2>/dev/null; then
	$PYTHON "$HERE/../reader/recovery_unwrap.py" "$store" 1 <"$T/code" >"$T/kek1"
	$PYTHON "$HERE/../reader/local_unwrap.py" "$store" | cmp - "$T/kek1" || fail "another program gets another key"
fi
"$CTL" -q key disable local:five
expect_code 12 "$CMEKFS" "$store" "$mnt"
expect_text 'recovery code and was not asked for'
expect_code 10 setsid "$CMEKFS" "$store" "$mnt" -o slot=1
expect_text 'no terminal'
expect_code 10 "$CMEKFS" "$store" "$mnt" -o "slot=1,passphrase_file=$T/code2"
expect_text 'recovery code of something else'
cut -c 1-30 "$T/code" >"$T/code.bad"
expect_code 10 "$CMEKFS" "$store" "$mnt" -o "slot=1,passphrase_file=$T/code.bad"
for slot in 1 2; do
	tr '[:upper:]' '[:lower:]' <"$T/code${slot#1}" | tr -d - >"$T/typed"
	start "$store" "$mnt" -o "slot=$slot,passphrase_file=$T/typed"
	[ "$(tail -n 1 "$mnt/file")" = later ] || fail "slot $slot opens something else"
	"$CTL" lock "$mnt"
	"$CTL" unlock "$mnt"
	stop "$store" "$mnt"
done
"$CTL" -q key enable local:five
expect_code 0 "$CTL" slot remove --rekey --unlock-slot 2 --passphrase-file "$T/code2" "$store" 1
expect_code 10 "$CMEKFS" "$store" "$mnt" -o "slot=2,passphrase_file=$T/code"
