#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Locking a mounted volume: what users get, what goes on afterwards, and that nothing that was written is
# lost. (lock_memory.sh looks for what must be gone.)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

store=$SHM/store mnt=$T/mnt
BUSY=5 KEY_DISABLED=12 MISMATCH=22
new_volume "$store" -L db

state() { "$CTL" status --json "$mnt" | jq -r .mount.state; }
# is STATE: the mount's, and statfs works in each.
is() {
	[ "$(state)" = "$1" ] || fail "the state is $(state), not $1"
	stat -f "$mnt" >/dev/null || fail "no statfs while $1"
}
lock() { "$CTL" lock "$@" "$mnt" || fail "lock"; is locked; }
unlock() { "$CTL" unlock "$mnt" || fail "unlock"; is unlocked; }
refused() { expect_errno EKEYREVOKED "$@"; }

say "what users get"
# Nothing is written to the store before its time, so that the lock has to.
start "$store" "$mnt" -o commit=3600
mkdir "$mnt/dir"
echo content >"$mnt/file"
ln -s file "$mnt/link"
ls "$mnt/dir" "$mnt" >/dev/null
readlink "$mnt/link" >/dev/null
exec 5<>"$mnt/open"
echo before >&5
lock --reason "as a test"
expect_code 0 "$CTL" status "$mnt"
expect_text "locked" "as a test"
refused stat "$mnt/file"
refused stat "$mnt"
refused open "$mnt/file"
refused open "$mnt/none"
refused listdir "$mnt"
refused readlink "$mnt/link"
refused mkdir "$mnt/new"
refused unlink "$mnt/file"
if echo during >&5 2>/dev/null; then fail "a write succeeded"; fi
expect_code 0 "$CTL" lock "$mnt" # again is fine
unlock
[ "$(cat "$mnt/file")" = content ]
[ "$(readlink "$mnt/link")" = file ]
echo after >&5
exec 5>&-
[ "$(tr '\n' ' ' <"$mnt/open")" = "before after " ] || fail "an open file did not go on: $(cat "$mnt/open")"
expect_code 0 "$CTL" unlock "$mnt" # again is fine

say "open files, one that is unlinked, a mapped one, and dirty pages of each"
$PYTHON - "$mnt" "$CTL" <<-'END'
	import errno, mmap, os, signal, subprocess, sys
	mnt, ctl = sys.argv[1:]
	def ctl_do(what):
	    subprocess.run([ctl, what, mnt], check=True)
	def refused(what):
	    try:
	        what()
	    except OSError as error:
	        assert error.errno == errno.EKEYREVOKED, error
	    else:
	        raise AssertionError("it was served")
	size = 1 << 20
	data = os.urandom(size)
	files = []
	for i in range(20):
	    fd = os.open(f"{mnt}/many-{i}", os.O_RDWR | os.O_CREAT)
	    os.write(fd, data)
	    files.append(fd)
	gone = os.open(f"{mnt}/gone", os.O_RDWR | os.O_CREAT)
	os.write(gone, data)
	os.unlink(f"{mnt}/gone")
	mapped = os.open(f"{mnt}/mapped", os.O_RDWR | os.O_CREAT)
	os.ftruncate(mapped, size)
	view = mmap.mmap(mapped, size)
	view[:] = data
	ctl_do("lock")
	for fd in files + [gone]:
	    refused(lambda: os.pread(fd, 100, 0))
	    refused(lambda: os.pwrite(fd, b"x" * 4096, 0))   # a whole page: no read is needed for it
	    refused(lambda: os.fstat(fd))
	refused(lambda: os.ftruncate(mapped, 0))
	# A look at a mapped page is SIGBUS.
	child = os.fork()
	if child == 0:
	    view[0]
	    os._exit(0)
	status = os.waitpid(child, 0)[1]
	assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
	ctl_do("unlock")
	for fd in files + [gone]:
	    assert os.pread(fd, size + 1, 0) == data
	    os.fsync(fd)
	assert view[:] == data
	view[0:4] = b"more"
	view.flush()
	os.pwrite(gone, b"more", 0)
	assert os.pread(gone, 4, 0) == b"more" == os.pread(mapped, 4, 0)
