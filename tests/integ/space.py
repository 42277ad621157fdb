#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""fallocate, SEEK_DATA and SEEK_HOLE through the kernel: space.py MOUNT [TEST]..."""
import ctypes
import errno
import mmap
import os
import random
import subprocess
import sys
import threading
import unittest

MOUNT = sys.argv[1]
BLOCK = 4096
GROUP = 96 * BLOCK
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, off, length):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def data_ranges(fd):
    ranges, at = [], 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            return ranges
        end = os.lseek(fd, at, os.SEEK_HOLE)
        ranges.append((at, end))
        at = end


def used(path):
    """Bytes in the store; the kernel asks for them anew after a close."""
    os.close(os.open(path, os.O_RDONLY))
    return os.stat(path).st_blocks * 512


class Case(unittest.TestCase):
    def setUp(self):
        self.path = os.path.join(MOUNT, self.id().split(".", 1)[1])
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.addCleanup(os.close, self.fd)

    def fails(self, code, function, *args):
        with self.assertRaises(OSError) as c:
            function(*args)
        self.assertEqual(errno.errorcode[c.exception.errno], errno.errorcode[code])


class Allocate(Case):
    def test_extends(self):
        os.posix_fallocate(self.fd, 0, 10 * BLOCK + 5)
        self.assertEqual(os.fstat(self.fd).st_size, 10 * BLOCK + 5)
        self.assertEqual(os.pread(self.fd, 1 << 20, 0), bytes(10 * BLOCK + 5))
        # real room, at once
        os.posix_fallocate(self.fd, 0, 4 << 20)
        self.assertGreaterEqual(used(self.path), 4 << 20)

    def test_over_dirty_pages(self):
        os.pwrite(self.fd, b"x" * 5000, 0)
        os.posix_fallocate(self.fd, 1000, 1 << 20)
        self.assertEqual(os.pread(self.fd, 2 << 20, 0), b"x" * 5000 + bytes((1 << 20) - 4000))

    def test_keep_size(self):
        os.pwrite(self.fd, b"x" * 100, 0)
        fallocate(self.fd, KEEP_SIZE, 0, 1 << 20)
        self.assertEqual(os.fstat(self.fd).st_size, 100)
        self.assertEqual(os.pread(self.fd, 1 << 20, 0), b"x" * 100)

    def test_errors(self):
        self.fails(errno.EINVAL, fallocate, self.fd, 0, 0, 0)
        self.fails(errno.EINVAL, fallocate, self.fd, 0, -1, 10)
        self.fails(errno.EOPNOTSUPP, fallocate, self.fd, PUNCH_HOLE, 0, 10)
        if os.environ.get("CMEK_FS") != "bind":
            self.fails(errno.EOPNOTSUPP, fallocate, self.fd, COLLAPSE_RANGE, 0, BLOCK)
        self.fails(errno.EFBIG, fallocate, self.fd, 0, (1 << 63) - 10, 10)
        fd = os.open(self.path, os.O_RDONLY)
        self.fails(errno.EBADF, fallocate, fd, 0, 0, 10)
        os.close(fd)


class Punch(Case):
    def test_dirty_and_clean(self):
        data = os.urandom(3 * GROUP)
        for sync in (False, True):
            os.pwrite(self.fd, data, 0)
            if sync:
                os.fsync(self.fd)
            fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, BLOCK - 1, GROUP)
            want = data[:BLOCK - 1] + bytes(GROUP) + data[BLOCK - 1 + GROUP:]
            self.assertEqual(os.pread(self.fd, 3 * GROUP, 0), want)
            os.fsync(self.fd)
            self.assertEqual(os.pread(self.fd, 3 * GROUP, 0), want)

    def test_space(self):
        os.pwrite(self.fd, os.urandom(30 * GROUP), 0)
        os.fsync(self.fd)
        full = used(self.path)
        fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, 0, 30 * GROUP)
        os.fsync(self.fd)
        self.assertLess(used(self.path), full // 10)
        self.assertEqual(os.fstat(self.fd).st_size, 30 * GROUP)

    def test_zero_range(self):
        os.pwrite(self.fd, os.urandom(10 * BLOCK), 0)
        fallocate(self.fd, ZERO_RANGE, BLOCK, 20 * BLOCK)
        self.assertEqual(os.fstat(self.fd).st_size, 21 * BLOCK)
        self.assertEqual(os.pread(self.fd, 20 * BLOCK, BLOCK), bytes(20 * BLOCK))
        fallocate(self.fd, ZERO_RANGE | KEEP_SIZE, 0, 30 * BLOCK)
        self.assertEqual(os.fstat(self.fd).st_size, 21 * BLOCK)
        self.assertEqual(os.pread(self.fd, 1 << 20, 0), bytes(21 * BLOCK))

    def test_beside_writers(self):
        """One block is punched over and over while its neighbours are written."""
        stop = threading.Event()
        wrong = []

        def write(block):
            n = 0
            while not stop.is_set():
                n = (n + 1) % 256
                os.pwrite(self.fd, bytes((n,)) * BLOCK, block * BLOCK)
                if os.pread(self.fd, BLOCK, block * BLOCK) != bytes((n,)) * BLOCK:
                    wrong.append(block)

        threads = [threading.Thread(target=write, args=(b,)) for b in (0, 2)]
        os.pwrite(self.fd, bytes(3 * BLOCK), 0)
        for t in threads:
            t.start()
        for i in range(200):
            os.pwrite(self.fd, b"y" * BLOCK, BLOCK)
            fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, BLOCK, BLOCK)
            if os.pread(self.fd, BLOCK, BLOCK) != bytes(BLOCK):
                wrong.append(1)
            if i % 20 == 0:
                os.fsync(self.fd)
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])


