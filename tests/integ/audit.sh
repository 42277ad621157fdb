#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What mounts tell the audit log.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

store=$SHM/store mnt=$T/mnt
KEY_DISABLED=12
quick=watch_interval=100ms,watch_retry=100ms,watch_grace=0s
new_volume "$store" -L db

# A new file for each part; the chain goes on in it.
rotated=()
new_log() {
	[ ! -e "$CMEKFS_AUDIT_LOG" ] || {
		rotated+=("$CMEKFS_AUDIT_LOG.${#rotated[@]}")
		mv "$CMEKFS_AUDIT_LOG" "${rotated[-1]}"
	}
}
# count FILTER: events that it lets through, of a line each.
count() { jq -c "select($1)" "$CMEKFS_AUDIT_LOG" 2>/dev/null | wc -l; }
is() { [ "$(count "$1")" -eq "$2" ]; }
# told N FILTER: so many, within a time that no machine needs.
told() { wait_for 60 is "$2" "$1" || fail "$(count "$2") of $2, not $1: $(cat "$CMEKFS_AUDIT_LOG")"; }

say "mounted, locked, unlocked, unmounted"
new_log
start "$store" "$mnt" -o nowatch
told 1 '.event == "volume.mount" and .outcome == "success" and .label == "db" and .program == "cmekfs" and .uid == 0'
told 1 '.event == "kms.call" and .operation == "unwrap" and .outcome == "success" and .slot == 0 and .key == "local:test" and .version == "1" and .duration_ms >= 0'
uuid=$("$CTL" status --json "$mnt" | jq -r .uuid)
is ".event == \"volume.mount\" and .volume == \"$uuid\" and .store == \"$store\" and .mount_point == \"$mnt\"" 1
"$CTL" lock --reason "a test" "$mnt"
told 1 '.event == "volume.locked" and .outcome == "success" and .reason == "a test"'
"$CTL" lock "$mnt" # which is nothing new
"$CTL" key disable local:test
expect_code $KEY_DISABLED "$CTL" unlock "$mnt"
told 1 '.event == "volume.unlocked" and .outcome == "failure" and .error == "key-disabled"'
told 1 '.event == "kms.call" and .operation == "unwrap" and .outcome == "failure" and .error == "key-disabled"'
"$CTL" key enable local:test
"$CTL" unlock "$mnt"
told 1 '.event == "volume.unlocked" and .outcome == "success"'
stop "$store" "$mnt"
told 1 '.event == "volume.unmount" and .outcome == "success" and .label == "db"'
told 1 '.event == "volume.locked"'

say "not mounted, and killed"
new_log
"$CTL" key disable local:test
expect_code $KEY_DISABLED "$CMEKFS" "$store" "$mnt"
told 1 '.event == "volume.mount" and .outcome == "failure" and .error == "key-disabled"'
"$CTL" key enable local:test
start "$store" "$mnt" -o nowatch
kill -KILL "$(storage_pid "$store")"
wait_for 60 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
told 1 '.event == "volume.unmount" and .outcome == "failure"'

say "the key watch"
new_log
start "$store" "$mnt" -o "$quick,watch_on_pending_deletion=read-only"
"$CTL" key rotate local:test
told 1 '.event == "key.new-version" and .slot == 0 and .key == "local:test" and .version == "2"'
"$CTL" key disable local:test
told 1 '.event == "watch.state" and .was == "healthy" and .state == "disabled"'
told 1 '.event == "key.state" and .slot == 0 and .key == "local:test" and .state == "disabled"'
told 1 '.event == "volume.locked" and .reason == "key watch: disabled"'
"$CTL" key enable local:test
told 1 '.event == "volume.unlocked" and .outcome == "success"'
"$CTL" key schedule-deletion --days 3 local:test
told 1 '.event == "volume.read-only" and .reason == "key watch: pending-deletion"'
# Which leaves it disabled until it is enabled: however long that takes, it locks nothing now.
"$CTL" watch "$mnt" on_disabled=read-only >/dev/null
"$CTL" key cancel-deletion local:test
"$CTL" key enable local:test
told 1 '.event == "volume.read-write"'
stop "$store" "$mnt"

say "stored bytes that fail authentication: by inode and stored name, so many a minute"
new_log
start "$store" "$mnt" -o nowatch
mkdir "$mnt/secret-directory"
head -c 400000 /dev/urandom >"$mnt/secret-directory/secret-file"
stop "$store" "$mnt"
stored=$(cd "$store" && find . -path ./.cmekfs -prune -o -type f -size +300k -print | cut -c 3-)
[ -f "$store/$stored" ] || fail "not one stored file"
# A byte of each of the first 60 blocks.
$PYTHON - "$store/$stored" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    for i in range(60):
        f.seek(4096 + i * 4096 + 17)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
END
began=$SECONDS
start "$store" "$mnt" -o nowatch
expect_errno EIO read "$mnt/secret-directory/secret-file"
inode=$(stat -c %i "$store/$stored")
wait_for 60 jq -e -s "any(.event == \"data.unauthentic\")" "$CMEKFS_AUDIT_LOG" >/dev/null || fail "not told"
first=$(jq -c 'select(.event == "data.unauthentic")' "$CMEKFS_AUDIT_LOG" | head -n 1)
jq -e ".inode == $inode and .stored == \"$stored\" and .error == \"tampered\" and .reason == \"read\" and .offset % 4096 == 0" \
	<<<"$first" >/dev/null || fail "$first"
for ((i = 0; i < 60; i++)); do
	if dd if="$mnt/secret-directory/secret-file" of=/dev/null bs=4096 skip="$i" count=1 iflag=direct 2>/dev/null; then
		fail "block $i was read"
	fi
done
stop "$store" "$mnt"
# Ten in each minute that has begun, and one about what was left out at last.
most=$(((((SECONDS - began) / 60) + 2) * 10 + 1))
n=$(count '.event == "data.unauthentic"')
[ "$n" -le "$most" ] || fail "$n events, not $most"
jq -e -s 'map(select(.event == "data.unauthentic") | .left_out // 0) | add > 0' "$CMEKFS_AUDIT_LOG" >/dev/null ||
	fail "nothing is said of what was left out"
if grep -q secret "$CMEKFS_AUDIT_LOG"; then fail "a plain name is in the log"; fi

say "the chain"
expect_code 0 "$CTL" audit verify "${rotated[@]}" "$CMEKFS_AUDIT_LOG"

say "a log that can't be written stops nothing"
export CMEKFS_AUDIT_LOG=$T/nowhere/audit.log
start "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
grep -q "not in the audit log: volume.mount" "$T/mnt.mount.log" || fail "not said: $(cat "$T/mnt.mount.log")"
