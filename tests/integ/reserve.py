#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store that fills up takes and refuses: reserve.py cached|through MOUNT STORE, reserve.py reads MOUNT CMEKCTL.

Fills the mount by one file, without a sync on the way, until write(2) says ENOSPC, and tries then what else there is.
cached: the kernel keeps what is written. The mount ends up with room again.
"""
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import time

PAGE = 4096


def expect(want, what, function, *args, **kwargs):
    """The function's result, None if it failed as it should."""
    try:
        result, got = function(*args, **kwargs), "OK"
    except OSError as e:
        result, got = None, errno.errorcode[e.errno]
    if got != want:
        sys.exit(f"{what}: {got}, not {want}")
    return result


def block(n, size=8192):
    return (f"block {n:9d} ".encode() * (size // 16 + 1))[:size]


def put(path, flags, data):
    fd = os.open(path, flags, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def set_aside(fd, off, size):
    """fallocate with FALLOC_FL_KEEP_SIZE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 1, ctypes.c_long(off), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def available(path):
    st = os.statvfs(path)
    return st.f_bavail * st.f_frsize


def append(fd, n):
    """Block n: whether it was taken. Attributes that were asked for in between don't make the kernel take it by itself."""
    os.fstat(fd)
    try:
        if os.write(fd, block(n)) != 8192:
            sys.exit("half a block was taken")
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        return False
    return True


def pour(fd, n, refusals):
    """Appends from block n on until it is refused so many times without a break: how many blocks there are then."""
    refused = 0
    while refused < refusals:
        refused = 0 if append(fd, n) else refused + 1
        n += refused == 0
        if n > 100_000:
            sys.exit("the store does not fill up")
    return n


def is_poured(path, n):
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size != n * 8192:
            sys.exit(f"{path}: {os.fstat(f.fileno()).st_size} bytes, not {n} blocks")
        for i in range(n):
            if f.read(8192) != block(i):
                sys.exit(f"{path}: block {i} of {n} is not what was written")


def when_full(top, fd):
    """Only what grows is refused, and a small file may; fd: of one that was refused just now, which may be written again."""
    path = lambda name: os.path.join(top, name)
    for i in range(100):
        expect("OK", "overwrite of a file that has grown", os.pwrite, fd, block(i), i * 8192)
    expect("OK", "fsync of that", os.fsync, fd)
    expect("OK", "a small new file", put, path("small"), os.O_CREAT | os.O_WRONLY, b"x" * 100)
    expect("OK", "that grows", put, path("small"), os.O_APPEND | os.O_WRONLY, b"x" * 100)
    expect("OK", "and is renamed", os.rename, path("small"), path("small2"))
    expect("ENOSPC", "truncate to more", os.truncate, path("table"), 2_000_000)
    table = os.open(path("table"), os.O_RDWR)
    expect("ENOSPC", "fallocate", os.posix_fallocate, table, 0, 3_000_000)
    os.close(table)


def crumbs(top):
    """Small files until there is no room for one more: how many."""
    for n in range(100_000):
        try:
            put(os.path.join(top, f"crumb-{n}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, block(n, 16384))
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            return n
    sys.exit("small files find room for ever")


def when_gone(top):
    """All that is refused when what is kept is half used up, and all that is not."""
    path = lambda name: os.path.join(top, name)
    expect("ENOSPC", "a new file", put, path("new"), os.O_CREAT | os.O_WRONLY, b"x")
    expect("ENOSPC", "mkdir", os.mkdir, path("new"))
    expect("ENOSPC", "symlink", os.symlink, "target", path("new"))
    expect("ENOSPC", "mknod", os.mkfifo, path("new"))
    expect("ENOSPC", "truncate to more", os.truncate, path("table"), 2_000_000)
    expect("ENOENT", "a file that is not there", os.open, path("new"), os.O_WRONLY)
    expect("EEXIST", "O_EXCL", os.open, path("table"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    expect("EEXIST", "mkdir of what is there", os.mkdir, path("table"))
    expect("OK", "open with O_CREAT", put, path("table"), os.O_CREAT | os.O_RDWR, block(7))
    expect("ENOSPC", "append", put, path("table"), os.O_APPEND | os.O_WRONLY, b"x")
    expect("ENOSPC", "write to an empty file", put, path("empty"), os.O_WRONLY, b"x" * 8192)
    fd = os.open(path("table"), os.O_RDWR)
    expect("ENOSPC", "fallocate", os.posix_fallocate, fd, 0, 3_000_000)
    # Nobody but write(2) is refused: readers of the same handle see no error, behind the end neither.
    expect("OK", "pread", os.pread, fd, 10_000, 0)
    expect("OK", "pread over the end", os.pread, fd, 10_000, 999_000)
    expect("OK", "lseek to the end", os.lseek, fd, 0, os.SEEK_END)
    expect("OK", "fstat", os.fstat, fd)
    os.close(fd)
    # A table that is not growing has no need of room.
    fd = os.open(path("other"), os.O_RDWR)
    for i in range(100):
        expect("OK", "overwrite", os.pwrite, fd, block(i), i * 8192 % 90_000)
    expect("OK", "fsync of overwrites", os.fsync, fd)
    os.close(fd)
    expect("OK", "rename", os.rename, path("other"), path("renamed"))
    expect("OK", "link", os.link, path("renamed"), path("other"))
    expect("OK", "unlink", os.unlink, path("renamed"))
    expect("OK", "chmod", os.chmod, path("other"), 0o600)
    expect("OK", "truncate to less", os.truncate, path("table"), 900_000)


def mapped(store, holes, room):
    """Pages that a mapping has made dirty can't be refused: they find the room that is kept, and then the reserve."""
    reserve = os.path.join(store, ".cmekfs/reserve")
    fd = os.open(holes, os.O_RDWR)
    with mmap.mmap(fd, room) as pages:
        for at in range(0, room, PAGE):
            pages[at : at + 16] = block(at, 16)
        expect("OK", "msync of holes", pages.flush)
    expect("OK", "fsync of holes", os.fsync, fd)
    os.close(fd)
    if os.stat(reserve).st_blocks != 0:
        sys.exit(f"the reserve was not used: {os.stat(reserve).st_blocks * 512} bytes, {available(store)} left")
    with open(holes, "rb") as f:
        for at in range(0, room, PAGE):
            f.seek(at)
            if f.read(16) != block(at, 16):
                sys.exit(f"{holes}: what was written at {at} is not there")


def reads(top, ctl):
    """Of files that are new and to be asked for before each write reads ask nothing, and so can't be refused."""

    def asked():
        metrics = subprocess.run([ctl, "metrics", top], capture_output=True, check=True, text=True).stdout
        names = ("cmekfs_request_duration_seconds_count", 'op="getattr"')
        return sum(int(line.split()[-1]) for line in metrics.splitlines() if all(name in line for name in names))

    paths = [os.path.join(top, f"read-{i}") for i in range(50)]
    fds = [os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644) for path in paths]
    before = asked()
    for fd in fds:
        os.write(fd, b"x" * 100)
        os.write(fd, b"x" * 100)
    written = asked()
    for fd in fds:
        expect("OK", "pread behind the end", os.pread, fd, 10, 1000)
        expect("OK", "lseek to the end", os.lseek, fd, 0, os.SEEK_END)
    # None at all: the machine has so little memory that this is still much room.
    if asked() - written > 5:
        sys.exit(f"{written - before} questions for 100 writes, {asked() - written} for 100 reads")
    for fd, path in zip(fds, paths):
        os.close(fd)
        os.unlink(path)


def main():
    if sys.argv[1] == "reads":
        reads(*sys.argv[2:])
        return
    cached, top, store = sys.argv[1] == "cached", sys.argv[2], sys.argv[3]
    exact = subprocess.run(["stat", "-f", "-c", "%T", store], capture_output=True, check=True).stdout != b"btrfs\n"
    reserve = os.path.join(store, ".cmekfs/reserve")
    size = os.stat(reserve).st_size
    if size == 0 or os.stat(reserve).st_blocks * 512 < size:
        sys.exit(f"no reserve: {os.stat(reserve)}")
    if not 0 < available(store) - available(top) < 3 * size + available(store) // 20:
        sys.exit(f"{available(top)} of {available(store)} bytes are said to be available, with a reserve of {size}")
    path = lambda name: os.path.join(top, name)
    for name in ("table", "other"):
        fd = os.open(path(name), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, block(1, 1_000_000))
        os.fsync(fd)
        os.close(fd)
    os.close(os.open(path("empty"), os.O_CREAT | os.O_WRONLY, 0o644))
    aside = os.open(path("aside"), os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(aside, block(0, 65536))
    set_aside(aside, 65536, 2 << 20)
    holes = path("holes")
    os.close(os.open(holes, os.O_CREAT | os.O_WRONLY, 0o644))
    os.truncate(holes, 4 * size)

    fd = os.open(path("poured"), os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o644)
    n = pour(fd, 0, 1)
    if available(top) != 0:
        sys.exit(f"full with {available(top)} bytes available")
    # What was taken is not lost: that is the point.
    expect("OK", "fsync of what was taken", os.fsync, fd)
    # The free space of btrfs is told in steps that are larger than what is between the two states.
    if exact:
        when_full(top, fd)
    n = pour(fd, n, 5)
    expect("OK", "fsync of what was taken in spite of that", os.fsync, fd)
    n_crumbs = crumbs(top)
    if os.stat(reserve).st_blocks * 512 < size:
        sys.exit("the reserve was used for what could be refused")
    expect("OK", "close", os.close, fd)
    when_gone(top)
    for i in range(1, 25):
        expect("OK", "a write to what was set aside behind the end", os.pwrite, aside, block(i, 65536), i * 65536)
        expect("OK", "fsync of that", os.fsync, aside)
    os.close(aside)
    is_poured(path("poured"), n)
    for i in range(n_crumbs):
        with open(path(f"crumb-{i}"), "rb") as f:
            if f.read() != block(i, 16384):
                sys.exit(f"small file {i} of {n_crumbs} is not what was written")
    print(f"{n} blocks and {n_crumbs} small files were taken, and are there")
    if cached:
        mapped(store, holes, size + size // 4)
    os.unlink(holes)
    os.unlink(path("poured"))
    expect("OK", "truncate to more just behind that", os.truncate, path("table"), 2_000_000)
    expect("OK", "a new file just behind that", put, path("early"), os.O_CREAT | os.O_WRONLY, b"x" * 100_000)
    for name in os.listdir(top):
        if name.startswith("crumb-"):
            os.unlink(path(name))
    deadline = time.time() + 20
    while os.stat(reserve).st_blocks * 512 < size or available(top) < 1_000_000:
        if time.time() > deadline:
            sys.exit(f"the reserve is not made again, or the room is not back: {os.stat(reserve)}, {available(top)} bytes")
        time.sleep(0.1)
    expect("OK", "a new file when there is room", put, path("new"), os.O_CREAT | os.O_WRONLY, b"x" * 100_000)
    expect("OK", "an append when there is room", put, path("table"), os.O_APPEND | os.O_WRONLY, b"x" * 100_000)
    expect("OK", "truncate to more when there is room", os.truncate, path("table"), 2_000_000)
    for name in os.listdir(top):
        os.unlink(path(name))


main()
