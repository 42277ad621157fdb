#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Somebody changes what the volume keeps about itself, after a mount that ended and after one that was killed: it is not
# needed, or the mount is refused with a sentence; never a crash, a hang, wrong data, or a write outside of the store.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt bait=$T/bait
mkdir "$mnt" "$bait"
printf bait >"$bait/file"
new_volume "$store" --journal-size 8M
start "$store" "$mnt"
$PYTHON "$HERE/replay.py" write "$mnt"
restart "$store" "$mnt"
SECONDS=0
$PYTHON "$HERE/replay.py" change "$mnt"
$PYTHON "$HERE/replay.py" touch "$mnt"
mapfile -t pids < <(fs_pids "$store")
kill -9 "${pids[@]}"
# the journal is checkpointed after 30 s, and has then nothing that the cases could damage
[ $SECONDS -lt 25 ] || slow=1
umount -l "$mnt"
unset "mount_pid[$mnt]"
[ -z "${slow:-}" ] || skip "this machine is too slow"
wait_for 60 ended "$store" || fail "a killed daemon is still there"
cp -a "$store" "$SHM/killed"
start_daemon "$store" "$mnt"
stop "$store" "$mnt"
cp -a "$store" "$SHM/clean"

new_volume "$SHM/other" --journal-size 8M
"$CTL" rewrap --to local:test "$SHM/other" >/dev/null # so that its header is of a higher number

n=0 wrong=0
wrong() {
	echo "case $name: $*" >&2
	wrong=$((wrong + 1))
}
# refused: the mount that was tried ended with one of the exit codes of cmekfs(8), and said why in plain text.
refused() {
	case $code in 1 | 3 | 1[0-9] | 2[0-4]) ;; *) wrong "exit code $code" ;; esac
	grep -q '^cmekfs: .' "$T/out" || wrong "it does not say why"
	if LC_ALL=C tr -d '\n' <"$T/out" | LC_ALL=C grep -q '[^ -~]'; then wrong "control characters in what it says"; fi
	if mounted "$mnt"; then fail "case $name: refused and mounted"; fi
}

while read -r name state outcome <&3; do
	rm -rf "$store"
	cp -a "$SHM/$state" "$store"
	$PYTHON "$HERE/hostile_meta.py" damage "$name" "$store" "$bait"
	code=0
	timeout 60 "$CMEKFS" "$store" "$mnt" >"$T/out" 2>&1 </dev/null || code=$?
	echo "$name $state $outcome $code: $(head -n 2 "$T/out" | tr -d '\0')"
	if [ "$code" -ne 0 ]; then
		[ "$outcome" != good ] || wrong "it is not mounted"
		refused
		$PYTHON "$HERE/hostile_meta.py" outside "$bait" || wrong "written outside"
	else
		if [ "$outcome" = refused ]; then
			wrong "it is mounted"
			outcome=mixed
		fi
		timeout 60 $PYTHON "$HERE/hostile_meta.py" check "$outcome" "$mnt" "$bait" || wrong "not as it must be"
		[ -n "$(fs_pids "$store")" ] || wrong "the file system died"
		stop "$store" "$mnt"
	fi
	n=$((n + 1))
done 3< <($PYTHON "$HERE/hostile_meta.py" cases "$([ "$LONG" = 1 ] && echo all)")
say "$n cases, $wrong wrong"
[ "$wrong" -eq 0 ]

say "an older header than the data: refused by the journal, or told"
rm -rf "$store"
cp -a "$SHM/clean" "$store"
start "$store" "$mnt"
"$CTL" -q rotate "$mnt"
echo "under the newer key" >"$mnt/newer"
mkdir "$mnt/both"
stop "$store" "$mnt"
cp "$SHM/clean/.cmekfs"/header.[01] "$store/.cmekfs/"
expect_code 23 "$CMEKFS" "$store" "$mnt"
expect_text "journal.0 is under a data key that the header does not have"
rm "$store/.cmekfs/journal.0"
start "$store" "$mnt"
audited=$(stat -c %s "$CMEKFS_AUDIT_LOG")
expect_errno EIO read "$mnt/newer"
told() { tail -c +$((audited + 1)) "$CMEKFS_AUDIT_LOG" | grep -q '"event":"data.unauthentic"'; }
wait_for 30 told || fail "no event"
wait_for 30 grep -q 'inode .*is under a data key that the header does not know' "$T/mnt.mount.log" || fail "not in the log"
$PYTHON "$HERE/hostile_meta.py" check good "$mnt" "$bait"
stop "$store" "$mnt"
