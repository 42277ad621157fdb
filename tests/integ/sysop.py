#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file operation from a shell script: prints OK, or the name of the errno that it failed with."""
import errno
import os
import sys


def write(path, count, offset="-1"):
    """Writes COUNT bytes (at OFFSET; default: appended), then fsync, then close; the first error counts."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if int(offset) < 0 else 0), 0o644)
    error = None
    try:
        left, off = int(count), max(int(offset), 0)
        while left:
            n = os.pwrite(fd, b"x" * min(left, 1 << 20), off)
            left, off = left - n, off + n
        os.fsync(fd)
    except OSError as e:
        error = e
    try:
        os.close(fd)
    except OSError as e:
        error = error or e
    if error:
        raise error


def read(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


def touch(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


OPERATIONS = {
    "chmod": lambda path, mode: os.chmod(path, int(mode, 8)),
    "fsync": fsync,
    "link": os.link,
    "listdir": os.listdir,
    "mkdir": os.mkdir,
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "read": read,
    "readlink": os.readlink,
    "rename": os.rename,
    "rmdir": os.rmdir,
    "stat": os.lstat,
    "statvfs": os.statvfs,
    "symlink": os.symlink,
    "touch": touch,
    "truncate": lambda path, size: os.truncate(path, int(size)),
    "unlink": os.unlink,
    "write": write,
}

if __name__ == "__main__":
    try:
        OPERATIONS[sys.argv[1]](*sys.argv[2:])
        print("OK")
    except OSError as failure:
        print(errno.errorcode.get(failure.errno, failure.errno))
