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
echo secret >"$mnt/file"
sync "$mnt/file"
"$CTL" -q header backup --slot 1 "$mnt" "$T/backup"

say "not while it is mounted"
expect_code 5 "$CTL" shred --volume --yes-destroy db "$mnt"
grep -q secret "$mnt/file" || fail "the file has changed"
stop "$store" "$mnt"
cp -a "$store" "$T/copy"

say "shredded, with the data's key"
"$CTL" -q slot remove "$store" 1
expect_code 0 "$CTL" shred --volume --kms --days 0 --yes-destroy db --certificate "$T/certificate" "$store"
expect_text 'local:test: deletion accepted' 'an old copy does not open' "backup of its header $T/backup"
grep -q '"verified": true' "$T/certificate" || fail "the certificate is not good"
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
