#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files for the test of replay, and damage to a journal.

replay.py write DIR     files in version 1, durable
replay.py change DIR    the same in version 2, durable: overwritten, grown, cut, emptied and written anew, new
replay.py check DIR     version 2, byte for byte
replay.py touch DIR     changes nothing else than one block of one file, durable: a record of its own
replay.py damage FILE   a byte in the last record but one of the newest mount in this journal
"""
import hashlib
import os
import struct
import sys

UNIT = 4096


def pattern(name, version, size):
    out = hashlib.shake_128(f"{name} {version}".encode()).digest(max(size, 1))
    return out[:size]


def version_two():
    files = {
        "overwritten": bytearray(pattern("overwritten", 1, 900_000)),
        "grown": bytearray(pattern("grown", 1, 10_001)) + pattern("grown", 2, 500_000),
        "cut": bytearray(pattern("cut", 1, 123_456)),
        "emptied": bytearray(pattern("emptied", 2, 70_000)),
        "empty": bytearray(),
        "new": bytearray(pattern("new", 2, 20_000)),
        "sparse": bytearray(3_000_000),
    }
    for at in (0, 4096, 77_777, 600_000):
        files["overwritten"][at:at + 5000] = pattern(f"at {at}", 2, 5000)
    files["sparse"][2_500_000:2_500_100] = pattern("sparse", 2, 100)
    return files


def put(path, data, at=0, flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    os.pwrite(fd, data, at)
    os.fsync(fd)
    os.close(fd)


def write(top):
    for name, size in (("overwritten", 900_000), ("grown", 10_001), ("cut", 400_000), ("emptied", 300_000),
                       ("empty", 5000)):
        put(f"{top}/{name}", pattern(name, 1, size))
    put(f"{top}/sparse", b"")


def change(top):
    want = version_two()
    for at in (0, 4096, 77_777, 600_000):
        put(f"{top}/overwritten", pattern(f"at {at}", 2, 5000), at)
    put(f"{top}/grown", pattern("grown", 2, 500_000), 10_001)
    for name, size in (("cut", 123_456), ("empty", 0), ("sparse", 3_000_000)):
        fd = os.open(f"{top}/{name}", os.O_RDWR)
        os.ftruncate(fd, size)
        os.fsync(fd)
        os.close(fd)
    put(f"{top}/sparse", pattern("sparse", 2, 100), 2_500_000)
    put(f"{top}/emptied", want["emptied"], 0, os.O_TRUNC)
    put(f"{top}/new", want["new"])
    fd = os.open(top, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def check(top):
    for name, data in version_two().items():
        path = f"{top}/{name}"
        if os.stat(path).st_size != len(data):
            sys.exit(f"{name}: {os.stat(path).st_size} bytes, not {len(data)}")
        with open(path, "rb") as file:
            got = file.read()
        if got != data:
            at = next(i for i in range(len(data)) if got[i:i + 1] != data[i:i + 1])
            sys.exit(f"{name}: differs at {at}")


def touch(top):
    put(f"{top}/new", version_two()["new"][:4096])


def damage(path):
    """The clear head of a record: magic at 0, number at 40, mount at 56."""
    records = []
    with open(path, "r+b") as file:
        for at in range(2 * UNIT, os.path.getsize(path), UNIT):
            file.seek(at)
            head = file.read(128)
            if head[:8] == b"CMEKREC\n":
                records.append((struct.unpack_from("<Q", head, 40)[0], at, head[56:72]))
        # the mount whose record lies last where it wrote, at the beginning of the ring
        mount = min(records, key=lambda r: r[1])[2]
        ours = sorted(r for r in records if r[2] == mount)
        file.seek(ours[-2][1] + 200)
        byte = file.read(1)[0]
        file.seek(ours[-2][1] + 200)
        file.write(bytes([byte ^ 1]))
    print(f"record {ours[-2][0]} of {ours[0][0]}..{ours[-1][0]}")


if __name__ == "__main__":
    {"write": write, "change": change, "check": check, "touch": touch, "damage": damage}[sys.argv[1]](sys.argv[2])
