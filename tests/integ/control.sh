#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The control socket of a mount: who reaches it, by which name of the volume, what it says, and what is left of it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

store=$SHM/store mnt=$T/mnt
NOT_FOUND=3 USAGE=2
new_volume "$store" -L db
uuid=$("$CTL" status --json "$store" | jq -r .uuid)
socket=$CMEKFS_RUNTIME_DIR/$uuid.sock

# says FILTER: of the JSON that cmekctl status prints, through jq; VOLUME is $volume or the mount point.
says() { "$CTL" status --json "${volume:-$mnt}" | jq -r "$1"; }
# raw LINE...: what the socket answers.
raw() { $PYTHON "$HERE/control.py" "$socket" "$@"; }

say "not mounted"
[ "$(volume=$store says .mount)" = null ] || fail "a mount is told that is not there"
expect_code $NOT_FOUND "$CTL" sync "$store"
expect_code $NOT_FOUND "$CTL" status "$uuid"

say "by store, mount point, UUID and label"
start "$store" "$mnt" -o commit=3600
echo content >"$mnt/file"
for volume in "$store" "$mnt" "$uuid" db; do
	[ "$(says .mount.mount_point)" = "$mnt" ] || fail "$volume: not found"
	[ "$(says .store)" = "$store" ] || fail "$volume: not its store"
done
unset volume
expect_code $NOT_FOUND "$CTL" sync nonsense
expect_code 0 "$CTL" status db
expect_text "unlocked" "$mnt" "journal:"

say "what it says"
[ "$(says .mount.state)" = unlocked ]
[ "$(says .mount.read_only)" = false ]
[ "$(says .mount.pid)" = "$(storage_pid "$store")" ]
[ "$(says '.mount.volume.slots[0].key')" = local:test ]
[ "$(says .mount.journal.error)" = null ]
waiting=$(says .mount.content)
[ "$(jq .waiting_files <<<"$waiting")" = 1 ] || fail "a file with changes is not told: $waiting"
expect_code 0 "$CTL" sync "$mnt"
[ "$(says .mount.content.waiting_files)" = 0 ] || fail "sync left a file with changes"
[ "$(says .mount.content.waiting_bytes)" = 0 ]
[ "$(says .mount.journal.appends)" -ge 1 ]
# What is in the store now outlives the processes.
kill -KILL "$(storage_pid "$store")"
wait_for 30 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
start "$store" "$mnt"
[ "$(cat "$mnt/file")" = content ] || fail "what was synced is lost"

say "the protocol"
raw '{"v":1,"cmd":"status"}' '{"v":1,"cmd":"nonsense"}' '{"v":1,"cmd":"sync","why":"a member more"}' 'no JSON' \
	'{"v":1,"cmd":"status"}' >"$T/answers"
[ "$(wc -l <"$T/answers")" -eq 4 ] || fail "$(cat "$T/answers")"
[ "$(jq -r '.v' "$T/answers" | sort -u)" = 1 ]
[ "$(jq -r '.ok' "$T/answers" | tr '\n' ' ')" = "true false true false " ]
[ "$(sed -n 2p "$T/answers" | jq -r .error.kind)" = unsupported ]
[ "$(sed -n 4p "$T/answers" | jq -r .error.kind)" = bad-format ]

say "nobody else"
[ "$(stat -c %a "$socket")" = 600 ]
chmod 666 "$socket"
setpriv --reuid nobody --regid nogroup --clear-groups $PYTHON "$HERE/control.py" "$socket" '{"v":1,"cmd":"status"}' \
	>"$T/answers" || skip "user nobody can't reach $T"
[ "$(jq -r .error.kind "$T/answers")" = denied ] || fail "$(cat "$T/answers")"

say "the socket goes with the mount, and one that was left is replaced"
stop "$store" "$mnt"
[ ! -e "$socket" ] || fail "the socket is left"
start "$store" "$mnt"
ln "$socket" "$T/kept"
kill -KILL "$(supervisor_pid "$store")"
wait_for 30 ended "$store" || fail "processes are left"
umount -l "$mnt"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
[ -e "$socket" ] || fail "this test wants a socket that was left"
[ "$(volume=$store says .mount)" = null ] || fail "a dead socket was taken for a mount"
start "$store" "$mnt"
[ "$(says .mount.state)" = unlocked ]
stop "$store" "$mnt"

say "two read-only mounts"
start "$store" "$mnt" -o ro
start "$store" "$T/second" -o ro
expect_code $USAGE "$CTL" status "$uuid"
expect_text "mounted more than once"
[ "$(says .mount.mount_point)" = "$mnt" ]
[ "$(volume=$T/second says .mount.mount_point)" = "$T/second" ]
[ "$(says .mount.read_only)" = true ]
expect_code 0 "$CTL" sync "$mnt"
umount "$mnt"
stop "$store" "$T/second"
[ -z "$(ls "$CMEKFS_RUNTIME_DIR")" ] || fail "left: $(ls "$CMEKFS_RUNTIME_DIR")"

say "without a place for it a mount is there all the same, and says so"
mkdir "$T/open"
chmod 777 "$T/open"
CMEKFS_RUNTIME_DIR=$T/open start "$store" "$mnt"
grep -q "cmekctl will not reach this mount" "$T/mnt.mount.log" || fail "not said"
stop "$store" "$mnt"
