#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file operation and its failures: basic_ops.py MOUNT BLOCK_SIZE [TEST]..."""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import resource
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import unittest

MOUNT = sys.argv[1]
BLOCK = int(sys.argv[2])
GROUP = 96 * BLOCK
NOBODY = 65534
LONG_NAMES = ("short", "m" * 175, "l" * 176, "x" * 255)
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def utimensat(path, atime, mtime):
    """atime, mtime: (seconds, nanoseconds)."""
    if libc.utimensat(AT_FDCWD, os.fsencode(path), struct.pack("qqqq", *atime, *mtime), 0):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16), ("type", ctypes.c_uint8),
                ("name", ctypes.c_char * 256)]


class Listing:
    """opendir(3) and what goes with it."""

    def __init__(self, path):
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.restype = ctypes.POINTER(Dirent)
        libc.telldir.restype = ctypes.c_long
        self.dir = ctypes.c_void_p(libc.opendir(os.fsencode(path)))

    def tell(self):
        return libc.telldir(self.dir)

    def seek(self, place):
        libc.seekdir(self.dir, ctypes.c_long(place))

    def next(self):
        """A name; None at the end."""
        entry = libc.readdir64(self.dir)
        return entry.contents.name.decode() if entry else None

    def close(self):
        libc.closedir(self.dir)