END

say "a key that is not given"
"$CTL" key disable local:test
lock
expect_code $KEY_DISABLED "$CTL" unlock "$mnt"
is locked
refused stat "$mnt/file"
"$CTL" key enable local:test
unlock

say "a header that was put back, or is another volume's"
mkdir "$T/header"
cp "$store/.cmekfs/header.0" "$store/.cmekfs/header.1" "$T/header/"
"$CTL" key rotate local:test >/dev/null
"$CTL" rewrap "$mnt" >/dev/null
lock
unlock
lock
cp "$store/.cmekfs/header.0" "$T/header.new"
cp "$T/header/"* "$store/.cmekfs/"
expect_code $MISMATCH "$CTL" unlock "$mnt"
expect_text "put back to an older one"
new_volume "$T/other"
cp "$T/other/.cmekfs/header."? "$store/.cmekfs/"
expect_code $MISMATCH "$CTL" unlock "$mnt"
expect_text "another volume"
is locked
cp "$T/header.new" "$store/.cmekfs/header.0"
cp "$T/header.new" "$store/.cmekfs/header.1"
unlock

say "unmounted while locked, and killed"
echo "written before" >"$mnt/late"
lock
stop "$store" "$mnt"
start "$store" "$mnt" -o commit=3600
if grep -q "replayed" "$T/mnt.mount.log"; then fail "a locked volume was unmounted and left something to replay"; fi
[ "$(cat "$mnt/late")" = "written before" ] || fail "what was written before the lock is lost"
echo "written after" >"$mnt/late"
lock
kill -KILL "$(storage_pid "$store")"
wait_for 30 ended "$store" || fail "processes are left"
wait "${mount_pid[$mnt]}" || true
unset "mount_pid[$mnt]"
start "$store" "$mnt"
[ "$(cat "$mnt/late")" = "written after" ] || fail "what was written before the lock is lost when the daemon dies"

say "writers without pause, again and again"
$PYTHON "$HERE/lock_load.py" "$mnt" "$CTL" "$([ "$LONG" = 1 ] && echo 300 || echo 6)"
stop "$store" "$mnt"

say "read-only, and without a journal"
start "$store" "$mnt" -o ro
lock
refused open "$mnt/file"
unlock
[ "$(cat "$mnt/file")" = content ]
stop "$store" "$mnt"
start "$store" "$mnt" -o nojournal,nowriteback,commit=3600
echo nojournal >"$mnt/other"
lock
refused open "$mnt/other"
unlock
[ "$(cat "$mnt/other")" = nojournal ]
stop "$store" "$mnt"

# A store that does not answer: the command ends all the same, nothing is lost, and the lock comes with the store.
has_state() { [ "$(state)" = "$1" ]; }
frozen() {
	need fsfreeze
	mkimage ext4 64M "$T/disk"
	new_volume "$T/disk/store"
	trap 'fsfreeze -u "$T/disk" 2>/dev/null || true' EXIT
	start "$T/disk/store" "$mnt" -o nowatch,commit=3600
	say "a store that hangs under what was written"
	echo content >"$mnt/file"
	fsfreeze -f "$T/disk"
	expect_code $BUSY "$CTL" lock --timeout 1 "$mnt"
	expect_text "still in memory"
	is draining
	refused stat "$mnt/file"
	wait_for 60 grep -q "locking goes on: .* the keys are still in memory" "$T/mnt.mount.log" || fail "not in the log"
	fsfreeze -u "$T/disk"
	wait_for 60 has_state locked || fail "it is not locked when the store answers"
	unlock
	[ "$(cat "$mnt/file")" = content ] || fail "what was written is lost"
	stop "$T/disk/store" "$mnt"
	umount "$T/disk"
}
part frozen
