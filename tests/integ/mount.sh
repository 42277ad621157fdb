#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The processes of a mount: how it starts, what it tells whom, what its processes may do, and every way it can end.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
FAILED=1 USAGE=2 NOT_FOUND=3 MISMATCH=22
new_volume "$store"
mkdir -p "$mnt"

# field PID NAME: of /proc/PID/status.
field() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
# has_device PID: it holds the connection to the kernel.
has_device() { [ -n "$(find "/proc/$1/fd" -lname /dev/fuse 2>/dev/null || true)" ]; }
# The processes of the mount by what they have.
find_processes() {
	# Who writes the audit log is waited for by nobody.
	wait_for 60 have_processes || fail "not four processes: $(fs_pids "$store" | tr '\n' ' ')"
}
have_processes() {
	local pid
	supervisor='' storage='' agent='' auditor=''
	for pid in $(fs_pids "$store"); do
		if ! has_device "$pid" && [ "$(field "$pid" NoNewPrivs)" = 1 ]; then
			auditor=$pid
		elif ! has_device "$pid"; then
			agent=$pid
		elif [ "$(field "$pid" Seccomp)" = 2 ]; then
			storage=$pid
		else
			supervisor=$pid
		fi
	done
	[ -n "$supervisor" ] && [ -n "$storage" ] && [ -n "$agent" ] && [ -n "$auditor" ]
}
# background [OPTION]...: mounts as users do.
background() {
	"$CMEKFS" "$store" "$mnt" "$@" >>"$T/mnt.mount.log" 2>&1 || fail "cmekfs: $(tail -n 3 "$T/mnt.mount.log")"
	mounted "$mnt" || fail "the command succeeded and there is no mount"
	find_processes
}
all_ended() {
	wait_for "${1:-30}" ended "$store" || fail "processes are left: $(fs_pids "$store" | tr '\n' ' ')"
	if mounted "$mnt"; then fail "still mounted"; fi
}

say "options that are refused, by name"
expect_code $USAGE "$CMEKFS" "$store" "$mnt" -o ro,frobnicate
expect_text '"frobnicate"'
expect_code $USAGE "$CMEKFS" "$store"
expect_code $USAGE "$CMEKFS" "$store" "$store"
expect_code $USAGE "$CMEKFS" "$store" "$T/out"
expect_code $NOT_FOUND "$CMEKFS" "$T/nowhere" "$mnt"
expect_code $NOT_FOUND "$CMEKFS" "$store" "$T/nowhere"
mkdir "$T/no-volume"
expect_code $NOT_FOUND "$CMEKFS" "$T/no-volume" "$mnt"
expect_code $NOT_FOUND "$CMEKFS" "$store" "$mnt" -o slot=7
expect_code $MISMATCH "$CMEKFS" "$store" "$mnt" -o key=local:other
expect_text "local:other"
all_ended
expect_code 0 "$CMEKFS" --help
expect_code 0 "$CMEKFS" --version

say "in the background"
background -o key=local:test,commit=1
echo hello >"$mnt/file"
[ "$(cat "$mnt/file")" = hello ]
for pid in $supervisor $storage $agent $auditor; do
	[ "$(readlink "/proc/$pid/cwd")" = / ] || fail "$pid: not in /"
	for fd in 0 1; do
		[ "$(readlink "/proc/$pid/fd/$fd")" = /dev/null ] || fail "$pid: descriptor $fd is not /dev/null"
	done
	[ "$(ps -o tty= -p "$pid" | tr -d ' ')" = '?' ] || fail "$pid: has a terminal"
done
say "what each process may do"
[ "$(field "$storage" NoNewPrivs)" = 1 ] || fail "the storage daemon may gain privileges"
# SYS_ADMIN, SYS_RESOURCE, SYS_PTRACE, NET_*, SYS_MODULE: none of them.
for pid in $storage $agent $auditor; do
	[ $((0x$(field "$pid" CapEff) & 0x1293c00)) -eq 0 ] || fail "$pid: capabilities $(field "$pid" CapEff)"
	[ $((0x$(field "$pid" CapPrm) & 0x1293c00)) -eq 0 ] || fail "$pid: may get capabilities $(field "$pid" CapPrm)"
done
for pid in $agent $auditor $supervisor; do
	[ -z "$(find "/proc/$pid/fd" -lname "$store*")" ] || fail "$pid has the store"