def put(path, data=b""):
    with open(path, "wb") as f:
        f.write(data)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def as_user(uid, function):
    """Runs function in a child as this user, without groups; its OSError's errno, or 0."""
    pid = os.fork()
    if pid == 0:
        code = 200
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            function()
            code = 0
        except OSError as e:
            code = e.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = os.path.join(MOUNT, self.id().split(".", 1)[1])
        os.mkdir(self.dir)
        os.chmod(self.dir, 0o777)

    def p(self, *names):
        return os.path.join(self.dir, *names)

    def fails(self, code, function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except OSError as e:
            self.assertEqual(errno.errorcode[e.errno], errno.errorcode[code])
            return
        self.fail(f"succeeded, {errno.errorcode[code]} was expected")


class Open(Case):
    def test_errors(self):
        put(self.p("f"), b"x")
        os.mkdir(self.p("d"))
        os.symlink("f", self.p("l"))
        os.symlink("loop", self.p("loop"))
        self.fails(errno.ENOENT, os.open, self.p("none"), os.O_RDONLY)
        self.fails(errno.ENOENT, os.open, self.p("none", "f"), os.O_CREAT | os.O_WRONLY)
        self.fails(errno.ENOTDIR, os.open, self.p("f", "f"), os.O_CREAT | os.O_WRONLY)
        self.fails(errno.ENOTDIR, os.open, self.p("f"), os.O_DIRECTORY)
        self.fails(errno.EISDIR, os.open, self.p("d"), os.O_RDWR)
        self.fails(errno.EISDIR, os.open, self.p("d"), os.O_CREAT | os.O_RDWR)
        self.fails(errno.EEXIST, os.open, self.p("f"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        self.fails(errno.EEXIST, os.open, self.p("l"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        self.fails(errno.ELOOP, os.open, self.p("l"), os.O_NOFOLLOW)
        self.fails(errno.ELOOP, os.open, self.p("loop"), os.O_RDONLY)
        self.fails(errno.EEXIST, os.mkdir, self.p("f"))
        self.fails(errno.EEXIST, os.mkdir, self.p("d"))
        self.fails(errno.EEXIST, os.symlink, "x", self.p("f"))
        self.fails(errno.EINVAL, os.readlink, self.p("f"))
        self.fails(errno.ENOTDIR, os.listdir, self.p("f"))

    def test_names_too_long(self):
        long = "x" * 256
        put(self.p("f"))
        for function, args in (
            (os.open, (self.p(long), os.O_CREAT | os.O_WRONLY)),
            (os.open, (self.p(long), os.O_RDONLY)),
            (os.lstat, (self.p(long),)),
            (os.mkdir, (self.p(long),)),
            (os.mkfifo, (self.p(long),)),
            (os.symlink, ("x", self.p(long))),
            (os.link, (self.p("f"), self.p(long))),
            (os.rename, (self.p("f"), self.p(long))),
            (os.rename, (self.p(long), self.p("f"))),
            (os.unlink, (self.p(long),)),
            (os.rmdir, (self.p(long),)),
            (os.symlink, ("t" * 4096, self.p("s"))),
        ):
            self.fails(errno.ENAMETOOLONG, function, *args)
        self.assertEqual(os.listdir(self.dir), ["f"])

    def test_append(self):
        fds = [os.open(self.p("f"), os.O_CREAT | os.O_APPEND | os.O_RDWR) for _ in range(3)]
        want = b""
        for i in range(3000):
            piece = b"%d:%s\n" % (i, b"x" * (i % 50))
            self.assertEqual(os.write(fds[i % 3], piece), len(piece))
            want += piece
        self.assertEqual(os.pread(fds[0], len(want) + 1, 0), want)
        for fd in fds:
            os.close(fd)
        self.assertEqual(get(self.p("f")), want)

    def test_append_from_processes(self):
        """Appends of several processes don't overwrite each other."""
        code = "import os,sys\nfd=os.open(sys.argv[1],os.O_CREAT|os.O_APPEND|os.O_WRONLY)\nfor i in range(500): os.write(fd,(sys.argv[2]*99+'\\n').encode())"
        procs = [subprocess.Popen([sys.executable, "-c", code, self.p("f"), c]) for c in "abcd"]
        for proc in procs:
            self.assertEqual(proc.wait(), 0)
        lines = get(self.p("f")).split(b"\n")
        self.assertEqual(lines.pop(), b"")
        self.assertEqual(sorted(lines), sorted(c * 99 for c in (b"a", b"b", b"c", b"d") for _ in range(500)))

    def test_trunc(self):
        put(self.p("f"), b"x" * 10000)
        other = os.open(self.p("f"), os.O_RDONLY)
        fd = os.open(self.p("f"), os.O_WRONLY | os.O_TRUNC)
        self.assertEqual(os.fstat(other).st_size, 0)
        self.assertEqual(os.pread(other, 10, 0), b"")
        os.write(fd, b"new")
        self.assertEqual(os.pread(other, 10, 0), b"new")
        os.close(fd)
        os.close(other)
        for _ in range(50):
            put(self.p("f"), os.urandom(5000))
            put(self.p("f"), b"short")
            self.assertEqual(get(self.p("f")), b"short")
        self.assertEqual(os.stat(self.p("f")).st_size, 5)

    def test_direct(self):
        size = 1 << 20
        data = mmap.mmap(-1, size)  # aligned
        data.write(random.Random(3).randbytes(size))
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        self.assertEqual(os.pwritev(fd, [data], 0), size)
        self.assertEqual(os.pwritev(fd, [memoryview(data)[:4096]], size), 4096)
        back = mmap.mmap(-1, size)
        self.assertEqual(os.preadv(fd, [back], 0), size)
        self.assertEqual(back[:], data[:])
        # Buffered and direct see the same.
        buffered = os.open(self.p("f"), os.O_RDWR)
        os.pwrite(buffered, b"buffered", 8190)
        self.assertEqual(os.preadv(fd, [memoryview(back)[:16384]], 0), 16384)
        self.assertEqual(back[8190:8198], b"buffered")
        os.pwritev(fd, [memoryview(data)[4096:8192]], 8192)
        self.assertEqual(os.pread(buffered, 4096, 8192), data[4096:8192])
        # The last block is partial: a direct read comes back short.
        os.ftruncate(fd, 10000)
        self.assertEqual(os.preadv(fd, [memoryview(back)[:8192]], 8192), 10000 - 8192)
        os.close(fd)
        os.close(buffered)

    def test_many_open_files(self):
        limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50, 3000)
        fds = [os.open(self.p(f"f{i}"), os.O_CREAT | os.O_RDWR) for i in range(limit)]
        for i, fd in enumerate(fds):
            os.write(fd, b"%d" % i)
        for i, fd in enumerate(fds):
            self.assertEqual(os.pread(fd, 10, 0), b"%d" % i)
            os.close(fd)


class Data(Case):
    def test_big_requests(self):
        rng = random.Random(5)
        data = rng.randbytes(5 << 20)
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        self.assertEqual(os.pwrite(fd, data, 777), len(data))
        os.fsync(fd)
        for size in (1 << 20, (1 << 20) + 1, 3 << 20):
            self.assertEqual(os.pread(fd, size, 777 + 4095), data[4095 : 4095 + size])
        self.assertEqual(os.pread(fd, 100, 777 + len(data) - 50), data[-50:])
        self.assertEqual(os.pread(fd, 100, 777 + len(data)), b"")
        self.assertEqual(os.pread(fd, 100, 1 << 40), b"")
        self.assertEqual(os.pread(fd, 777, 0), bytes(777))
        os.close(fd)

    def test_truncate_at_boundaries(self):
        edges = (0, 1, BLOCK, 2 * BLOCK, GROUP, GROUP + BLOCK, 2 * GROUP)
        sizes = sorted({max(e + d, 0) for e in edges for d in (-1, 0, 1)})
        rng = random.Random(7)
        data = rng.randbytes(sizes[-1])
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        for first in sizes:
            os.ftruncate(fd, 0)
            os.pwrite(fd, data[:first], 0)
            if rng.random() < 0.5:
                os.fsync(fd)
            model = bytearray(data[:first])
            for _ in range(6):
                size = rng.choice(sizes)
                if rng.random() < 0.7:
                    os.ftruncate(fd, size)
                else:
                    os.truncate(self.p("f"), size)
                del model[size:]
                model.extend(bytes(size - len(model)))
                self.assertEqual(os.fstat(fd).st_size, size)
                if rng.random() < 0.3:
                    os.fsync(fd)
                if size and rng.random() < 0.5:
                    at = rng.randrange(size)
                    os.pwrite(fd, b"!", at)
                    model[at : at + 1] = b"!"
                self.assertTrue(os.pread(fd, size + 1, 0) == model, f"{first} -> {size}")
        os.close(fd)

    def test_sparse(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        far = 3 << 30
        os.pwrite(fd, b"begin", 0)
        os.pwrite(fd, b"far", far)
        os.pwrite(fd, b"middle", 1 << 30)
        os.fsync(fd)
        st = os.fstat(fd)
        self.assertEqual(st.st_size, far + 3)
        self.assertLess(st.st_blocks * 512, 4 << 20)
        self.assertEqual(os.pread(fd, 10, 0), b"begin\0\0\0\0\0")
        self.assertEqual(os.pread(fd, 10, far - 5), b"\0\0\0\0\0far")
        self.assertEqual(os.pread(fd, 8, (1 << 30) - 1), b"\0middle\0")
        for off in (5000, GROUP - 10, GROUP + 3, 2 << 30, far - GROUP):
            self.assertEqual(os.pread(fd, 70000, off), bytes(70000))
        os.ftruncate(fd, 1 << 31)
        self.assertEqual(os.pread(fd, 10, (1 << 31) - 5), bytes(5))
        os.ftruncate(fd, far + 100)
        self.assertEqual(os.pread(fd, 100, far), bytes(100))
        # Holes filled from the back to the front.
        for i in range(200, 0, -1):
            os.pwrite(fd, b"%03d" % i, i * 10_000_000)
        for i in range(200, 0, -1):
            self.assertEqual(os.pread(fd, 4, i * 10_000_000), b"%03d\0" % i)
        os.close(fd)

    def test_mmap(self):
        size = GROUP + 12345
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as m:
            m[0:5] = b"first"
            m[size - 4 : size] = b"last"
            m[BLOCK - 2 : BLOCK + 2] = b"edge"
            self.assertEqual(os.pread(fd, 4, BLOCK - 2), b"edge")
            m.flush()
            os.pwrite(fd, b"written", 20000)
            self.assertEqual(m[20000:20007], b"written")
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as second:
                m[30000:30004] = b"both"
                self.assertEqual(second[30000:30004], b"both")
            with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE) as private:
                private[0:5] = b"other"
            self.assertEqual(m[0:5], b"first")
        os.close(fd)
        data = get(self.p("f"))
        self.assertEqual(len(data), size)
        self.assertEqual((data[:5], data[-4:], data[BLOCK - 2 : BLOCK + 2]), (b"first", b"last", b"edge"))

    def test_mmap_after_close(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, 100_000)
        m = mmap.mmap(fd, 100_000)
        os.close(fd)
        m[50_000:50_005] = b"later"
        m.close()
        self.assertEqual(get(self.p("f"))[49_999:50_006], b"\0later\0")

    def test_sync_calls(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        for i in range(20):
            os.pwrite(fd, b"%d" % i, i * 3000)
            (os.fsync, os.fdatasync, libc.syncfs)[i % 3](fd)
        os.close(fd)
        directory = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.fdatasync(directory)
        os.close(directory)
        os.sync()
        fd = os.open(self.p("f"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def test_dsync(self):
        for flag in (os.O_SYNC, os.O_DSYNC):
            fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR | flag)
            for i in range(10):
                os.write(fd, b"x" * 5000)
            os.close(fd)
        self.assertEqual(os.stat(self.p("f")).st_size, 50000)

    def test_copy_file_range(self):
        data = random.Random(9).randbytes(300_000)
        put(self.p("a"), data)
        with open(self.p("a"), "rb") as a, open(self.p("b"), "wb") as b:
            left = len(data)
            while left:
                left -= os.copy_file_range(a.fileno(), b.fileno(), left)
        self.assertEqual(get(self.p("b")), data)

    def test_threads_in_one_file(self):
        """Readers and writers of one file at once, each in ranges of its own that share blocks."""
        cell, threads, rounds = 1000, 4, 150
        size = cell * threads * 60
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, size)
        problems = []

        def work(me):
            rng = random.Random(me)
            mine = {}
            for i in range(rounds):
                n = rng.randrange(60)
                at = (n * threads + me) * cell
                if rng.random() < 0.6:
                    mine[n] = bytes([(i + me) % 256]) * cell
                    os.pwrite(fd, mine[n], at)
                if os.pread(fd, cell, at) != mine.get(n, bytes(cell)):
                    problems.append((me, i, n))
                if i % 40 == 39:
                    os.fsync(fd)
            for n in range(60):
                if os.pread(fd, cell, (n * threads + me) * cell) != mine.get(n, bytes(cell)):
                    problems.append((me, "end", n))

        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        os.close(fd)
        self.assertEqual(problems, [])


class Unlink(Case):
    def test_errors(self):
        os.mkdir(self.p("d"))
        put(self.p("f"))
        self.fails(errno.ENOENT, os.unlink, self.p("none"))
        self.fails(errno.EISDIR, os.unlink, self.p("d"))
        self.fails(errno.ENOTDIR, os.rmdir, self.p("f"))
        self.fails(errno.ENOENT, os.rmdir, self.p("none"))
        for name in LONG_NAMES:
            os.mkdir(self.p(name))
            put(self.p(name, name))
            self.fails(errno.ENOTEMPTY, os.rmdir, self.p(name))
            os.unlink(self.p(name, name))
            os.rmdir(self.p(name))
            self.fails(errno.ENOENT, os.rmdir, self.p(name))
        self.fails(errno.EINVAL, os.rmdir, self.p("d", "."))
        self.fails(errno.ENOTEMPTY, os.rmdir, self.p("d", ".."))

    def test_open_file(self):
        for name in LONG_NAMES:
            fd = os.open(self.p(name), os.O_CREAT | os.O_RDWR)
            os.write(fd, b"a" * 10000)
            os.unlink(self.p(name))
            self.fails(errno.ENOENT, os.stat, self.p(name))
            self.assertEqual(os.fstat(fd).st_nlink, 0)
            self.assertEqual(os.pread(fd, 20000, 0), b"a" * 10000)
            put(self.p(name), b"another")
            os.pwrite(fd, b"b" * 10000, 5000)
            os.fsync(fd)
            os.fchmod(fd, 0o600)
            os.utime(fd, ns=(1, 2))
            st = os.fstat(fd)
            self.assertEqual((st.st_size, st.st_mode & 0o777, st.st_mtime_ns), (15000, 0o600, 2))
            os.ftruncate(fd, 7000)
            self.assertEqual(os.pread(fd, 20000, 0), b"a" * 5000 + b"b" * 2000)
            with mmap.mmap(fd, 7000) as m:
                m[0:3] = b"map"
            self.assertEqual(os.pread(fd, 4, 0), b"mapa")
            os.close(fd)
            self.assertEqual(get(self.p(name)), b"another")

    def test_open_file_with_other_names(self):
        fd = os.open(self.p("a"), os.O_CREAT | os.O_RDWR)
        os.link(self.p("a"), self.p("b" * 200))
        os.write(fd, b"before")
        os.unlink(self.p("a"))
        os.write(fd, b"after")
        self.assertEqual(os.fstat(fd).st_nlink, 1)
        os.close(fd)
        self.assertEqual(get(self.p("b" * 200)), b"beforeafter")

    def test_open_directory(self):
        os.mkdir(self.p("d"))
        fd = os.open(self.p("d"), os.O_RDONLY)
        os.rmdir(self.p("d"))
        self.assertEqual(os.listdir(fd), [])
        self.fails(errno.ENOENT, os.open, "f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.close(fd)


class Rename(Case):
    def test_files(self):
        for old in LONG_NAMES:
            for new in LONG_NAMES:
                put(self.p(old), b"content")
                os.rename(self.p(old), self.p(new))
                self.assertEqual(get(self.p(new)), b"content")
                self.assertEqual(os.listdir(self.dir), [new])
                os.unlink(self.p(new))

    def test_over(self):
        for name in LONG_NAMES:
            put(self.p(name), b"old")
            old = os.open(self.p(name), os.O_RDONLY)
            new = os.open(self.p("new"), os.O_CREAT | os.O_RDWR)
            os.write(new, b"not synced")
            os.rename(self.p("new"), self.p(name))
            os.write(new, b", more")
            self.assertEqual(os.pread(old, 10, 0), b"old")
            self.assertEqual(os.fstat(old).st_nlink, 0)
            self.assertEqual(get(self.p(name)), b"not synced, more")
            os.close(old)
            os.close(new)
            self.fails(errno.ENOENT, os.stat, self.p("new"))

    def test_matrix(self):
        for name in LONG_NAMES:
            f, d, full = name[:-1] + "f", name[:-1] + "d", name[:-1] + "u"
            put(self.p(f), b"f")
            os.mkdir(self.p(d))
            os.mkdir(self.p(full))
            put(self.p(full, "inside"), b"inside")
            self.fails(errno.EISDIR, os.rename, self.p(f), self.p(d))
            self.fails(errno.ENOTDIR, os.rename, self.p(d), self.p(f))
            self.fails(errno.ENOTEMPTY, os.rename, self.p(d), self.p(full))
            self.fails(errno.ENOENT, os.rename, self.p("none"), self.p(f))
            self.fails(errno.ENOENT, os.rename, self.p(f), self.p("none", f))
            self.fails(errno.ENOTDIR, os.rename, self.p(d), self.p(f, "x"))
            self.fails(errno.EINVAL, os.rename, self.p(full), self.p(full, "below"))
            self.fails(errno.EINVAL, os.rename, self.p(d), self.p(d, "below"))
            os.rename(self.p(f), self.p(f))
            os.rename(self.p(full), self.p(d))  # over an empty directory
            self.assertEqual(get(self.p(d, "inside")), b"inside")
            self.assertEqual(sorted(os.listdir(self.dir)), sorted([f, d]))
            # Of links of one inode nothing happens.
            os.link(self.p(f), self.p("link"))
            os.rename(self.p(f), self.p("link"))
            self.assertEqual(sorted(os.listdir(self.dir)), sorted([f, d, "link"]))
            os.symlink(f, self.p("symlink"))
            os.rename(self.p("symlink"), self.p("link"))
            self.assertEqual(os.readlink(self.p("link")), f)
            # Into another directory and back, a directory with entries.
            os.mkdir(self.p("to"))
            os.rename(self.p(d), self.p("to", d))
            self.assertEqual(get(self.p("to", d, "inside")), b"inside")
            os.rename(self.p("to", d), self.p(d))
            self.assertEqual(get(self.p(d, "inside")), b"inside")
            os.unlink(self.p(d, "inside"))
            for x in ("link", f):
                os.unlink(self.p(x))
            for x in ("to", d):
                os.rmdir(self.p(x))

    def test_noreplace(self):
        for name in LONG_NAMES:
            put(self.p(name), b"here")
            put(self.p("other"), b"other")
            self.fails(errno.EEXIST, renameat2, self.p("other"), self.p(name), RENAME_NOREPLACE)
            self.assertEqual((get(self.p(name)), get(self.p("other"))), (b"here", b"other"))
            renameat2(self.p("other"), self.p(name[:-1] + "N"), RENAME_NOREPLACE)
            self.assertEqual(get(self.p(name[:-1] + "N")), b"other")

    def test_exchange(self):
        for name in LONG_NAMES:
            put(self.p(name), b"a file")
            os.mkdir(self.p("d"))
            put(self.p("d", "inside"), b"inside")
            renameat2(self.p(name), self.p("d"), RENAME_EXCHANGE)
            self.assertEqual((get(self.p("d")), get(self.p(name, "inside"))), (b"a file", b"inside"))
            self.fails(errno.ENOENT, renameat2, self.p("d"), self.p("none"), RENAME_EXCHANGE)
            os.unlink(self.p("d"))
            os.unlink(self.p(name, "inside"))
            os.rmdir(self.p(name))

    def test_concurrent_replace(self):
        """A reader never sees the name missing or empty while writers replace it (write, fsync, rename)."""
        put(self.p("f"), b"0" * 5000)
        end, problems = time.monotonic() + 1.5, []

        def replace(me):
            while time.monotonic() < end:
                fd = os.open(self.p(f"tmp{me}"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
                os.write(fd, b"%d" % me * 5000)
                os.fsync(fd)
                os.close(fd)
                os.rename(self.p(f"tmp{me}"), self.p("f"))

        def read():
            while time.monotonic() < end:
                data = get(self.p("f"))
                if len(data) != 5000 or len(set(data)) != 1:
                    problems.append(len(data))

        threads = [threading.Thread(target=replace, args=(i,)) for i in (1, 2)] + [threading.Thread(target=read)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(problems, [])


class Links(Case):
    def test_hard(self):
        put(self.p("f"), b"one")
        os.mkdir(self.p("d"))
        names = [self.p(n) for n in LONG_NAMES] + [self.p("d", n) for n in LONG_NAMES]
        for i, name in enumerate(names):
            os.link(self.p("f"), name)
            self.assertEqual(os.stat(self.p("f")).st_nlink, i + 2)
            self.assertEqual(os.stat(name).st_ino, os.stat(self.p("f")).st_ino)
        with open(names[3], "ab") as f:
            f.write(b" two")
        self.assertEqual(get(names[7]), b"one two")
        os.chmod(names[0], 0o640)
        self.assertEqual(os.stat(names[5]).st_mode & 0o777, 0o640)
        os.unlink(self.p("f"))
        for i, name in enumerate(names[:-1]):
            os.unlink(name)
            self.assertEqual(os.stat(names[-1]).st_nlink, len(names) - 1 - i)
        self.assertEqual(get(names[-1]), b"one two")

    def test_hard_errors(self):
        put(self.p("f"))
        os.mkdir(self.p("d"))
        self.fails(errno.EPERM, os.link, self.p("d"), self.p("x"))
        self.fails(errno.EEXIST, os.link, self.p("f"), self.p("d"))
        self.fails(errno.EEXIST, os.link, self.p("f"), self.p("f"))
        self.fails(errno.ENOENT, os.link, self.p("none"), self.p("x"))
        self.fails(errno.ENOENT, os.link, self.p("f"), self.p("none", "x"))

    def test_symbolic(self):
        for n in (1, 2, 50, 255, 729, 730, 731, 1000, 1023, 1024, 2000, 3034, 3035, 4094, 4095):
            target = ("d" * 250 + "/") * 17
            os.symlink(target[:n], self.p(f"l{n}"))
            self.assertEqual(os.readlink(self.p(f"l{n}")), target[:n])
            st = os.lstat(self.p(f"l{n}"))
            self.assertEqual((st.st_size, stat.S_ISLNK(st.st_mode)), (n, True))
            os.rename(self.p(f"l{n}"), self.p(f"r{n}"))
            self.assertEqual(os.readlink(self.p(f"r{n}")), target[:n])
            os.link(self.p(f"r{n}"), self.p(f"h{n}"), follow_symlinks=False)
            os.unlink(self.p(f"r{n}"))
            self.assertEqual(os.readlink(self.p(f"h{n}")), target[:n])
        put(self.p("f"), b"through")
        os.symlink("f", self.p("to-f"))
        self.assertEqual(get(self.p("to-f")), b"through")
        os.symlink(os.path.join(self.dir, "f"), self.p("absolute"))
        self.assertEqual(get(self.p("absolute")), b"through")
        os.lchown(self.p("to-f"), 5, 6)
        os.utime(self.p("to-f"), ns=(11, 12), follow_symlinks=False)
        st = os.lstat(self.p("to-f"))
        self.assertEqual((st.st_uid, st.st_gid, st.st_mtime_ns), (5, 6, 12))
        self.assertNotEqual(os.stat(self.p("f")).st_mtime_ns, 12)

    def test_directory_link_counts(self):
        if os.stat(self.dir).st_nlink == 1:
            self.skipTest("the store does not count directory links")
        self.assertEqual(os.stat(self.dir).st_nlink, 2)
        for i in range(5):
            os.mkdir(self.p(f"d{i}"))
            put(self.p(f"f{i}"))
        self.assertEqual(os.stat(self.dir).st_nlink, 7)
        os.rmdir(self.p("d0"))
        self.assertEqual(os.stat(self.dir).st_nlink, 6)


class Directories(Case):
    def test_big(self):
        want = set()
        for i in range(3000):
            name = f"{i:05}" + "n" * (i % 250)
            put(self.p(name))
            want.add(name)
        got = os.listdir(self.dir)
        self.assertEqual(len(got), len(want))
        self.assertEqual(set(got), want)
        for entry in os.scandir(self.dir):
            self.assertTrue(entry.is_file())

    def test_delete_while_reading(self):
        for i in range(2000):
            put(self.p(f"{i:05}" + "x" * (i % 200)))
        for _ in range(100):
            with os.scandir(self.dir) as entries:
                n = 0
                for entry in entries:
                    os.unlink(entry.path)
                    n += 1
            if not n:
                break
        self.assertEqual(os.listdir(self.dir), [])
        parent = os.path.dirname(self.dir)
        os.rmdir(self.dir)
        self.assertNotIn(os.path.basename(self.dir), os.listdir(parent))

    def test_change_while_reading(self):
        """What is there all the time is listed exactly once, whatever comes and goes."""
        stay = {f"stay{i}" for i in range(1500)}
        for name in stay:
            put(self.p(name))
        seen = []
        with os.scandir(self.dir) as entries:
            for i, entry in enumerate(entries):
                seen.append(entry.name)
                if i < 1500:
                    put(self.p(f"new{i}"))
                    if i % 3 == 0:
                        os.unlink(self.p(f"new{i}"))
        kept = [n for n in seen if n.startswith("stay")]
        self.assertEqual(len(kept), len(stay))
        self.assertEqual(set(kept), stay)

    def test_tell_and_seek(self):
        """A place in a listing stays the same while entries come and go."""
        rng = random.Random(11)
        for i in range(700):
            put(self.p(f"stay{i}" + "x" * (i % 240)))
        listing, places, names = Listing(self.dir), [], []
        while True:
            place, name = listing.tell(), listing.next()
            if name is None:
                break
            places.append(place)
            names.append(name)
            if len(names) % 3 == 0:
                put(self.p(f"new{len(names)}"))
        stay = [i for i, name in enumerate(names) if name.startswith("stay")]
        for i in range(200):
            if i % 10 == 0:
                put(self.p(f"later{i}"))
            if i % 20 == 15:
                os.unlink(self.p(f"later{i - 5}"))
            at = rng.choice(stay)
            listing.seek(places[at])
            # What was made since may be there now, where the store has an order of its own.
            self.assertEqual(next(n for n in iter(listing.next, None) if n.startswith("stay")), names[at])
        for at in (0, 5, len(names) // 2, len(names) - 1):
            listing.seek(places[at])
            rest = [name for name in iter(listing.next, None) if name.startswith("stay")]
            self.assertEqual(sorted(rest), sorted(name for name in names[at:] if name.startswith("stay")))
        listing.close()

    def test_rename_while_reading(self):
        """A listing ends, although what is renamed comes again at the end of the directory on some file systems."""
        for i in range(1000):
            put(self.p(f"{i:05}"))
        n = 0
        with os.scandir(self.dir) as entries:
            for entry in entries:
                n += 1
                self.assertLessEqual(n, 3000)
                os.rename(entry.path, self.p("elsewhere"))
                os.rename(self.p("elsewhere"), entry.path)
        self.assertGreaterEqual(n, 1000)

    def test_two_listings(self):
        """What had gone before a listing began is not in it, though another one that ends meanwhile began before that."""
        names = {f"{i:03}" for i in range(600)}
        for name in names:
            put(self.p(name))
        one, other = Listing(self.dir), Listing(self.dir)
        self.assertEqual({one.next() for _ in range(602)}, names | {".", ".."})
        for name in sorted(names)[::2]:
            os.unlink(self.p(name))
        seen = [other.next()]
        self.assertIsNone(one.next())
        seen += iter(other.next, None)
        self.assertEqual(sorted(seen), [".", ".."] + sorted(names)[1::2])
        one.close()
        other.close()

    def test_rewind(self):
        fd = os.open(self.dir, os.O_RDONLY)
        self.assertEqual(os.listdir(fd), [])
        put(self.p("f"))
        self.assertEqual(os.listdir(fd), ["f"])
        os.unlink(self.p("f"))
        self.assertEqual(os.listdir(fd), [])
        os.close(fd)

    def test_dot_entries(self):
        os.mkdir(self.p("d"))
        out = subprocess.run(["ls", "-ia", self.p("d")], capture_output=True, check=True).stdout.split()
        self.assertEqual(out[1::2], [b".", b".."])
        self.assertEqual(int(out[0]), os.stat(self.p("d")).st_ino)

    def test_deep(self):
        cwd = os.getcwd()
        os.chdir(self.dir)
        for i in range(300):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        put("bottom", b"deep")
        self.assertEqual(get("bottom"), b"deep")
        os.chdir(cwd)
        subprocess.run(["rm", "-rf", self.p("d" * 100)], check=True)
        self.assertEqual(os.listdir(self.dir), [])


class Attributes(Case):
    def test_times(self):
        put(self.p("f"), b"x")
        os.mkdir(self.p("d"))
        for path in (self.p("f"), self.p("d")):
            for ns in (0, 1, 999_999_999, 1_234_567_890_123_456_789, 4_000_000_000_000_000_001):
                os.utime(path, ns=(ns + 5, ns))
                st = os.stat(path)
                self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (ns + 5, ns))
            utimensat(path, (7, 8), (0, UTIME_OMIT))
            st = os.stat(path)
            self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (7_000_000_008, 4_000_000_000_000_000_001))
            before = time.time_ns()
            utimensat(path, (0, UTIME_OMIT), (0, UTIME_NOW))
            st = os.stat(path)
            self.assertEqual(st.st_atime_ns, 7_000_000_008)
            self.assertLess(abs(st.st_mtime_ns - before), 2_000_000_000)

    def test_set_times_stay(self):
        """Writes that reach the store later do not move a time that the user has set since."""
        for i, sync in enumerate((None, os.fsync, os.fdatasync)):
            fd = os.open(self.p(f"f{i}"), os.O_CREAT | os.O_RDWR)
            os.write(fd, b"x" * 100_000)
            os.utime(fd, ns=(1_000_000_001, 2_000_000_002))
            if sync:
                sync(fd)
            self.assertEqual(os.fstat(fd).st_mtime_ns, 2_000_000_002)
            os.close(fd)
            self.assertEqual(os.stat(self.p(f"f{i}")).st_mtime_ns, 2_000_000_002)
        os.sync()
        self.assertEqual(os.stat(self.p("f0")).st_mtime_ns, 2_000_000_002)

    def test_times_move(self):
        put(self.p("f"), b"x")
        for change in (
            lambda: put(self.p("f"), b"xy"),
            lambda: os.truncate(self.p("f"), 1),
            lambda: os.truncate(self.p("f"), 10000),
        ):
            os.utime(self.p("f"), ns=(1, 1))
            change()
            fd = os.open(self.p("f"), os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            self.assertLess(abs(os.stat(self.p("f")).st_mtime_ns - time.time_ns()), 5_000_000_000)
        for change in (
            lambda: put(self.p("new")),
            lambda: os.rename(self.p("new"), self.p("newer")),
            lambda: os.unlink(self.p("newer")),
            lambda: os.mkdir(self.p("d")),
        ):
            os.utime(self.dir, ns=(1, 1))
            change()
            self.assertLess(abs(os.stat(self.dir).st_mtime_ns - time.time_ns()), 5_000_000_000)

    def test_ctime(self):
        put(self.p("f"), b"x")
        before = os.stat(self.p("f")).st_ctime_ns
        time.sleep(0.02)
        os.chmod(self.p("f"), 0o600)
        self.assertGreater(os.stat(self.p("f")).st_ctime_ns, before)

    def test_modes(self):
        for name in LONG_NAMES:
            put(self.p(name))
            for mode in (0, 0o644, 0o4755, 0o2711, 0o1777, 0o7777):
                os.chmod(self.p(name), mode)
                self.assertEqual(stat.S_IMODE(os.stat(self.p(name)).st_mode), mode)
        old = os.umask(0o027)
        os.close(os.open(self.p("u"), os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir(self.p("ud"), 0o777)
        os.umask(old)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("u")).st_mode), 0o750)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("ud")).st_mode), 0o750)
        # A descriptor opened for writing stays one, whatever the mode is.
        fd = os.open(self.p("r"), os.O_CREAT | os.O_RDWR, 0o000)
        os.write(fd, b"written")
        os.fsync(fd)
        self.assertEqual(os.pread(fd, 10, 0), b"written")
        os.close(fd)

    def test_owners(self):
        put(self.p("f"))
        os.chown(self.p("f"), 123, 456)
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_uid, st.st_gid), (123, 456))
        os.chown(self.p("f"), -1, 7)
        os.chown(self.p("f"), 8, -1)
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_uid, st.st_gid), (8, 7))

    def test_create_as_user(self):
        def create():
            put(self.p("f"), b"mine")
            os.mkdir(self.p("d"))
            put(self.p("d", "g"))
            os.symlink("f", self.p("l"))
            os.mkfifo(self.p("p"))

        self.assertEqual(as_user(NOBODY, create), 0)
        for name in ("f", "d", "d/g", "l", "p"):
            st = os.lstat(self.p(name))
            self.assertEqual((st.st_uid, st.st_gid), (NOBODY, NOBODY), name)

    def test_permissions(self):
        put(self.p("secret"), b"x")
        os.chmod(self.p("secret"), 0o600)
        os.mkdir(self.p("closed"), 0o700)
        put(self.p("closed", "f"))
        os.mkdir(self.p("sticky"))
        os.chmod(self.p("sticky"), 0o1777)
        put(self.p("sticky", "root"))
        os.mkdir(self.p("readonly"))
        os.chmod(self.p("readonly"), 0o755)
        put(self.p("foreign"))
        os.chmod(self.p("foreign"), 0o666)
        for code, function in (
            (errno.EACCES, lambda: get(self.p("secret"))),
            (errno.EACCES, lambda: put(self.p("secret"))),
            (errno.EACCES, lambda: os.listdir(self.p("closed"))),
            (errno.EACCES, lambda: os.stat(self.p("closed", "f"))),
            (errno.EACCES, lambda: put(self.p("readonly", "f"))),
            (errno.EACCES, lambda: os.mkdir(self.p("readonly", "d"))),
            (errno.EPERM, lambda: os.unlink(self.p("sticky", "root"))),
            (errno.EPERM, lambda: os.rename(self.p("sticky", "root"), self.p("sticky", "x"))),
            (errno.EPERM, lambda: os.chmod(self.p("foreign"), 0o777)),
            (errno.EPERM, lambda: os.chown(self.p("foreign"), NOBODY, NOBODY)),
            (errno.EPERM, lambda: os.utime(self.p("foreign"), ns=(1, 1))),
            (0, lambda: os.utime(self.p("foreign"))),
            (0, lambda: put(self.p("foreign"), b"y")),
        ):
            self.assertEqual(as_user(NOBODY, function), code)

    def test_setgid_directory(self):
        os.mkdir(self.p("d"))
        os.chown(self.p("d"), 0, 4242)
        os.chmod(self.p("d"), 0o2777)

        def create():
            put(self.p("d", "f"))
            os.mkdir(self.p("d", "sub"))

        self.assertEqual(as_user(NOBODY, create), 0)
        self.assertEqual(os.stat(self.p("d", "f")).st_gid, 4242)
        st = os.stat(self.p("d", "sub"))
        self.assertEqual((st.st_gid, bool(st.st_mode & stat.S_ISGID)), (4242, True))

    def test_setuid_is_cleared(self):
        """A write, truncation or chown by somebody else takes setuid and setgid away."""

        def write():
            with open(self.p("f"), "r+b") as f:
                f.write(b"changed")

        for change in (write, lambda: os.truncate(self.p("f"), 3)):
            put(self.p("f"), b"program")
            os.chmod(self.p("f"), 0o6777)
            self.assertEqual(as_user(NOBODY, change), 0)
            self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o777)
        os.chown(self.p("f"), NOBODY, NOBODY)
        os.chmod(self.p("f"), 0o6777)
        self.assertEqual(as_user(NOBODY, lambda: os.chown(self.p("f"), -1, NOBODY)), 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o777)

    def test_statvfs(self):
        st = os.statvfs(self.dir)
        self.assertEqual(st.f_namemax, 255)
        self.assertGreater(st.f_blocks, 0)
        self.assertGreaterEqual(st.f_blocks, st.f_bfree)
        self.assertGreaterEqual(st.f_bfree, st.f_bavail)
        self.assertGreater(st.f_frsize, 0)

    def test_size_and_blocks(self):
        put(self.p("f"), os.urandom(1_000_000))
        fd = os.open(self.p("f"), os.O_RDONLY)
        os.fsync(fd)
        st = os.fstat(fd)
        os.close(fd)
        self.assertEqual(st.st_size, 1_000_000)
        self.assertGreaterEqual(st.st_blocks * 512, 1_000_000)