class Seek(Case):
    def test_sees_what_is_dirty(self):
        """Data that only the kernel has is data."""
        want = []
        for i in range(20):
            at = i * 3 * GROUP + i * BLOCK
            os.pwrite(self.fd, b"z" * BLOCK, at)
            want.append((at, at + BLOCK))
            self.assertEqual(os.lseek(self.fd, at, os.SEEK_DATA), at)
        self.assertEqual(data_ranges(self.fd), want)
        self.assertEqual(os.lseek(self.fd, 0, os.SEEK_END), want[-1][1])

    def test_sees_what_is_mapped(self):
        """So is what was changed through a mapping, and not written yet."""
        os.ftruncate(self.fd, 30 * BLOCK)
        with mmap.mmap(self.fd, 30 * BLOCK) as mapped:
            mapped[7 * BLOCK] = mapped[20 * BLOCK + 5] = 1
            self.assertEqual(os.lseek(self.fd, 0, os.SEEK_DATA), 7 * BLOCK)
            self.assertEqual(data_ranges(self.fd), [(7 * BLOCK, 8 * BLOCK), (20 * BLOCK, 21 * BLOCK)])
            mapped[25 * BLOCK] = 1
            self.assertEqual(os.lseek(self.fd, 21 * BLOCK, os.SEEK_DATA), 25 * BLOCK)

    def test_edges(self):
        self.fails(errno.ENXIO, os.lseek, self.fd, 0, os.SEEK_DATA)
        os.ftruncate(self.fd, 10 * BLOCK)
        self.fails(errno.ENXIO, os.lseek, self.fd, 0, os.SEEK_DATA)
        self.assertEqual(os.lseek(self.fd, 7, os.SEEK_HOLE), 7)
        self.fails(errno.ENXIO, os.lseek, self.fd, 10 * BLOCK, os.SEEK_HOLE)
        os.pwrite(self.fd, b"z", 10 * BLOCK)
        self.assertEqual(data_ranges(self.fd), [(10 * BLOCK, 10 * BLOCK + 1)])

    def test_sparse_copy(self):
        """What cp makes of a sparse file beyond 1 TiB is equal, and sparse."""
        copy = self.path + ".copy"
        for at in (0, 1 << 30, (1 << 40) + 12345):
            os.pwrite(self.fd, b"q" * 100000, at)
        os.ftruncate(self.fd, (1 << 40) + (1 << 30))
        subprocess.run(["cp", "--sparse=always", self.path, copy], check=True)
        with open(copy, "rb") as f:
            self.assertEqual(data_ranges(f.fileno()), data_ranges(self.fd))
            for at in (0, 1 << 30, (1 << 40) + 12345):
                f.seek(at)
                self.assertEqual(f.read(100000), b"q" * 100000)
        self.assertLess(used(copy), 64 << 20)
        os.unlink(copy)

    def test_many_at_once(self):
        """More seekers than threads that serve, each with pages to be written."""
        fds = []
        for i in range(40):
            fds.append(os.open(f"{self.path}.{i}", os.O_RDWR | os.O_CREAT, 0o644))

        def work(fd, seed):
            r = random.Random(seed)
            for _ in range(25):
                at = r.randrange(1000) * BLOCK
                os.pwrite(fd, b"m" * BLOCK, at)
                if os.lseek(fd, at, os.SEEK_DATA) != at:
                    wrong.append(at)

        wrong = []
        threads = [threading.Thread(target=work, args=(fd, fd)) for fd in fds]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for fd in fds:
            os.close(fd)
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:])
