#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one test so that nothing of it outlives it: contain.py SECONDS DIR[:DIR...] COMMAND...

Everything the command starts, daemons included, stays a descendant of this process (it is their subreaper), and its
mounts are in a namespace of their own, where no other test's keeps them alive. When the command has ended, or its time
is over, mounts below the given directories are detached, descendants are killed and loop devices with a backing file
below the directories are released. Orphans are reaped as they end: a server that finds its predecessor's pid still
taken does not start. Exit code: the command's; 124 when time was over.
"""
import ctypes
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
import mountns  # pylint: disable=wrong-import-position

PR_SET_CHILD_SUBREAPER = 36


def descendants():
    """All living descendants, children first."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                fields = f.read().rsplit(b")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(pid))
    found, queue = [], [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(0), []):
            found.append(pid)
            queue.append(pid)
    return found


def unescape(text):
    """Mount points in /proc/self/mountinfo have blanks and backslashes as octal."""
    out, i = bytearray(), 0
    while i < len(text):
        if text[i] == 0x5C and i + 3 < len(text):
            out.append(int(text[i + 1 : i + 4], 8))
            i += 4
        else:
            out.append(text[i])
            i += 1
    return bytes(out)


def mounts_below(dirs):
    """(mount point, file system type, device) of each mount below dirs, the last mounted first."""
    found = []
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            left, right = line.split(b" - ", 1)
            fields = left.split()
            point = unescape(fields[4])
            if any(point == d or point.startswith(d + b"/") for d in dirs):
                found.append((point, right.split()[0].decode(), fields[2].decode()))
    return found[::-1]


def abort_fuse(device):
    """Ends a FUSE connection: whoever waits for its daemon gets an error instead of waiting for ever."""
    try:
        with open(f"/sys/fs/fuse/connections/{device.split(':')[1]}/abort", "w", encoding="ascii") as f:
            f.write("1")
    except OSError:
        pass


def release(dirs, leaks):
    for point, fstype, device in mounts_below(dirs):
        leaks.append("mount " + os.fsdecode(point))
        if fstype.startswith("fuse"):
            abort_fuse(device)
        subprocess.run(["umount", "-l", point], check=False)


def reap():
    """{pid: exit code} of the children that have ended."""
    ended = {}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return ended
            code = os.waitstatus_to_exitcode(status)
            ended[pid] = code if code >= 0 else 128 - code
    except ChildProcessError:
        return ended


def run(command, limit):
    """Its exit code; 124 when it takes longer than limit seconds."""
    child = os.posix_spawnp(command[0], command, os.environ, setsid=True,
                            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))  # which Python ignores
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended = reap()
        if child in ended:
            return ended[child]
        time.sleep(0.02)
    return 124


def main():
    limit, dirs, command = float(sys.argv[1]), [os.fsencode(d) for d in sys.argv[2].split(":")], sys.argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mountns.enter()

    def stop(signum, _frame):
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    leaks = []
    code = 1
    try:
        code = run(command, limit)
    finally:
        release(dirs, leaks)
        deadline = time.monotonic() + 10
        while True:
            pids = descendants()
            if not pids or time.monotonic() > deadline:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            reap()
            time.sleep(0.05)
        if pids:
            leaks.append(f"processes {pids} don't end")
        release(dirs, leaks)
        table = subprocess.run(["losetup", "-n", "-O", "NAME,BACK-FILE"], capture_output=True, check=False).stdout
        for row in table.splitlines():
            name, _, back = row.partition(b" ")
            if any(back.strip().startswith(d + b"/") for d in dirs):
                subprocess.run(["losetup", "-d", name], check=False)
    if leaks and code == 0:
        print("left behind: " + ", ".join(leaks), file=sys.stderr)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