done
setting=/sys/class/bdi/$(mountpoint -d "$mnt")
if [ -w "$setting/read_ahead_kb" ]; then
	[ "$(cat "$setting/read_ahead_kb")" = 1024 ] || fail "readahead is $(cat "$setting/read_ahead_kb") KiB"
fi
stop "$store" "$mnt"

say "nothing that was inherited stays open"
mkfifo "$T/fifo"
cat "$T/fifo" >"$T/fifo.out" &
reader=$!
exec 9>"$T/fifo"
background
exec 9>&-
wait_for 5 bash -c "! kill -0 $reader 2>/dev/null" || fail "a process of the mount keeps the caller's pipe open"
got=$(fs_pids "$store" | wc -l)
[ "$got" -eq 4 ] || fail "$got processes"
stop "$store" "$mnt"

say "the service manager is told"
cat >"$T/notify.py" <<'END'
import os, socket, subprocess, sys
path, *command = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(path)
s.settimeout(20)
p = subprocess.Popen(command, env=dict(os.environ, NOTIFY_SOCKET=path))
text = s.recv(4096).decode()
assert "READY=1" in text.split("\n"), text
if "-f" in command:
    p.terminate()
    text = s.recv(4096).decode()
    assert "STOPPING=1" in text.split("\n"), text
else:
    pid = int(dict(l.split("=", 1) for l in text.split("\n"))["MAINPID"])
    os.kill(pid, 15)
sys.exit(p.wait(20))
END
$PYTHON "$T/notify.py" "$T/notify.1" "$CMEKFS" "$store" "$mnt" -f
all_ended
$PYTHON "$T/notify.py" "$T/notify.2" "$CMEKFS" "$store" "$mnt"
all_ended

say "as mount(8)'s helper"
mkdir -p "$T/sbin"
ln -s "$(command -v "$CMEKFS")" "$T/sbin/mount.cmekfs"
expect_code 0 "$T/sbin/mount.cmekfs" "$store" "$mnt" -f -o rw,noauto
if mounted "$mnt"; then fail "mounted with -f"; fi
expect_code 0 "$T/sbin/mount.cmekfs" "$store" "$mnt" -sn -o "rw,noexec,noatime,_netdev,nofail,x-a=b,fsname=a\\,b"
grep -F " $mnt " /proc/self/mountinfo >"$T/out"
expect_text 'noexec' 'noatime' 'nosuid' 'fuse\.cmekfs' ' a,b ' 'default_permissions' 'allow_other'
stop "$store" "$mnt"

say "other ways to serve"
for options in nowriteback max_threads=1 held_max=1M,map_cache=1M noallow_other allow_root sync; do
	background -o "$options"
	dd if=/dev/urandom of="$T/data" bs=64k count=40 status=none
	cp "$T/data" "$mnt/data"
	cmp "$T/data" "$mnt/data"
	restart_options=$options
	stop "$store" "$mnt"
	background -o "$restart_options"
	cmp "$T/data" "$mnt/data" || fail "$options: other data after a remount"
	ls -l "$mnt" >/dev/null
	rm "$mnt/data"
	expect_errno ENOENT stat "$mnt/data"
	stop "$store" "$mnt"
done

say "suid and sgid go with a write of somebody else, however it is made"
background
cat >"$T/suid.py" <<'END'
import os, sys
def other(action, path):
    pid = os.fork()
    if pid == 0:
        os.setgroups([]); os.setgid(2000); os.setuid(2000)
        action(path)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
actions = {
    "write": lambda p: os.write(os.open(p, os.O_WRONLY), b"y"),
    "append": lambda p: os.write(os.open(p, os.O_WRONLY | os.O_APPEND), b"y"),
    "truncate": lambda p: os.truncate(p, 5),
    "ftruncate": lambda p: os.ftruncate(os.open(p, os.O_WRONLY), 5),
    "open": lambda p: os.open(p, os.O_WRONLY | os.O_TRUNC),
    "creat": lambda p: os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
}
for name, action in actions.items():
    path = os.path.join(sys.argv[1], "suid-" + name)
    with open(path, "w") as f:
        f.write("x" * 100)
    os.chown(path, 1000, 1000)
    os.chmod(path, 0o6777)
    other(action, path)
    mode = os.stat(path).st_mode & 0o7777
    assert mode == 0o777, "%s: %o" % (name, mode)
