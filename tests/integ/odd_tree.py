#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a directory of everything that is odd about names, links, modes, owners and times: odd_tree.py DIR."""
import os
import random
import socket
import sys

# Nanoseconds: before 1970 is left out, not every store has it.
TIMES = [0, 1, 999_999_999, 1_000_000_000_123_456_789, 2_147_483_647_999_999_999, 2_147_483_648_000_000_001]


def put(path, data=b"", mode=0o644, mtime_ns=None):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def names(top):
    os.mkdir(top)
    # Around the length at which the stored name no longer fits (175 bytes), and the longest one.
    for n in (1, 2, 14, 15, 16, 17, 31, 32, 33, 100, 173, 174, 175, 176, 177, 200, 254, 255):
        put(os.path.join(top, b"n" * n), b"%d" % n)
        os.mkdir(os.path.join(top, b"\xc4" * n))
        put(os.path.join(top, b"\xc4" * n, b"\xff" * n), b"%d" % n)
        if n > 1:
            os.symlink(b"n" * n, os.path.join(top, b"L" * n))
    for byte in range(1, 256):
        if byte != ord("/"):
            put(os.path.join(top, b"byte-" + bytes([byte])), bytes([byte]))
            if byte not in b".n\xc4":
                put(os.path.join(top, bytes([byte])), bytes([byte]))
    for name in (
        "...", "..x", ".hidden", "--", "-rf", "-rf *", "  two  blanks  ", "new\nline", "\n\n", "tab\tname", "quote'\"`$(x)",
        "back\\slash", "*?[a-z]{a,b}", "~root", "a.n", "a.l", "CON", ".cmekfs", ".cmekfs.dir", ".cmekfs.conf",
        "gocryptfs.diriv", "lost+found", "Ünïcödé", "日本語", "e\u0301", "\u00e9", "😀" * 63, "\u202egnp.exe",
    ):  # fmt: skip
        put(os.path.join(top, os.fsencode(name)), name.encode())
    put(os.path.join(top, b"not-\xc3\x28-utf8"), b"x")
    deep = top
    for i in range(40):
        deep = os.path.join(deep, b"level %d" % i)
        os.mkdir(deep)
    put(os.path.join(deep, b"bottom"), b"x")


def contents(top):
    os.mkdir(top)
    rng = random.Random(1)
    block, group = 4096, 96 * 4096
    for base in (0, block, 2 * block, 16384, 65536, group, 2 * group):
        for delta in (-1, 0, 1):
            if base + delta >= 0:
                put(os.path.join(top, b"size-%d" % (base + delta)), rng.randbytes(base + delta))
    put(os.path.join(top, b"zeros"), bytes(100_000))
    with open(os.path.join(top, b"sparse"), "wb") as f:
        f.truncate(10_000_000)
        for off in (0, 5_000_000, 9_999_990):
            f.seek(off)
            f.write(b"data here!")
    with open(os.path.join(top, b"only-hole"), "wb") as f:
        f.truncate(1_234_567)


def links(top):
    os.mkdir(top)
    os.mkdir(os.path.join(top, b"other"))
    put(os.path.join(top, b"one"), b"linked")
    for i in range(20):
        os.link(os.path.join(top, b"one"), os.path.join(top, b"other" if i % 2 else b"", b"link-%d" % i))
    os.link(os.path.join(top, b"one"), os.path.join(top, b"x" * 255))
    put(os.path.join(top, b"y" * 255), b"long name, short link")
    os.link(os.path.join(top, b"y" * 255), os.path.join(top, b"y"))
    # Around the lengths at which the stored text no longer fits in one symlink of 1023 or 4095 bytes.
    for n in (1, 2, 100, 255, 729, 730, 731, 732, 1022, 1023, 1024, 3033, 3034, 3035, 4094, 4095):
        target = (b"t" * 200 + b"/") * 20
        try:
            os.symlink(target[:n], os.path.join(top, b"symlink-%d" % n))
        except OSError as e:  # a source directory on XFS takes 1023
            print(f"no symlink of {n} bytes here: {e.strerror}", file=sys.stderr)
    os.symlink(b"/etc/passwd", os.path.join(top, b"absolute"))
    os.symlink(b"../names", os.path.join(top, b"to-a-directory"))
    os.symlink(b"nowhere \n\xff", os.path.join(top, b"dangling"))
    os.symlink(b"loop", os.path.join(top, b"loop"))
    os.link(os.path.join(top, b"dangling"), os.path.join(top, b"second-name-of-a-symlink"), follow_symlinks=False)


def attributes(top):
    os.mkdir(top)
    for mode in (0o000, 0o400, 0o200, 0o100, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777):
        put(os.path.join(top, b"mode-%o" % mode), b"x", mode)
        path = os.path.join(top, b"dir-%o" % mode)
        os.mkdir(path)
        os.chmod(path, mode)
    for i, ns in enumerate(TIMES):
        put(os.path.join(top, b"time-%d" % i), b"x", mtime_ns=ns)
        path = os.path.join(top, b"dirtime-%d" % i)
        os.mkdir(path)
        put(os.path.join(path, b"inside"), b"x")
        os.utime(path, ns=(ns, ns))
        path = os.path.join(top, b"linktime-%d" % i)
        os.symlink(b"x", path)
        os.utime(path, ns=(ns, ns), follow_symlinks=False)
    if os.geteuid() == 0:
        for uid, gid in ((1, 0), (0, 1), (65534, 65534), (1000, 100), (123456, 654321), (4294967294, 4294967294)):
            path = os.path.join(top, b"owner-%d-%d" % (uid, gid))
            put(path, b"x")
            os.chown(path, uid, gid)
            os.chmod(path, 0o6755)  # after chown, which clears it
            os.symlink(b"x", path + b"-link")
            os.lchown(path + b"-link", uid, gid)
            os.mkdir(path + b"-dir")
            os.chown(path + b"-dir", uid, gid)


def special(top):
    os.mkdir(top)
    os.mkfifo(os.path.join(top, b"fifo"))
    os.mkfifo(os.path.join(top, b"f" * 255), 0o600)
    here = os.getcwd()
    os.chdir(top)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(b"socket")
    os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(os.path.join(top, b"null"), 0o020666, os.makedev(1, 3))
        os.mknod(os.path.join(top, b"block"), 0o060600, os.makedev(7, 200))
    os.makedirs(os.path.join(top, b"empty", b"empty"))
    os.mkdir(os.path.join(top, b"many"))
    for i in range(2000):
        put(os.path.join(top, b"many", b"%05d" % i + b"z" * (i % 240)))


if __name__ == "__main__":
    root = os.fsencode(sys.argv[1])
    os.mkdir(root)
    for part in (names, contents, links, attributes, special):
        part(os.path.join(root, part.__name__.encode()))
