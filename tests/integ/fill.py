#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills a file system: fill.py fill DIR LIST [ERRNO] | check DIR LIST.

fill makes DIR/fill and in it files of all sizes, directories and links until nothing of it works any more, and lists
what succeeded (close and fsync included). Every failure must be ENOSPC (or the given errno). check: what is listed is
there and complete.
"""
import errno
import hashlib
import os
import sys


def content(name, size):
    seed = hashlib.sha256(name.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def put(path, name, size):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    error = None
    try:
        data = memoryview(content(name, size))
        while data:
            data = data[os.write(fd, data[:65536]) :]
        os.fsync(fd)
    except OSError as e:
        error = e
    try:
        os.close(fd)
    except OSError as e:
        error = error or e
    if error:
        raise error


def fill(top, listing, expected="ENOSPC"):
    os.mkdir(top)
    failed = dict.fromkeys(("big", "small", "dir", "symlink", "long"), 0)
    with open(listing, "w", encoding="ascii") as listed:
        for n in range(100_000):
            for kind in failed:
                if failed[kind] >= 3:
                    continue
                name = f"{kind}-{n}" + ("n" * 200 if kind == "long" else "")
                path = os.path.join(top, name)
                size = 3_000_000 if kind == "big" else 100_000 // (n % 30 + 1)
                try:
                    if kind == "dir":
                        os.mkdir(path)
                        put(os.path.join(path, "entry"), name, 10)
                        size = 0
                    elif kind == "symlink":
                        os.symlink("t" * (n % 3000 + 1), path)
                        size = n % 3000 + 1
                    else:
                        put(path, name, size)
                    listed.write(f"{kind} {name} {size}\n")
                    failed[kind] = 0
                except OSError as e:
                    if errno.errorcode[e.errno] != expected:
                        sys.exit(f"{name}: {errno.errorcode[e.errno]}, not {expected}")
                    failed[kind] += 1
            # On a store whose directory blocks have room, names can be made for ever.
            if failed["big"] >= 3 and failed["small"] >= 3 and n > 400:
                break
        else:
            sys.exit("the store never fills")
    print(f"full after {n} turns")


def check(top, listing):
    wrong = []
    with open(listing, encoding="ascii") as f:
        for line in f:
            kind, name, size = line.split()
            path = os.path.join(top, name)
            try:
                if kind == "symlink":
                    good = len(os.readlink(path)) == int(size)
                elif kind == "dir":
                    with open(os.path.join(path, "entry"), "rb") as entry:
                        good = entry.read() == content(name, 10)
                else:
                    with open(path, "rb") as data:
                        good = data.read() == content(name, int(size))
                if not good:
                    wrong.append(f"{name}: content")
            except OSError as e:
                wrong.append(f"{name}: {e.strerror}")
    for where, _, names in os.walk(top, onerror=lambda e: wrong.append(f"{e.filename}: {e.strerror}")):
        for name in names:
            path = os.path.join(where, name)
            try:
                if os.path.islink(path):
                    os.readlink(path)
                else:
                    with open(path, "rb") as f:
                        f.read()
            except OSError as e:
                wrong.append(f"{name} (had failed): {e.strerror}")
    for line in wrong[:20]:
        print(line)
    sys.exit(1 if wrong else 0)


if sys.argv[1] == "fill":
    fill(os.path.join(sys.argv[2], "fill"), *sys.argv[3:])
else:
    check(os.path.join(sys.argv[2], "fill"), sys.argv[3])
