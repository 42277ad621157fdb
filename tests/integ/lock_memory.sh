#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# After a lock no key and no content is left in the memory of any process of the mount, no key when they end, and none that
# is retired. Nor would a crash write any: there are no cores.
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
# scan [PID]...: these processes, or all of the mount, for the secrets of the store (or of its copy $of).
# found KIND: how many secrets of this kind they have.
scan() {
	local pids=("$@")
	[ $# -gt 0 ] || mapfile -t pids < <(fs_pids "$store")
	$PYTHON "$READER/local_unwrap.py" "${of:-$store}" | $PYTHON "$HERE/memory_scan.py" "${of:-$store}" "$text" "${pids[@]}" >"$T/found"
}
no_key_found() {
	for kind in kek dek content other; do
		[ "$(found $kind)" = 0 ] || fail "left in memory: $(tr '\n' ';' <"$T/found")"
	done
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
no_key_found
[ "$(found text)" = 0 ] || fail "content is left in memory: $(tr '\n' ';' <"$T/found")"
for pid in $(fs_pids "$store"); do
	grep -Eq '^Max core file size +0 +0 ' "/proc/$pid/limits" || fail "process $pid may write a core"
done
"$CTL" unlock "$mnt"
[ "$(head -c ${#text} "$mnt/secret-1")" = "$text" ]

say "the keys of before, when the data key is retired"
cp -a "$store" "$SHM/before"
cat "$mnt"/secret-[0-9]* >/dev/null
expect_code 0 "$CTL" rotate "$mnt"
expect_code 0 "$CTL" reencrypt "$mnt"
expect_text "data key 1 is retired"
of=$SHM/before scan
no_key_found
stop "$store" "$mnt"

library=${CMEK_BUILD:-}/tests/inject/hold.so
if [ ! -e "$library" ] || ldd "$library" | grep -qE 'lib[at]san'; then
	say "not looked at: what is left at the end (no hold.so in CMEK_BUILD, or a sanitizer)"
	exit 0
fi
say "what is left at the end"
printf '#!/bin/sh\nLD_PRELOAD="%s" exec "%s" "$@"\n' "$library" "$CMEKFS" >"$T/held"
chmod +x "$T/held"
CMEKFS=$T/held start "$store" "$mnt"
cat "$mnt"/secret-[0-9]* >/dev/null
echo more >>"$mnt/secret-1"
storage=$(storage_pid "$store")
umount "$mnt" &
looked=
# look: a process of the mount that has stopped at its end is looked at and goes on. Succeeds when all have ended.
look() {
	local pid state
	for pid in $(fs_pids "$store"); do
		state=$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) || continue
		if [ "$state" = T ]; then
			scan "$pid"
			no_key_found
			looked+=" $pid "
			kill -CONT "$pid"
		fi
	done
	ended "$store"
}
wait_for 60 look || fail "the mount does not end"
wait
unset "mount_pid[$mnt]"
[[ $looked == *" $storage "* ]] || fail "the storage daemon did not stop at its end"
[ "$(wc -w <<<"$looked")" -ge 3 ] || fail "processes that were looked at:$looked"