class Special(Case):
    def test_fifo(self):
        os.mkfifo(self.p("p"))
        pid = os.fork()
        if pid == 0:
            put(self.p("p"), b"through the pipe")
            os._exit(0)
        self.assertEqual(get(self.p("p")), b"through the pipe")
        os.waitpid(pid, 0)

    def test_socket(self):
        cwd = os.getcwd()
        os.chdir(self.dir)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("s")
            server.listen()
            client.connect("s")
            with server.accept()[0] as peer:
                peer.send(b"hello")
                self.assertEqual(client.recv(10), b"hello")
        os.chdir(cwd)
        self.assertTrue(stat.S_ISSOCK(os.stat(self.p("s")).st_mode))

    def test_locks(self):
        put(self.p("f"), b"x" * 10)
        code = "import fcntl,sys\nf=open(sys.argv[1],'r+')\ntry:\n fcntl.{}(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nexcept BlockingIOError:\n sys.exit(11)"
        for kind in ("flock", "lockf"):
            run = [sys.executable, "-c", code.format(kind), self.p("f")]
            with open(self.p("f"), "r+b") as f:
                getattr(fcntl, kind)(f, fcntl.LOCK_EX)
                self.assertEqual(subprocess.run(run, check=False).returncode, 11, kind)
            self.assertEqual(subprocess.run(run, check=False).returncode, 0, kind)

    def test_run_a_program(self):
        put(self.p("program"), get("/bin/true"))
        os.chmod(self.p("program"), 0o755)
        self.assertEqual(subprocess.run([self.p("program")], check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=1)
