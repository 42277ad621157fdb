#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# However many files the kernel knows, the descriptors of the storage daemon stay bounded; with CMEK_LONG=1 a million of
# them, and the memory that each takes. And what goes on when users have as many files open as there are descriptors.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need_cmekfs

store=$T/store mnt=$T/mnt
[ "$LONG" = 1 ] && n_dirs=500 n_files=2000 || n_dirs=20 n_files=150
new_volume "$store"
start "$store" "$mnt"
pid=$(storage_pid "$store")
resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status"; }
before=$(resident)
$PYTHON - "$mnt" "$n_dirs" "$n_files" <<'END'
import os, sys
top, n_dirs, n_files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for d in range(n_dirs):
    os.mkdir(f"{top}/{d}")
    for i in range(n_files):
        os.mknod(f"{top}/{d}/a-file-with-a-usual-name-{i}.dat")
for d in range(0, n_dirs, 7):
    assert len(os.listdir(f"{top}/{d}")) == n_files
    os.stat(f"{top}/{d}/a-file-with-a-usual-name-{n_files - 1}.dat")
END
descriptors=$(find "/proc/$pid/fd" -type l | wc -l)
say "$((n_dirs * n_files)) files, $descriptors descriptors, $(($(resident) - before)) KiB more memory"
# A directory has one each, of other files there are 256 at most.
[ "$descriptors" -lt $((n_dirs + 400)) ] || fail "too many descriptors"
if [ "$LONG" = 1 ]; then
	[ $((($(resident) - before) * 1024 / (n_dirs * n_files))) -lt 400 ] || fail "a node takes too much memory"
fi
stop "$store" "$mnt"

say "fewer descriptors, by option"
start "$store" "$mnt" -o fd_cache=64,key_cache=64
pid=$(storage_pid "$store")
mkdir "$mnt/many"
$PYTHON - "$mnt/many" <<'END'
import os, sys
for d in range(300):
    os.mkdir(f"{sys.argv[1]}/{d}")
    with open(f"{sys.argv[1]}/{d}/file", "w") as file:
        file.write(str(d))
for d in range(300):
    with open(f"{sys.argv[1]}/{d}/file") as file:
        assert file.read() == str(d)
END
"$CTL" sync "$mnt"
descriptors=$(find "/proc/$pid/fd" -type l | wc -l)
echo "$descriptors descriptors"; [ "$descriptors" -lt 150 ] || fail "$descriptors descriptors"
stop "$store" "$mnt"

say "as many files open as may be: an open is refused, everything else goes on"
store=$SHM/store
new_volume "$store"
ulimit -n 256 # for good, so this is the last part
start "$store" "$mnt"
pid=$(storage_pid "$store")
$PYTHON "$HERE/open_limit.py" "$mnt" "$CTL" "$pid"
[ "$(grep -c "open: refused (ENFILE).*limit of 256" "$mnt.mount.log")" -eq 1 ] || fail "the log does not say how to raise the limit, or not once"
stop "$store" "$mnt"
"$FSCK" -n --data "$store"
