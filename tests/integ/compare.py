#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random operations of all kinds on a mount and on a plain directory of its store's file system: the same results.

compare.py ops MOUNT PLAIN SEED OPERATIONS   does them, in MOUNT/laneN and PLAIN/laneN
compare.py tree MOUNT PLAIN                  compares what is there: data, modes, owners, times, links, targets

Two lanes run side by side, each in a directory of its own that is the root of all its paths (chroot: no symlink leads
out). In a lane several processes with different owners, groups and umasks do one operation each in turn, on descriptors
of their own and on each other's files; each has a twin that does the same in the plain directory. What a call returns,
or its errno, must be the same. A seed repeats the operations of a run. Operations that the file system of the mount does
not have at all, and that of the plain directory has, are left out and named at the end.
"""
import collections
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import re
import stat
import sys
import time
import zlib

LANES = 2
ENTRIES_MAX = 160
SLOTS = 4
GROUP = 96 * 4096
FILE_MAX = 4 * GROUP
# uid, gid, groups, umask: root, two users who share a group, one of them of many groups.
ACTORS = ((0, 0, (), 0o022), (4001, 4001, (4001, 4003), 0o002), (4002, 4002, (4003, 4004, 4005), 0o077))
GIDS = (0, 4001, 4002, 4003, 4004, 5000)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x100, 0x1000, 0x400
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
SEEK_DATA, SEEK_HOLE = 3, 4
# Allocate, and keep the size; punch; zero, and keep the size; collapse, insert.
FALLOCATE_MODES = (0, 1, 3, 0x10, 0x11, 8, 0x20)
# Operations with modes that a file system may have or not, and which argument that is.
MODES_OF = {"fallocate": 2, "rename": 3}
libc = ctypes.CDLL(None, use_errno=True)


# How often the inode is looked at after an operation; all the time finds the one that made the difference.
LOOKS = float(os.environ.get("CMEK_LOOKS", "0.2"))
# XFS has short ones only, a mount on it has not.
LONG_TARGETS = "symlinks to more than 1023 bytes"


def now_or(ns):
    """Times that a test set are compared, those that are the clock's are only told apart from them."""
    return "now" if abs(ns - time.time_ns()) < 86400 * 10**9 else ns


def describe(st):
    """What must be the same of an inode."""
    what = [oct(st.st_mode), st.st_nlink, st.st_uid, st.st_gid, st.st_rdev]
    if not stat.S_ISDIR(st.st_mode):
        what.append(st.st_size)  # a directory's is the file system's own business
    removed = stat.S_ISDIR(st.st_mode) and st.st_nlink == 0  # its id went before it, which moved its times
    if (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode)) and not removed:
        # The kernel does not tell a FUSE file system that a fifo or a device was written to.
        what += [now_or(st.st_mtime_ns), now_or(st.st_atime_ns)]
    return what


def check(result):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


def unsupported_by(top):
    """The operations that this file system says it does not have."""
    path = os.path.join(top, "probe")
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.write(fd, bytes(8192))
    probes = {
        "setxattr": lambda: os.setxattr(path, "user.probe", b""),
        "tmpfile": lambda: os.close(os.open(top, os.O_RDWR | os.O_TMPFILE, 0o600)),
        "mknod": lambda: os.mkfifo(path + "2"),
        "rename 1": lambda: check(libc.renameat2(AT_FDCWD, path.encode(), AT_FDCWD, path.encode() + b"3", 1)),
        "rename 2": lambda: check(libc.renameat2(AT_FDCWD, path.encode() + b"3", AT_FDCWD, path.encode() + b"3", 2)),
    }
    for mode in FALLOCATE_MODES:
        args = fd, mode, ctypes.c_long(0), ctypes.c_long(4096)
        probes[f"fallocate {mode}"] = lambda args=args: check(libc.fallocate(*args))
    missing = set()
    for name, probe in probes.items():
        try:
            probe()
        except OSError as e:
            if e.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                missing.add(name)
    try:
        os.symlink("x" * 4095, path + "4")
    except OSError:
        missing.add(LONG_TARGETS)
    os.close(fd)
    for name in (path, path + "2", path + "3", path + "4"):
        if os.path.lexists(name):
            os.unlink(name)
    if "setxattr" in missing:
        missing |= {"getxattr", "listxattr", "removexattr"}
    return missing


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


