#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes suid, sgid and capabilities from a file, beside a plain directory: privs.py PLAIN MOUNT [nowriteback]"""
import ctypes
import itertools
import mmap
import os
import stat
import struct
import sys

PLAIN, MOUNT = sys.argv[1:3]
NOWRITEBACK = sys.argv[3:] == ["nowriteback"]
OWNER, MEMBER, OTHER = 1000, 1001, 1002
GROUP = 2000
SIZE = 16384
CAP = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, off, length):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def opened(path, flags, act):
    fd = os.open(path, flags)
    try:
        act(fd)
    finally:
        os.close(fd)


def write_direct(path):
    page = mmap.mmap(-1, 4096)
    page.write(b"d" * 4096)
    opened(path, os.O_WRONLY | os.O_DIRECT, lambda fd: os.pwritev(fd, [page], 0))


def write_mapped(path):
    def act(fd):
        with mmap.mmap(fd, SIZE) as m:
            m[0] = 65
            m.flush()
    opened(path, os.O_RDWR, act)


ACTIONS = {
    "write": lambda p: opened(p, os.O_WRONLY, lambda fd: os.pwrite(fd, b"w", 0)),
    "write_sync": lambda p: opened(p, os.O_WRONLY | os.O_DSYNC, lambda fd: os.pwrite(fd, b"w", 0)),
    "write_twice": lambda p: opened(p, os.O_WRONLY, lambda fd: (os.pwrite(fd, b"w", 0), os.pwrite(fd, b"v", 5))),
    "append": lambda p: opened(p, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"a")),
    "write_direct": write_direct,
    "write_mapped": write_mapped,
    "truncate": lambda p: os.truncate(p, 100),
    "truncate_longer": lambda p: os.truncate(p, 100000),
    "ftruncate": lambda p: opened(p, os.O_WRONLY, lambda fd: os.ftruncate(fd, 7)),
    "open_trunc": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
    "create_trunc": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
    "allocate": lambda p: opened(p, os.O_WRONLY, lambda fd: fallocate(fd, 0, 0, 50000)),
    "punch": lambda p: opened(p, os.O_WRONLY, lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 4096)),
    "zero": lambda p: opened(p, os.O_WRONLY, lambda fd: fallocate(fd, ZERO_RANGE, 0, 4096)),
    "copy_range": lambda p: opened(p, os.O_RDWR, lambda fd: os.copy_file_range(fd, fd, 4096, 0, 8192)),
    "chown_nothing": lambda p: os.chown(p, -1, -1),
    "chown_group": lambda p: os.chown(p, -1, GROUP),
    "chown_user": lambda p: os.chown(p, OTHER, -1),
    "chmod": lambda p: os.chmod(p, 0o6711),
    "utime": lambda p: os.utime(p, (1, 1)),
    "read": lambda p: opened(p, os.O_RDONLY, lambda fd: os.pread(fd, 1, 0)),
}
USERS = {"root": (0, 0, []), "owner": (OWNER, GROUP, []), "member": (MEMBER, MEMBER, [GROUP]), "other": (OTHER, OTHER, [])}
MODES = (0o6777, 0o4777, 0o2777, 0o2767, 0o6666, 0o777)


def as_user(user, act):
    uid, gid, groups = USERS[user]
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            act()
            code = 0
        except OSError as e:
            code = e.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state(path):
    st = os.stat(path)
    return oct(stat.S_IMODE(st.st_mode)), "security.capability" in os.listxattr(path)


def run(base, name, action, user, mode, caps):
    path = os.path.join(base, name)
    with open(path, "wb") as f:
        f.write(bytes(SIZE))
    os.chown(path, OWNER, GROUP)
    os.chmod(path, mode)
    if caps:
        os.setxattr(path, "security.capability", CAP)
    before = state(path)
    code = as_user(user, lambda: ACTIONS[action](path))
    return before, code, state(path)


def known(action, got, want):
    """The differences that doc/posix.md tells of."""
    stricter = got[1] == want[1] and got[2] == (want[2][0], False)
    if action == "write_mapped":    # its pages take the capability along when they get to the store
        return stricter
    if action == "chown_nothing":   # FUSE takes the capability before it asks; without its writeback cache it asks nothing
        return NOWRITEBACK or (want[1] != 0 and stricter)
    return False


def main():
    different = 0
    cases = list(itertools.product(ACTIONS, USERS, MODES, (False, True)))
    for n, (action, user, mode, caps) in enumerate(cases):
        want = run(PLAIN, f"f{n}", action, user, mode, caps)
        got = run(MOUNT, f"f{n}", action, user, mode, caps)
        if got != want and not known(action, got, want):
            different += 1
            print(f"{action} by {user}, {oct(mode)}{' with a capability' if caps else ''}: {got}, not {want}")
    # Setting a capability is not undone by what was written before it.
    for base in (PLAIN, MOUNT):
        with open(os.path.join(base, "late"), "wb") as f:
            f.write(bytes(SIZE))
        os.setxattr(os.path.join(base, "late"), "security.capability", CAP)
    os.sync()
    print(f"{len(cases)} cases, {different} differences")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
