#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""List a directory tree as `cmekfs_reader.py STORE tree` lists a volume, to compare a mount with its store.

    list_tree.py [--full] DIRECTORY
"""

import argparse
import errno
import hashlib
import os
import stat
import sys

from cmekfs_reader import escape, join, listing_line, xattr_lines


def content_digest(fd):
    digest = hashlib.sha256()
    while data := os.read(fd, 1 << 20):
        digest.update(data)
    return digest.hexdigest()


def xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def lines(dir_fd, name, path, full, seen):
    """Goes by descriptors, as whole paths may be longer than the system takes."""
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    size, target, digest = status.st_size, "", "" if full else None
    fd = None
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    if kind == stat.S_IFREG and full:
        digest = content_digest(fd)
    elif kind == stat.S_IFLNK:
        target = "->" + escape(os.fsencode(os.readlink(name, dir_fd=dir_fd)))
    first = seen.setdefault((status.st_dev, status.st_ino), path)
    if first != path:
        target += "=" + escape(first)
    yield listing_line(path, status, status.st_mtime_ns, size, target, digest)
    if full:
        where = b"/proc/self/fd/%d/%s" % (dir_fd, name)
        yield from xattr_lines(path, xattrs(where))
    if kind == stat.S_IFDIR:
        for entry in sorted(map(os.fsencode, os.listdir(fd))):
            yield from lines(fd, entry, join(path, entry), full, seen)
    if fd is not None:
        os.close(fd)


def main():
    parser = argparse.ArgumentParser(description="List a tree as cmekfs_reader.py lists a volume.")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("directory")
    args = parser.parse_args()
    sys.setrecursionlimit(100000)
    for line in lines(os.open(args.directory, os.O_RDONLY | os.O_DIRECTORY), b".", b"", args.full, {}):
        print(line)


if __name__ == "__main__":
    main()
