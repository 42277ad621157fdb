#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that know what they must hold: write_load.py closed|fsynced DIR LIST | check DIR LIST.

closed: writes files until something fails, and lists each one once close has returned. fsynced: the same with fsync of
file and directory, renames, and appends to a log. check: what is listed is complete; everything else can be read.
"""
import hashlib
import os
import random
import sys

LINE = 16


def content(name, size):
    """Bytes that follow from the name and the size alone."""
    seed = hashlib.sha256(name.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def write(directory, list_path, sync):
    rng = random.Random()
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    # The list is on another file system; one line is one write.
    with open(list_path, "a", encoding="ascii", buffering=1) as listed:
        for n in range(1_000_000):
            size = rng.choice((0, 1, 100, 4096, 4097, 10_000, 100_000, 500_000))
            name = f"{n}-{size}" + ("-" + "n" * 200 if n % 10 == 0 else "")
            if sync and n % 7 == 6:
                sub = os.path.join(directory, f"dir-{n}")
                os.mkdir(sub)
                os.close(os.open(os.path.join(sub, "entry"), os.O_CREAT | os.O_WRONLY))
            fd = os.open("tmp" if sync else name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=dir_fd)
            data = content(name, size)
            for at in range(0, size, 50_000):
                os.write(fd, data[at : at + 50_000])
            if sync:
                os.fsync(fd)
            os.close(fd)
            if sync:
                os.rename("tmp", name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                os.fsync(dir_fd)
                log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644, dir_fd=dir_fd)
                os.write(log, b"%015d\n" % n)
                os.fdatasync(log)
                os.close(log)
            listed.write(f"{name} {size}\n")


def check(directory, list_path):
    with open(list_path, encoding="ascii") as f:
        lines = [line.split() for line in f if line.endswith("\n")]
    wrong = []
    for name, size in lines:
        try:
            with open(os.path.join(directory, name), "rb") as f:
                if f.read() != content(name, int(size)):
                    wrong.append(name + ": content")
        except OSError as e:
            wrong.append(f"{name}: {e.strerror}")
    if os.path.exists(os.path.join(directory, "log")):
        with open(os.path.join(directory, "log"), "rb") as f:
            log = f.read()
        # Each line was acknowledged before the next was written; what a kill cut off may be there or not.
        if log[: len(lines) * LINE] != b"".join(b"%015d\n" % n for n in range(len(lines))):
            wrong.append("log: an acknowledged line is missing")
        if len(log) % LINE or len(log) > (len(lines) + 1) * LINE:
            wrong.append(f"log: {len(log)} bytes for {len(lines)} lines")
    for top, _, names in os.walk(directory, onerror=lambda e: wrong.append(f"{e.filename}: {e.strerror}")):
        for name in names:
            try:
                with open(os.path.join(top, name), "rb") as f:
                    f.read()
            except OSError as e:
                wrong.append(f"{name} (not acknowledged): {e.strerror}")
    for line in wrong[:20]:
        print(line)
    print(f"{len(lines)} files listed, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


command, where, listing = sys.argv[1:]
if command == "check":
    check(where, listing)
else:
    try:
        write(where, listing, command == "fsynced")
    except OSError as e:
        print(f"the writer ends: {e}")