class Actor:
    """One process of one side: does operations, and says what came of them."""

    def __init__(self, root, who):
        uid, gid, groups, umask = who
        self.slots = [-1] * SLOTS
        self.room = mmap.mmap(-1, 1 << 20)
        os.chroot(root)
        os.chdir("/")
        os.umask(umask)
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def serve(self, pipe):
        while True:
            op = pipe.recv()
            if op is None:
                break
            try:
                result = getattr(self, op[0])(*op[1:])
            except OSError as e:
                result = errno.errorcode[e.errno]
            except ValueError as e:
                result = str(e)
            pipe.send(result)

    # Descriptors.

    def open(self, slot, path, flags, mode):
        if self.slots[slot] >= 0:
            os.close(self.slots[slot])
            self.slots[slot] = -1
        self.slots[slot] = os.open(path, flags, mode)
        return "opened"

    def close(self, slot):
        fd, self.slots[slot] = self.slots[slot], -1
        os.close(fd)

    def content(self, size, seed):
        return random.Random(seed).randbytes(size)

    def pwrite(self, slot, off, size, seed):
        return os.pwrite(self.slots[slot], self.content(size, seed), off)

    def write(self, slot, size, seed):
        n = os.write(self.slots[slot], self.content(size, seed))
        return n, os.lseek(self.slots[slot], 0, os.SEEK_CUR)

    def writev(self, slot, sizes, seed):
        return os.writev(self.slots[slot], [self.content(size, seed) for size in sizes])

    def pread(self, slot, off, size):
        data = os.pread(self.slots[slot], size, off)
        return len(data), zlib.crc32(data)

    def direct_write(self, slot, off, size, seed):
        self.room[:size] = self.content(size, seed)
        return os.pwritev(self.slots[slot], [memoryview(self.room)[:size]], off)

    def direct_read(self, slot, off, size):
        n = os.preadv(self.slots[slot], [memoryview(self.room)[:size]], off)
        return n, zlib.crc32(self.room[:n])

    def lseek(self, slot, off, whence):
        if not stat.S_ISREG(os.fstat(self.slots[slot]).st_mode):
            return "positions in directories are the file system's own"
        return os.lseek(self.slots[slot], off, whence)

    def seek_hole(self, slot, off):
        """Where holes are is the file system's business, but what it calls a hole reads as zeros, and ends."""
        fd, st = self.slots[slot], os.fstat(self.slots[slot])
        if not stat.S_ISREG(st.st_mode):
            return "no file"
        position = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            hole = os.lseek(fd, off, SEEK_HOLE)
            if not off <= hole <= st.st_size:
                return f"hole at {hole} of {st.st_size}"
            try:
                data = os.lseek(fd, hole, SEEK_DATA)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                data = st.st_size
        finally:
            os.lseek(fd, position, os.SEEK_SET)
        if any(os.pread(fd, data - hole, hole)):
            return f"data in a hole, {hole} to {data}"
        return "holes are zeros"

    def ftruncate(self, slot, size):
        os.ftruncate(self.slots[slot], size)

    def fsync(self, slot):
        os.fsync(self.slots[slot])

    def fdatasync(self, slot):
        os.fdatasync(self.slots[slot])

    def fstat(self, slot):
        return describe(os.fstat(self.slots[slot]))

    def fchmod(self, slot, mode):
        os.fchmod(self.slots[slot], mode)

    def fchown(self, slot, uid, gid):
        os.fchown(self.slots[slot], uid, gid)

    def futimens(self, slot, atime, mtime):
        os.utime(self.slots[slot], ns=(atime, mtime))

    def fallocate(self, slot, mode, off, size):
        st = os.fstat(self.slots[slot])
        if mode == 3 and stat.S_ISREG(st.st_mode) and off >= st.st_size:
            return "known: a punch behind the end moves no time on btrfs"
        if mode == 3 and os.environ.get("CMEK_STORE_FS") == "btrfs":
            # Nor does one of what is a hole already.
            check(libc.fallocate(self.slots[slot], 1, ctypes.c_long(off), ctypes.c_long(size)))
        check(libc.fallocate(self.slots[slot], mode, ctypes.c_long(off), ctypes.c_long(size)))

    def copy_range(self, slot, off, other, other_off, size):
        done = 0
        while done < size:
            n = os.copy_file_range(self.slots[slot], self.slots[other], size - done, off + done, other_off + done)
            if n == 0:
                break
            done += n
        return done

    def flock(self, slot, how):
        fcntl.flock(self.slots[slot], how | fcntl.LOCK_NB)

    def lockf(self, slot, how, off, size):
        fcntl.lockf(self.slots[slot], how | fcntl.LOCK_NB, size, off)

    def mapped(self, slot, off, size, seed, flush):
        """
        Reads and, with a seed, writes through a mapping; past the end it would be SIGBUS. With nowriteback the kernel sets
        the modification time when it writes the page, not when the user does: there it is made to do that at once.
        """
        st = os.fstat(self.slots[slot])
        end = st.st_size
        if end == 0 or not stat.S_ISREG(st.st_mode):
            return "nothing to map"
        off %= end
        size = min(size, end - off)
        with mmap.mmap(self.slots[slot], end, prot=mmap.PROT_READ | (mmap.PROT_WRITE if seed else 0)) as m:
            old = zlib.crc32(m[off : off + size])
            if seed:
                m[off : off + size] = self.content(size, seed)
                if flush or "CMEK_NOWRITEBACK" in os.environ:
                    m.flush()
        return off, size, old

    def flistdir(self, slot):
        if self.slots[slot] >= 0 and stat.S_ISDIR(os.fstat(self.slots[slot]).st_mode):
            os.lseek(self.slots[slot], 0, os.SEEK_SET)  # btrfs lists what was there at the last rewind
        return sorted(os.listdir(self.slots[slot]))

    # Paths.

    def stat(self, path):
        return describe(os.stat(path))

    def lstat(self, path):
        return describe(os.lstat(path))

    def access(self, path, mode):
        check(libc.access(os.fsencode(path), mode))

    def readdir(self, path):
        with os.scandir(path) as entries:
            return sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries)

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def mknod(self, path, mode, device):
        os.mknod(path, mode, device)

    def symlink(self, target, path):
        os.symlink(target, path)

    def readlink(self, path):
        return os.readlink(path)

    def link(self, path, new, follow):
        os.link(path, new, follow_symlinks=follow)

    def unlink(self, path):
        os.unlink(path)

    def rmdir(self, path):
        os.rmdir(path)

    def rename(self, path, new, flags):
        check(libc.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(new), flags))

    def truncate(self, path, size):
        st = os.stat(path)
        if stat.S_ISREG(st.st_mode) and st.st_size == size:
            return "whether that moves a time is the file system's business"
        os.truncate(path, size)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def chown(self, path, uid, gid, follow):
        os.chown(path, uid, gid, follow_symlinks=follow)

    def utimens(self, path, times, follow):
        ts = (Timespec * 2)(*(Timespec(*t) for t in times)) if times else None
        check(libc.utimensat(AT_FDCWD, os.fsencode(path), ts, 0 if follow else AT_SYMLINK_NOFOLLOW))

    def lacks_xattr(self, path, name, follow):
        """doc/posix.md: trusted.* is stored as user.*, which symlinks and special files can't have."""
        if not name.startswith("trusted."):
            return False
        mode = os.stat(path, follow_symlinks=follow).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    def setxattr(self, path, name, size, seed, flags, follow):
        if self.lacks_xattr(path, name, follow):
            return "known"
        os.setxattr(path, name, self.content(size, seed), flags, follow_symlinks=follow)

    def getxattr(self, path, name, follow):
        if self.lacks_xattr(path, name, follow):
            return "known"
        value = os.getxattr(path, name, follow_symlinks=follow)
        return len(value), zlib.crc32(value)

    def listxattr(self, path, follow):
        names = os.listxattr(path, follow_symlinks=follow)
        return sorted(n for n in names if os.geteuid() == 0 or not n.startswith("trusted."))  # btrfs shows all of them

    def removexattr(self, path, name, follow):
        if self.lacks_xattr(path, name, follow):
            return "known"
        os.removexattr(path, name, follow_symlinks=follow)

    def tmpfile(self, slot, path, mode):
        return self.open(slot, path, os.O_RDWR | os.O_TMPFILE, mode)

    def flink(self, slot, path):
        """Gives a name to an open file, one without any included."""
        source = f"/dev/fd/{self.slots[slot]}".encode()
        if self.slots[slot] < 0:
            raise OSError(errno.EBADF, "no file")
        if os.geteuid() == 0:
            check(libc.linkat(self.slots[slot], b"", AT_FDCWD, os.fsencode(path), AT_EMPTY_PATH))
        else:
            check(libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))


