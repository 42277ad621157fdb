#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SQLite in its rollback and WAL modes: the writer is killed, the file system is mounted anew, nothing acknowledged is
# missing and integrity_check is content.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
$PYTHON -c 'import sqlite3' 2>/dev/null || skip "python3 has no sqlite3"

store=$SHM/store mnt=$T/mnt
rounds=$([ "$LONG" = 1 ] && echo 20 || echo 3)

new_volume "$store"
start "$store" "$mnt"
for mode in delete truncate persist wal; do
	for round in $(seq "$rounds"); do
		# A line in the acknowledgement file (outside of the mount) for each commit that has returned.
		$PYTHON "$HERE/sqlite_load.py" write "$mnt/$mode.db" $mode "$T/$mode.ack" &
		writer=$!
		$PYTHON "$HERE/sqlite_load.py" read "$mnt/$mode.db" &
		reader=$!
		sleep "0.$((RANDOM % 6 + 4))"
		kill -9 $writer $reader 2>/dev/null || true
		wait $writer $reader 2>/dev/null || true
		if [ "$((round % 2))" = 1 ]; then restart "$store" "$mnt"; fi
		$PYTHON "$HERE/sqlite_load.py" check "$mnt/$mode.db" "$T/$mode.ack"
	done
	say "$mode: $(wc -l <"$T/$mode.ack") commits in $rounds rounds"
done
stop "$store" "$mnt"
