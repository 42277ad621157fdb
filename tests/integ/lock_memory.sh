#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# After a lock no key and no content is left in the memory of any process of the mount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
READER=$HERE/../reader
$PYTHON -c 'import cryptography' 2>/dev/null || skip "python3-cryptography is not installed"

store=$SHM/store mnt=$T/mnt
new_volume "$store"
text="plaintext that nobody may find $RANDOM$RANDOM$RANDOM"
# found KIND: how many secrets of this kind the processes of the mount have.
scan() {
	local pids
	mapfile -t pids < <(fs_pids "$store")
	$PYTHON "$READER/local_unwrap.py" "$store" | $PYTHON "$HERE/memory_scan.py" "$store" "$text" "${pids[@]}" >"$T/found"
}
found() { awk -v kind="$1" '$1 == kind { print $2 }' "$T/found"; }
start "$store" "$mnt"
for i in $(seq 20); do
	echo "$text $i" >"$mnt/secret-$i"
	yes "$text" | head -c 100000 >>"$mnt/secret-$i" || true
done
ln -s "$text" "$mnt/secret-link"
"$CTL" sync "$mnt"
sync "$mnt/secret-1"
restart "$store" "$mnt"
cat "$mnt"/secret-[0-9]* >/dev/null
readlink "$mnt/secret-link" >/dev/null
scan
for kind in kek dek content text; do
	[ "$(found $kind)" -gt 0 ] || fail "the scan does not find what is there: $(tr '\n' ';' <"$T/found")"
done
"$CTL" lock "$mnt"
scan
for kind in kek dek content other text; do
	[ "$(found $kind)" = 0 ] || fail "left in memory: $(tr '\n' ';' <"$T/found")"
done
"$CTL" unlock "$mnt"
[ "$(head -c ${#text} "$mnt/secret-1")" = "$text" ]
stop "$store" "$mnt"