class Pair:
    """The two processes of one actor; do() gives both results."""

    def __init__(self, mount, plain, who):
        self.who = who
        self.pipes, self.processes = [], []
        for root in (mount, plain):
            here, there = multiprocessing.Pipe()
            process = multiprocessing.Process(target=self.run, args=(root, who, there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)
        self.open = [False] * SLOTS

    @staticmethod
    def run(root, who, pipe):
        Actor(root, who).serve(pipe)

    def do(self, op):
        for pipe in self.pipes:
            pipe.send(op)
        return [pipe.recv() for pipe in self.pipes]

    def end(self):
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


LONG_NAMES = ("L" * 175, "M" * 176, "N" * 254, "O" * 255, "\N{SNOWMAN}" * 85)
OWN_NAMES = (".cmekfs", ".cmekfs.dir", "A" * 43 + ".n")
ODD_NAMES = (*OWN_NAMES, "lost+found", "-rf", "a\nb", "a\\b", "\udcff\udcfe", " ", "...", ".nfs1")
SIZES = (0, 1, 10, 100, 511, 512, 3000, 4095, 4096, 4097, 8192, 12_000, 65_536, 150_000)
XATTRS = ("user.a", "user.b", "user." + "x" * 100, "user." + "y" * 250, "trusted.t", "user.")
NODES = (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def shorten(what):
    return re.sub(r"(.{1,5})\1{20,}", r"\1[many]", str(what))


class Lane:
    """Thinks up the operations of one lane."""

    def __init__(self, number, mount, plain, seed, left_out):
        self.rng = random.Random(f"{seed}-{number}")
        self.looks = random.Random(f"{seed}-{number}")
        self.plain = os.path.join(plain, f"lane{number}")
        roots = [os.path.join(top, f"lane{number}") for top in (mount, plain)]
        for root in roots:
            if not os.path.isdir(root):
                os.mkdir(root)
                os.chmod(root, 0o777)
        self.pairs = [Pair(*roots, who) for who in ACTORS]
        self.history = collections.deque(maxlen=int(os.environ.get("CMEK_HISTORY", "60")))
        self.left_out = left_out
        self.count = collections.Counter()
        self.refresh()

    def refresh(self):
        """What is there, by the plain side."""
        self.dirs, self.entries, self.files = ["/"], [], ["/a"]
        for path, dirs, files in os.walk(self.plain):
            dirs.sort()
            at = path[len(self.plain) :] + "/"
            self.dirs += [at + d for d in dirs if not os.path.islink(os.path.join(path, d))]
            self.files += [at + name for name in sorted(files)]
            self.entries += [at + name for name in sorted(dirs + files)]

    # Choices.

    def name(self):
        kind = self.rng.random()
        if kind < 0.8:
            return self.rng.choice("abcdefghijklmnopqrstuvwxyz")
        if kind < 0.92:
            return self.rng.choice(LONG_NAMES) if self.rng.random() < 0.95 else "P" * 256
        return self.rng.choice(ODD_NAMES)

    def new(self):
        """A name in some directory: new, or not."""
        directory = self.rng.choice(self.dirs) if self.rng.random() < 0.95 else self.some()
        if directory.count("/") > 6:
            directory = "/"
        return directory.rstrip("/") + "/" + self.name()

    def some(self):
        """An entry, most often one that is there."""
        kind = self.rng.random()
        if kind < 0.85 and self.entries:
            path = self.rng.choice(self.entries)
        elif kind < 0.93:
            path = self.rng.choice(self.dirs)
        else:
            return self.new()
        if self.rng.random() < 0.04:
            path += self.rng.choice(("/", "/.", "/..", "/x", "/../" + self.name()))
        return path

    def to_open(self, crowded):
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice(self.files)
        return self.new() if kind < 0.8 and not crowded else self.some()

    def offset(self):
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.randrange(20_000)
        if kind < 0.75:
            return max(0, self.rng.randrange(0, 8) * 4096 + self.rng.choice((-1, 0, 1)))
        if kind < 0.9:
            return max(0, self.rng.randrange(0, 4) * GROUP + self.rng.choice((-4097, -1, 0, 1, 4096)))
        return self.rng.randrange(FILE_MAX)

    def size(self):
        return self.rng.choice(SIZES)

    def mode(self):
        """Mostly one that lets work go on."""
        kind = self.rng.random()
        if kind < 0.8:
            return self.rng.choice((0o777, 0o777, 0o777, 0o775, 0o770, 0o666))
        mode = self.rng.randrange(0o10000) if kind < 0.9 else self.rng.choice((0o644, 0o600, 0o755, 0o2775, 0o1777))
        # Whether a write takes setgid from a file that its group can't execute depends on the kernel and file system.
        return mode | (mode >> 7 & 0o10)

    def new_mode(self):
        return self.mode() & ~0o2000  # the umask could take the group's execution from it

    def seed(self):
        return self.rng.randrange(1, 1 << 30)

    def ns(self):
        """A time far from the clock's."""
        edges = (0, 1, 999_999_999, 10**9, -(10**9), 4 * 10**18, 2**31 * 10**9)
        return self.rng.choice((*edges, self.rng.randrange(14 * 10**17)))

    def uid(self):
        return self.rng.choice((-1, 0, 4001, 4002, 5000))

    def follow(self):
        return self.rng.random() < 0.5

    def slot(self, pair):
        """A slot, most often one with a file."""
        used = [i for i in range(SLOTS) if pair.open[i]]
        return self.rng.choice(used) if used and self.rng.random() < 0.99 else self.rng.randrange(SLOTS)

    def flags(self):
        rng = self.rng
        flags = rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_WRONLY)) | os.O_NONBLOCK
        for flag, chance in (
            (os.O_CREAT, 0.5),
            (os.O_EXCL, 0.1),
            (os.O_TRUNC, 0.1),
            (os.O_APPEND, 0.15),
            (os.O_DIRECTORY, 0.04),
            (os.O_NOFOLLOW, 0.1),
            (os.O_SYNC, 0.03),
            (os.O_DSYNC, 0.03),
            (os.O_PATH, 0.03),
            (os.O_NOATIME, 0.05),
        ):
            if rng.random() < chance:
                flags |= flag
        if flags & os.O_DIRECTORY:
            flags &= ~os.O_CREAT  # what that does changed with kernel 6.4
        return flags

    def target(self):
        target = self.any_target()
        return os.fsdecode(os.fsencode(target)[:1023]) if LONG_TARGETS in self.left_out else target

    def any_target(self):
        kind = self.rng.random()
        if kind < 0.5:
            return self.some()
        if kind < 0.7:
            return self.name()
        if kind < 0.8:
            return "../" + self.name()
        if kind < 0.85:
            return self.rng.choice((".", "..", "/", "../..", "", "/nowhere", "./" * 500 + "a"))
        length = self.rng.choice((1, 255, 700, 767, 768, 1000, 1022, 1023, 1024, 2000, 4094, 4095, 4096))
        return ("long/" * 820)[:length]

    # Operations: how often, the name, what draws the arguments.

    def table(self, pair):
        rng = self.rng
        any_slot, slot, some, new = lambda: rng.randrange(SLOTS), lambda: self.slot(pair), self.some, self.new
        offset, size, seed, mode, uid, follow = self.offset, self.size, self.seed, self.mode, self.uid, self.follow
        crowded = len(self.entries) > ENTRIES_MAX
        making, removing = (0, 3) if crowded else (1, 1)
        return (
            (12, "open", lambda: (any_slot(), self.to_open(crowded), self.flags(), self.new_mode())),
            (4, "close", lambda: (slot(),)),
            (10, "pwrite", lambda: (slot(), offset(), size(), seed())),
            (6, "write", lambda: (slot(), size(), seed())),
            (1, "writev", lambda: (slot(), [size() // 4 for _ in range(3)], seed())),
            (10, "pread", lambda: (slot(), offset(), size() * 2)),
            (1, "direct_write", lambda: (slot(), offset() & ~4095, size() & ~4095, seed())),
            (1, "direct_read", lambda: (slot(), offset() & ~4095, 65536)),
            (4, "mapped", lambda: (slot(), offset(), size(), rng.choice((0, seed())), follow())),
            (2, "lseek", lambda: (slot(), rng.choice((0, 5, offset(), -1)), rng.choice((0, 1, 2)))),
            (1, "seek_hole", lambda: (slot(), offset())),
            (3, "ftruncate", lambda: (slot(), rng.choice((0, offset(), offset())))),
            (3, "truncate", lambda: (some(), rng.choice((0, offset(), offset(), -1)))),
            (2, "fallocate", lambda: (slot(), rng.choice(FALLOCATE_MODES), offset(), size())),
            (2, "copy_range", lambda: (slot(), offset(), slot(), offset(), size())),
            (1, "fsync", lambda: (slot(),)),
            (1, "fdatasync", lambda: (slot(),)),
            (5, "fstat", lambda: (slot(),)),
            (5, "stat", lambda: (some(),)),
            (6, "lstat", lambda: (some(),)),
            (2, "access", lambda: (some(), rng.randrange(8))),
            (2, "fchmod", lambda: (slot(), mode())),
            (4, "chmod", lambda: (some(), mode())),
            (2, "fchown", lambda: (slot(), uid(), rng.choice(GIDS))),
            (4, "chown", lambda: (some(), uid(), rng.choice(GIDS), follow())),
            (2, "futimens", lambda: (slot(), self.ns(), self.ns())),
            (4, "utimens", lambda: (some(), rng.choice((None, (self.timespec(), self.timespec()))), follow())),
            (1, "flock", lambda: (slot(), rng.choice((1, 2, 8)))),
            (1, "lockf", lambda: (slot(), rng.choice((1, 2, 8)), rng.randrange(10), rng.randrange(1, 10))),
            (1, "flistdir", lambda: (slot(),)),
            (4, "readdir", lambda: (rng.choice(self.dirs) if rng.random() < 0.9 else some(),)),
            (5 * making, "mkdir", lambda: (new(), mode())),
            (1 * making, "mknod", lambda: (new(), self.new_mode() | rng.choice(NODES), os.makedev(1, 3))),
            (4 * making, "symlink", lambda: (self.target(), new())),
            (3, "readlink", lambda: (some(),)),
            (4 * making, "link", lambda: (some(), new(), follow())),
            (1, "tmpfile", lambda: (any_slot(), rng.choice(self.dirs), self.new_mode())),
            (1 * making, "flink", lambda: (slot(), new())),
            (5 * removing, "unlink", lambda: (some(),)),
            (2 * removing, "rmdir", lambda: (rng.choice(self.dirs) if rng.random() < 0.8 else some(),)),
            (8, "rename", lambda: (some(), rng.choice((new, some))(), rng.choice((0, 0, 0, 0, 0, 1, 2)))),
            (2, "setxattr", lambda: (some(), *self.xattr(), seed(), rng.choice((0, 0, 1, 2)), follow())),
            (2, "getxattr", lambda: (some(), rng.choice(XATTRS), follow())),
            (1, "listxattr", lambda: (some(), follow())),
            (1, "removexattr", lambda: (some(), rng.choice(XATTRS), follow())),
        )

    def xattr(self):
        return self.rng.choice(XATTRS), self.rng.choice((0, 1, 50, 1000))

    def timespec(self):
        if self.rng.random() < 0.3:
            return 0, self.rng.choice((UTIME_NOW, UTIME_OMIT))
        return self.ns() // 10**9, self.rng.choice((0, 1, 999_999_999))

    def step(self, number):
        if number % 64 == 0:
            self.refresh()
        pair = self.rng.choice(self.pairs)
        if number % 128 == 0 and pair.who[0] == 0:
            self.permit(pair)
        table = self.table(pair)
        _, name, draw = self.rng.choices(table, [weight for weight, _, _ in table])[0]
        op = (name, *draw())
        kind = f"{name} {op[MODES_OF[name]]}" if name in MODES_OF else name
        if kind in self.left_out:
            return
        want = self.done(pair, op)
        if self.looks.random() < LOOKS:
            self.look(pair, op)
        self.count[kind, "ok" if not (isinstance(want, str) and want.startswith("E")) else want] += 1
        if op[0] in ("open", "tmpfile"):
            pair.open[op[1]] = want == "opened"
        elif op[0] == "close":
            pair.open[op[1]] = False
        elif op[0] in ("mkdir", "rename", "symlink", "link", "rmdir", "unlink") and want is None:
            self.note(op)

    def permit(self, pair):
        """Modes drift towards what nobody may do: now and then everybody may again."""
        for path in self.dirs:
            self.done(pair, ("chmod", path, 0o777))

    def done(self, pair, op):
        got, want = pair.do(op)
        self.history.append(f"uid {pair.who[0]}: {shorten(op)} -> {shorten(want)}")
        if got != want and (got, want) != ("ENOTEMPTY", "EEXIST"):  # POSIX leaves the choice
            raise AssertionError(f"{got}, and on the plain directory {want}")
        return want

    def look(self, pair, op):
        """What it did to what it was about."""
        if isinstance(op[1], int):
            self.done(pair, ("fstat", op[1]))
        for path in op[1:3]:
            if isinstance(path, str):
                self.done(self.pairs[0], ("stat", path))

    def note(self, op):
        """Keeps the picture near the truth between two refreshes."""
        if op[0] == "mkdir":
            self.dirs.append(op[1])
        if op[0] in ("unlink", "rmdir"):
            self.entries = [e for e in self.entries if e != op[1]]
            self.dirs = [d for d in self.dirs if d != op[1] or d == "/"]
        else:
            self.entries.append(op[1] if op[0] == "mkdir" else op[2])

    def run(self, operations):
        try:
            for number in range(operations):
                self.step(number)
        except Exception as e:  # pylint: disable=broad-except
            print("\n".join(self.history))
            print(f"FAILED: {e}")
            raise
        for pair in self.pairs:
            pair.end()


def run_lane(number, mount, plain, seed, left_out, operations, queue):
    lane = Lane(number, mount, plain, seed, left_out)
    try:
        lane.run(operations)
        queue.put(lane.count)
    except (AssertionError, EOFError, OSError) as e:
        print(f"lane {number}: {e!r}")
        sys.exit(1)


def operations_of(mount, plain, seed, operations):
    missing = unsupported_by(plain)
    left_out = unsupported_by(mount) - missing
    if left_out:
        print("not supported, left out:", ", ".join(sorted(left_out)))
    left_out |= missing & {LONG_TARGETS}
    queue = multiprocessing.Queue()
    lanes = [
        multiprocessing.Process(target=run_lane, args=(number, mount, plain, seed, left_out, operations // LANES, queue))
        for number in range(LANES)
    ]
    for lane in lanes:
        lane.start()
    count = sum((queue.get() for lane in lanes if finished(lane)), collections.Counter())
    if os.environ.get("CMEK_COUNT"):
        for kind, n in sorted(count.items()):
            print(n, *kind)
    if any(lane.exitcode for lane in lanes):
        sys.exit(f"seed {seed}: not the same")


def finished(lane):
    lane.join()
    return lane.exitcode == 0


def xattrs_of(path):
    try:
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise


def survey(top):
    """Everything that is there: path -> what must be the same. Files with several names are told by the first of them."""
    found, first = {}, {}
    for directory, dirs, files in os.walk(top):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(directory, name)
            at, st = path[len(top) :], os.lstat(path)
            first.setdefault(st.st_ino, at)
            what = [describe(st), first[st.st_ino], xattrs_of(path)]
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    what.append(zlib.crc32(f.read()))
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(path))
            found[at] = what
    return found


def compare_trees(mount, plain):
    got, want = survey(mount), survey(plain)
    different = [path for path in sorted(set(got) | set(want)) if not same(got.get(path), want.get(path))]
    for path in different[:20]:
        print(f"{path!r}: {got.get(path)}, and in the plain directory {want.get(path)}")
    if different:
        sys.exit(f"{len(different)} of {len(want)} are not the same")
    print(f"{len(want)} entries are the same")


def same(got, want):
    if got is None or want is None:
        return False
    return all(g == w for i, (g, w) in enumerate(zip(got, want)) if i != 2 or g is not None)


if __name__ == "__main__":
    if sys.argv[1] == "ops":
        operations_of(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        compare_trees(sys.argv[2], sys.argv[3])