END
$PYTHON "$T/suid.py" "$mnt"
stop "$store" "$mnt"

say "SIGINT and SIGHUP are as SIGTERM"
for signal in INT HUP TERM; do
	background
	echo "$signal" >"$mnt/signal"
	kill "-$signal" "$supervisor"
	all_ended
	background
	[ "$(cat "$mnt/signal")" = "$signal" ]
	stop "$store" "$mnt"
done

say "a mount in use is detached, and what was written is kept"
background
exec 8>"$mnt/in-use"
head -c 3000000 /dev/zero | tr '\0' a >&8
kill -TERM "$supervisor"
all_ended
exec 8>&-
background
[ "$(tr -d a <"$mnt/in-use" | wc -c)" -eq 0 ] && [ "$(stat -c %s "$mnt/in-use")" -eq 3000000 ] || fail "data was lost"
stop "$store" "$mnt"

say "signals to all processes at once, as a service manager sends them"
background
echo all >"$mnt/signal"
kill -TERM "$agent" "$storage" "$supervisor"
all_ended
background
[ "$(cat "$mnt/signal")" = all ]
stop "$store" "$mnt"

say "a storage daemon that hangs"
background
kill -STOP "$storage"
ls "$mnt/hang" >"$T/hang.out" 2>&1 &
waiting=$!
sleep 0.2
kill -TERM "$supervisor"
sleep 0.5
[ -d "/proc/$supervisor/fd" ] || fail "the supervisor did not wait"
kill -QUIT "$supervisor"
all_ended 15
wait_for 5 bash -c "! kill -0 $waiting 2>/dev/null" || fail "a user of the dead mount hangs"

say "a storage daemon that dies: exit code, ENOTCONN, no hang"
"$CMEKFS" "$store" "$mnt" -f >"$T/foreground.log" 2>&1 &
foreground=$!
wait_for 20 mounted "$mnt" || fail "not mounted"
wait_for 20 [ -e "$mnt/file" ] || fail "no answer"
find_processes
exec 7<"$mnt/file"
kill -KILL "$storage"
code=0
wait $foreground || code=$?
[ $code -eq $FAILED ] || fail "exit code $code"
grep -q "killed by signal 9" "$T/foreground.log" || fail "not said: $(cat "$T/foreground.log")"
# The page cache may still have it; a new request must fail.
if stat -c %s "/proc/self/fd/7/x" 2>/dev/null; then fail "it answers"; fi
exec 7<&-
all_ended

say "an agent that dies is not needed"
background
kill -KILL "$agent"
sleep 0.2
echo still >"$mnt/agent"
stop "$store" "$mnt"

say "a supervisor that dies: the daemon commits and ends"
background -o commit=1h
echo kept >"$mnt/orphan"
kill -KILL "$supervisor"
wait_for 30 ended "$store" || fail "the storage daemon stays alone"
expect_errno ENOTCONN stat "$mnt/orphan"
umount "$mnt"
background
[ "$(cat "$mnt/orphan")" = kept ] || fail "data was lost"
stop "$store" "$mnt"

say "EIO is logged with inode and place, never with a name"
background
head -c 20000 /dev/urandom >"$mnt/a-secret-name"
stop "$store" "$mnt"
victim=$(find "$store" -path "$store/.cmekfs" -prune -o -type f -size +19000c -size -25000c -print)
[ "$(wc -l <<<"$victim")" -eq 1 ] || fail "which file is it: $victim"
head -c 100 /dev/urandom | dd of="$victim" bs=1 seek=$((4096 + 8192 + 5)) conv=notrunc status=none
"$CMEKFS" "$store" "$mnt" -f >"$T/foreground.log" 2>&1 &
foreground=$!
wait_for 20 mounted "$mnt" || fail "not mounted"
wait_for 20 [ -e "$mnt/file" ] || fail "no answer"
expect_errno EIO read "$mnt/a-secret-name"
find_processes
kill -TERM "$supervisor"
wait $foreground || fail "the mount failed"
grep -Eq 'read: inode [0-9]+ \([A-Za-z0-9_-]+\), byte [0-9]+: does not authenticate' "$T/foreground.log" || fail "not said: $(cat "$T/foreground.log")"
if grep -q a-secret-name "$T/foreground.log"; then fail "a name is in the log"; fi
all_ended
