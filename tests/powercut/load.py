# SPDX-License-Identifier: GPL-3.0-or-later
"""
What the workloads share. A workload is a few writers; each takes steps that follow from the seed alone, and after each
step says "ack WRITER STEP". So the checker, which knows the last step that was acknowledged before the cut, knows also
what must be there, and that nothing but the next step can have begun.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import random
import threading
import time

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

# What an image can have against it. All but "weak" are failures: weak is what ext4 allows with data that was never
# synced (zeros, or less of it), and what a target that is strict doesn't.
KINDS = ("unreadable", "torn", "lost", "not_started", "not_mounted", "died", "store", "weak")
FAILURES = KINDS[:-1]
MAX_MESSAGES = 5
XATTR = "user.powercut"

_libc = ctypes.CDLL(None, use_errno=True)


class Settings:
    """What a workload is to do."""

    def __init__(self, seed, seconds, target, fs, found_features):
        self.seed = seed
        self.seconds = seconds
        self.target = target
        self.strict = target.strict
        self.can_punch = "punch" in found_features
        self.has_xattr = "xattr" in found_features
        # XFS takes symbolic links up to 1023 bytes; cmekfs has its own way around that.
        self.max_symlink = 1000 if fs == "xfs" and target.name != "cmekfs" else 2500
        # btrfs: the fsync of the directory that a name moved to leaves the old name until its directory is synced too.
        self.renames_twice = fs == "btrfs"


class Report:
    """What a check found."""

    def __init__(self, strict):
        self.counts = dict.fromkeys(KINDS, 0)
        self.messages = []
        self._strict = strict

    def add(self, kind, message):
        if kind == "weak" and self._strict:
            kind = "torn"
        self.counts[kind] += 1
        if len(self.messages) < MAX_MESSAGES or kind == "died":
            self.messages.append(f"{kind}: {message}")

    def error(self, e, message):
        """An OSError: missing counts as lost, all else as unreadable."""
        kind = "lost" if e.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"
        self.add(kind, f"{message}: {errno.errorcode.get(e.errno, e.errno)}")


class Workload:
    """
    setup() fills a fresh volume; run() is recorded; advance() tells the checker what was acknowledged, never less than
    the time before; check() compares and runs in a process of its own that may hang or die.
    """

    name = ""
    image_mib = 512
    checks_read_only = True  # databases write when they recover

    def __init__(self, settings):
        self.settings = settings

    def setup(self, top):
        raise NotImplementedError

    def run(self, top, mark):
        raise NotImplementedError

    def advance(self, acks):
        raise NotImplementedError

    def check(self, top, report):
        raise NotImplementedError

    def rng(self, *what):
        return random.Random(" ".join(map(str, (self.name, self.settings.seed, *what))))


class Writers(Workload):
    """A workload of threads that each take steps 1, 2, 3 … of their own."""

    writers = 3

    def writer(self, top, number, resources):
        """A function that takes the next step: called until time is over. What is to be closed goes to resources."""
        raise NotImplementedError

    def run(self, top, mark):
        end = time.monotonic() + self.settings.seconds
        failures = []

        def work(number):
            try:
                with contextlib.ExitStack() as resources:
                    take_step = self.writer(top, number, resources)
                    step = 0
                    while time.monotonic() < end and not failures:
                        step += 1
                        take_step(step)
                        mark(f"ack {number} {step}\n")
            except BaseException as e:  # pylint: disable=broad-except
                failures.append(e)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(self.writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


def noise(length, *what):
    """Bytes that nothing compresses, deduplicates or guesses; the same for the same what."""
    return hashlib.shake_128(repr(what).encode()).digest(length)


def punch(fd, offset, length):
    if _libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def open_for(resources, path):
    """Opens for reading and writing, until resources end."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    resources.callback(os.close, fd)
    return fd


def features(directory):
    """What files there can do that not all file systems can: "punch" holes, carry an "xattr"."""
    path = os.path.join(directory, "feature-probe")
    found = []
    with open(path, "w+b") as f:
        f.write(b"x" * 8192)
        f.flush()
        for name, probe in (("punch", lambda: punch(f.fileno(), 0, 4096)),
                            ("xattr", lambda: os.setxattr(f.fileno(), XATTR, b"probe"))):
            try:
                probe()
                found.append(name)
            except OSError as e:
                if e.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
    os.unlink(path)
    return found


def fsync_dir(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def pread_full(fd, length, offset):
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def pwrite_full(fd, data, offset):
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.EIO, "short write")
