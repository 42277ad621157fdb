#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A volume is shredded: what says so, and what opens neither it nor a copy of it that was taken before.
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
store=$T/store
mnt=$T/mnt

"$CTL" -q key create local:test
"$CTL" -q key create local:backup
new_volume "$store" -L db
"$CTL" -q slot add --purpose backup "$store" local:backup
start "$store" "$mnt"
text="plaintext that nobody may find $RANDOM$RANDOM$RANDOM"
echo secret >"$mnt/file"
yes "$text" | head -c 100000 >>"$mnt/file" || true
sync "$mnt/file"
"$CTL" -q header backup --slot 1 "$mnt" "$T/backup"
"$CTL" sync "$mnt"
! $PYTHON -c 'import cryptography' 2>/dev/null || $PYTHON "$HERE/../reader/local_unwrap.py" "$store" >"$T/kek"

cp -a "$store" "$T/copy"

say "what is said of a mounted volume, and what can't be told"
expect_code 0 "$CTL" shred --volume "$mnt"
expect_text "mounted on $mnt" 'Nothing was changed'
CMEKFS_RUNTIME_DIR=$T/none expect_code 5 "$CTL" shred --volume --yes-destroy db "$store"
expect_text 'nothing was overwritten' 'no control socket here'
grep -q secret "$mnt/file" || fail "the file has changed"
exec 5<>"$mnt/file"
yes "$text" | head -c 100000 >"$mnt/dirty" || true

say "shredded while it is mounted, with the data's key"
"$CTL" -q slot remove "$mnt" 1
expect_code 0 "$CTL" shred --volume --kms --days 0 --yes-destroy db --certificate "$T/certificate" "$mnt"
expect_text 'local:test: deletion accepted' 'an old copy does not open' "backup of its header $T/backup" \
	"mount on $mnt has no keys"
grep -q '"verified": true' "$T/certificate" || fail "the certificate is not good"
grep -q '"keys_wiped": true' "$T/certificate" || fail "the certificate knows no mount"
for file in header.0 header.1; do
	[ "$(head -c 8 "$store/.cmekfs/$file")" = CMEKGONE ] || fail "$file is no tombstone"
done
[ -z "$(find "$store/.cmekfs" -name 'journal.*')" ] || fail "a journal is left"

say "the mount answers errors, says so, and nothing brings it back"
expect_errno EKEYREVOKED open "$mnt/file"
expect_errno EKEYREVOKED open "$mnt/dirty"
expect_errno EKEYREVOKED mkdir "$mnt/new"
if cat <&5 >/dev/null 2>&1; then fail "an open file is read"; fi
if echo more >&5 2>/dev/null; then fail "an open file is written"; fi
expect_code 14 "$CTL" status "$mnt"
expect_text "mounted on: +$mnt" 'state: +shredded' 'was shredded on'
expect_code 14 "$CTL" unlock "$mnt"
expect_code 0 "$CTL" lock "$mnt"
expect_code 14 "$CTL" slot add "$mnt" local:backup
expect_code 0 "$CTL" shred --volume --yes-destroy db "$mnt" # again is fine

# A sanitizer's memory has no end.
if $PYTHON -c 'import cryptography' 2>/dev/null && ! ldd "$(command -v "$CMEKFS")" | grep -qE 'lib[at]san'; then
	say "no key and no content is left in its memory"
	mapfile -t pids < <(fs_pids "$store")
	$PYTHON "$HERE/memory_scan.py" "$T/copy" "$text" "${pids[@]}" <"$T/kek" >"$T/found"
	awk '$2 != 0 || $3 == 0 { exit 1 }' "$T/found" || fail "left in memory: $(tr '\n' ';' <"$T/found")"
fi
exec 5>&-
stop "$store" "$mnt"
expect_code 14 "$CMEKFS" "$store" "$mnt"
expect_text 'was shredded on'

say "a copy from before opens with the backup's key alone"
expect_code 14 "$CMEKFS" "$T/copy" "$mnt" -o slot=0
start "$T/copy" "$mnt" -o slot=1
grep -q secret "$mnt/file" || fail "the copy is another volume"
stop "$T/copy" "$mnt"

say "and so does the store, with the backup of its header"
expect_code 0 "$CTL" header restore --unlock-key local:backup "$store" "$T/backup"
start "$store" "$mnt"
grep -q secret "$mnt/file" || fail "the restored volume is another one"
stop "$store" "$mnt"

say "with that key destroyed nothing opens any more"
"$CTL" -q key schedule-deletion --days 0 local:backup
for dir in "$store" "$T/copy"; do
	expect_code 14 "$CMEKFS" "$dir" "$mnt"
done

say "read-only mounts: each is told"
"$CTL" -q key create local:two
mkdir "$T/two"
"$MKFS" -q --key local:two -L two "$T/two"
start "$T/two" "$T/ro1" -o ro
start "$T/two" "$T/ro2" -o ro
expect_code 0 "$CTL" shred --volume --yes-destroy two --json "$T/two"
[ "$(grep -c '"keys_wiped": true' "$T/out")" = 2 ] || fail "not both mounts were told: $(cat "$T/out")"
expect_errno EKEYREVOKED listdir "$T/ro1"
expect_errno EKEYREVOKED listdir "$T/ro2"
umount "$T/ro1"
stop "$T/two" "$T/ro2"
