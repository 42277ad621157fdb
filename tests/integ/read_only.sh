#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The policy read-only of the key watch: nothing can be changed, everything can be read, what was written before is in
# the store, and it goes on when the key is back.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

store=$SHM/store mnt=$T/mnt
options=watch_interval=100ms,watch_retry=100ms,watch_grace=0s,watch_on_disabled=read-only
new_volume "$store"

is() { [ "$("$CTL" status --json "$mnt" | jq -r "$1")" = "$2" ]; }
becomes() { wait_for 60 is "$1" "$2" || fail "$1 is not $2: $(tail -n 5 "$T/mnt.mount.log")"; }

say "what users get"
start "$store" "$mnt" -o "$options,commit=3600"
mkdir "$mnt/dir"
echo content >"$mnt/file"
echo other >"$mnt/other"
ln -s file "$mnt/link"
touch -d @1000000000 "$mnt/touched"
exec 5<>"$mnt/open" 6>>"$mnt/append"
echo before >&5
echo before >&6
is .mount.read_only false
"$CTL" key disable local:test
becomes .mount.read_only true
is .mount.state unlocked
is .mount.watch.action read-only
is .mount.read_only_reason "key watch: disabled"
expect_code 0 "$CTL" status "$mnt"
expect_text "read-only" "key watch: +disabled"
refused() { expect_errno EROFS "$@"; }
[ "$(cat "$mnt/file")" = content ] && [ "$(readlink "$mnt/link")" = file ] && [ "$(cat "$mnt/open")" = before ]
[ "$(stat -c %Y "$mnt/touched")" = 1000000000 ] || fail "a time has gone"
ls -l "$mnt/dir" "$mnt" >/dev/null
expect_errno OK fsync "$mnt/open"
refused mkdir "$mnt/new"
refused unlink "$mnt/file"
refused rmdir "$mnt/dir"
refused rename "$mnt/file" "$mnt/dir/file"
refused link "$mnt/file" "$mnt/hard"
refused symlink file "$mnt/soft"
refused touch "$mnt/new"
refused truncate "$mnt/file" 1
refused write "$mnt/file" 10
refused chmod "$mnt/file" 600
if touch "$mnt/file" 2>/dev/null; then fail "touched"; fi
if echo during >&5 2>/dev/null || echo during >&6 2>/dev/null; then fail "a write to an open file succeeded"; fi
if setfattr -n user.x -v y "$mnt/file" 2>/dev/null; then fail "an attribute was set"; fi
expect_code 0 "$CTL" lock "$mnt"
is .mount.state locked
"$CTL" key enable local:test
"$CTL" unlock "$mnt"
becomes .mount.read_only false
echo after >&5
echo after >&6
exec 5>&- 6>&-
[ "$(tr '\n' ' ' <"$mnt/open")" = "before after " ] || fail "an open file: $(cat "$mnt/open")"
[ "$(tr '\n' ' ' <"$mnt/append")" = "before after " ] || fail "an open file: $(cat "$mnt/append")"
stop "$store" "$mnt"

say "killed while read-only: all that was written before is there"
start "$store" "$mnt" -o "$options,commit=3600"
echo changed >"$mnt/file"
mkdir "$mnt/later"
echo later >"$mnt/later/file"
"$CTL" key disable local:test
becomes .mount.read_only true
becomes .mount.content.waiting_files 0
kill -KILL "$(storage_pid "$store")"
wait_for 60 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
"$CTL" key enable local:test
start "$store" "$mnt" -o "$options,commit=3600"
[ "$(cat "$mnt/file" "$mnt/later/file" | tr '\n' ' ')" = "changed later " ] || fail "lost: $(cat "$mnt/file")"

say "writers without pause"
$PYTHON "$HERE/read_only.py" "$mnt" "$CTL" local:test 0
$PYTHON "$HERE/read_only.py" "$mnt" "$CTL" local:test 1
stop "$store" "$mnt"
start "$store" "$mnt" -o "$options,nojournal,nowriteback,commit=3600"
$PYTHON "$HERE/read_only.py" "$mnt" "$CTL" local:test 0
stop "$store" "$mnt"
