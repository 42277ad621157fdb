#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the Nth system call of the storage daemon on its store fail, for one N after the other, and looks what is lost.

inject.py prepare MOUNT
inject.py [--every K] [--seed N] [--only SCENARIO:KIND:N] LIBRARY STORE DISK SCRATCH

LIBRARY is tests/inject/faults.so, STORE a prepared volume (it stays as it is), DISK a directory on a file system of its
own, for the copies, SCRATCH one elsewhere. For each N a copy of the store is mounted and the call fails while a fixed
scenario runs; then the daemon is unmounted or killed, and the volume is mounted again without faults. It must mount,
every block must be one that was written and not older than its last fsync that was answered, every name must be the old
or the new one, and all must work again.
"""
import argparse
import ctypes
import errno
import hashlib
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

BLOCK = 4096
READ, WRITE, FLUSH, MAKE, CHANGE = 1, 2, 4, 8, 16
ALL = READ | WRITE | FLUSH | MAKE | CHANGE
ROOM = WRITE | MAKE
FOREVER = 1 << 62
# Name: which calls, what they say, how many in a row, whether a write leaves its first half.
KINDS = {
    "eio": (ALL, errno.EIO, 1, 0),
    "half": (WRITE, errno.EIO, 1, 1),
    "flush": (FLUSH, errno.EIO, 1, 0),
    "full": (ROOM, errno.ENOSPC, 1, 1),
    "full-long": (ROOM, errno.ENOSPC, 40, 0),
    "quota": (ROOM, errno.EDQUOT, 3, 0),
    "read-only": (ROOM | CHANGE, errno.EROFS, FOREVER, 0),
    "dead": (ALL, errno.EIO, FOREVER, 0),
}
EXPECTED = {getattr(errno, name) for name in "EIO ENOSPC EDQUOT EROFS ENOENT ENOTCONN ENOTEMPTY ENODATA".split()}
EXCHANGE, KEEP_SIZE, PUNCH_HOLE = 2, 1, 2
DEADLINE_S = 120
LONG_NAME = "n" * 250
LONG_DIR = "l" * 240
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def checked(result):
    if result:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def exchange(one, other):
    checked(libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), EXCHANGE))


def fallocate(fd, mode, off, size):
    checked(libc.fallocate(fd, mode, off, size))


class Faults:
    """What the library maps: struct faults in tests/inject/faults.h."""

    LAYOUT = struct.Struct("=IIIIQQQQQ64s")

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.truncate(4096)
        with open(path, "r+b") as f:
            self.room = mmap.mmap(f.fileno(), 4096)

    def arm(self, dev, kind, number):
        kinds, error, count, half = KINDS[kind]
        self.LAYOUT.pack_into(self.room, 0, 0, error, kinds, half, dev, number, count, 0, 0, b"")
        self.room[0] = 1

    def disarm(self):
        self.room[0] = 0

    def read(self):
        """How many calls were counted, how many failed, the last of them."""
        *_, calls, failed, what = self.LAYOUT.unpack_from(self.room)
        return calls, failed, what.rstrip(b"\0").decode()


def noise(size, *what):
    return hashlib.shake_128(repr(what).encode()).digest(size)


def outline(block):
    """Where it is zeros and where not."""
    ends = [i for i in range(len(block)) if (block[i] == 0) != (i == 0 or block[i - 1] == 0)]
    return f"{len(block)} bytes, {hashlib.sha256(block).hexdigest()[:6]}, changes at {ends[:1]}..{ends[-1:]}"


class File:
    """
    What a file may be: contents that differ in which of the failed calls did something, and, of what is not synced, for
    each block what it may be besides, and which sizes.
    """

    def __init__(self, data=b""):
        self.contents = [bytearray(data)]
        self.blocks, self.sizes = {}, set()

    def change(self, done, change, *args):
        """A call that failed may have done its work or not."""
        if not done:
            self.contents += [bytearray(content) for content in self.contents]
        for content in self.contents[0 if done else len(self.contents) // 2 :]:
            self.sizes.add(len(content))
            change(content, *args)
            self.sizes.add(len(content))
        self.contents = [bytearray(content) for content in {bytes(content) for content in self.contents}]

    def keep(self, content, start, end):
        for block in range(start // BLOCK, (end - 1) // BLOCK + 1):
            old = bytes(content[block * BLOCK : (block + 1) * BLOCK]).ljust(BLOCK, b"\0")
            self.blocks.setdefault(block, {bytes(BLOCK)}).add(old)

    def write(self, content, off, data):
        self.keep(content, min(off, len(content)), off + len(data))
        content.extend(bytes(max(0, off - len(content))))
        content[off : off + len(data)] = data

    def append(self, content, data):
        self.write(content, len(content), data)

    def truncate(self, content, size):
        self.keep(content, min(size, len(content)), max(size, len(content)))
        del content[size:]
        content.extend(bytes(size - len(content)))

    def synced(self):
        """All of it is there from now on."""
        self.blocks.clear()
        self.sizes.clear()

    def differs(self, data):
        reasons = [self.differs_from(content, data) for content in self.contents]
        return "; or ".join(reasons) if all(reasons) else None

    def differs_from(self, content, data):
        sizes = {len(content), *self.sizes}
        # The kernel writes pages back in any order, and one that fails leaves the end where the last good one was.
        between = min(sizes) < len(data) < max(sizes) and len(data) % BLOCK == 0
        if len(data) not in sizes and not between:
            return f"{len(data)} bytes, and may have {sorted(sizes)}"
        for at in range(0, len(data), BLOCK):
            piece = data[at : at + BLOCK].ljust(BLOCK, b"\0")
            may = {bytes(content[at : at + BLOCK]).ljust(BLOCK, b"\0"), *self.blocks.get(at // BLOCK, ())}
            # One that an earlier size cut has zeros behind.
            may |= {m[: size % BLOCK].ljust(BLOCK, b"\0") for m in may for size in sizes}
            if piece not in may:
                return f"block {at // BLOCK} of {len(data)} bytes is none that was written"
        return None


class Model:
    """
    What may be in the tree, by name: a set of File, "dir", "fifo", ("link", target), or None for nothing; and what the
    attributes, by file and name, may be, None for none.
    """

    def __init__(self):
        self.names = {}
        self.attributes = {}

    def sure(self, name, what):
        self.names[name] = [what]

    def may_be(self, name, what):
        self.names.setdefault(name, [None]).append(what)


class Scenario:
    """Does steps on a mount and tells the model. A step that fails changes nothing for sure."""

    def __init__(self, top, model):
        self.top, self.model = top, model
        self.failed = []

    def path(self, name):
        return os.path.join(self.top, name)

    def attempt(self, what, function, *args, **kwargs):
        try:
            return True, function(*args, **kwargs)
        except OSError as e:
            if e.errno not in EXPECTED:
                raise AssertionError(f"{what}: {errno.errorcode[e.errno]}") from e
            self.failed.append(f"{what}: {errno.errorcode[e.errno]}")
            return False, None

    def open(self, name, flags=os.O_RDWR):
        done, fd = self.attempt(f"open {name}", os.open, self.path(name), flags, 0o644)
        if flags & os.O_CREAT:
            file = File()
            if done:
                self.model.sure(name, file)
            else:
                self.model.may_be(name, file)
        return fd

    def close(self, fd):
        if fd is not None:
            self.attempt("close", os.close, fd)

    def file(self, name):
        return next(f for f in self.model.names[name] if isinstance(f, File))

    def write(self, name, fd, off, data):
        if fd is not None:
            done, _ = self.attempt(f"write {name}", os.pwrite, fd, data, off)
            file = self.file(name)
            file.change(done, file.write, off, data)

    def append(self, name, fd, data):
        if fd is not None:
            done, _ = self.attempt(f"append {name}", os.write, fd, data)
            file = self.file(name)
            file.change(done, file.append, data)

    def truncate(self, name, fd, size):
        if fd is not None:
            done, _ = self.attempt(f"truncate {name}", os.ftruncate, fd, size)
            file = self.file(name)
            file.change(done, file.truncate, size)

    def sync(self, name, fd, how=os.fsync):
        """An answered sync holds for what was written while nothing had failed; later failures stay until the close."""
        if fd is None:
            return
        failed = len(self.failed)
        done, _ = self.attempt(f"fsync {name}", how, fd)
        if done and not failed:
            self.file(name).synced()

    def made(self, name, what, function, *args):
        done, _ = self.attempt(f"make {name}", function, *args)
        if done:
            self.model.sure(name, what)
        else:
            self.model.may_be(name, what)

    def removed(self, name, function):
        done, _ = self.attempt(f"remove {name}", function, self.path(name))
        if done:
            self.model.sure(name, None)
        else:
            self.model.names[name].append(None)

    def renamed(self, old, new):
        done, _ = self.attempt(f"rename {old}", os.rename, self.path(old), self.path(new))
        moved = self.model.names.get(old, [None])
        if done:
            self.model.sure(old, None)
            self.model.names[new] = [m for m in moved if m is not None]
        else:
            self.model.names[new] = self.model.names.get(new, [None]) + moved
            self.model.names[old] = moved + [None]

    def exchanged(self, one, other):
        done, _ = self.attempt(f"exchange {one}", exchange, self.path(one), self.path(other))
        first, second = self.model.names[one], self.model.names[other]
        self.model.names[one] = second + ([] if done else first)
        self.model.names[other] = first + ([] if done else second)

    def attribute(self, name, attribute, value):
        """None takes it away."""
        if value is None:
            done, _ = self.attempt("removexattr", os.removexattr, self.path(name), attribute)
        else:
            done, _ = self.attempt("setxattr", os.setxattr, self.path(name), attribute, value)
        may = self.model.attributes.setdefault((name, attribute), {None})
        self.model.attributes[name, attribute] = {value} if done else may | {value}

    def punch(self, name, fd, off, size):
        if fd is not None:
            done, _ = self.attempt(f"punch {name}", fallocate, fd, PUNCH_HOLE | KEEP_SIZE, off, size)
            file = self.file(name)
            file.change(done, file.write, off, bytes(size))

    def other_kinds(self):
        """Of what there are no contents to compare."""
        self.made("fifo", "fifo", os.mkfifo, self.path("fifo"))
        for value in (b"red", b"green" * 100, None, b"blue"):
            self.attribute("kept", "user.colour", value)
        self.attribute("a", "trusted.colour", b"white")
        for what in (os.listxattr, os.statvfs, os.listdir):
            self.attempt("look", what, self.path(LONG_DIR))
        self.attempt("getxattr", os.getxattr, self.path("kept"), "user.colour")
        self.made("hard", self.file("kept"), os.link, self.path("kept"), self.path("hard"))
        self.exchanged("swap", LONG_DIR)
        self.attempt("chown", os.chown, self.path("kept"), 1, 1)
        fd = self.open("kept")
        self.punch("kept", fd, 100_000, 200_000)
        if fd is not None:
            self.attempt("allocate", fallocate, fd, KEEP_SIZE, 0, 1_000_000)
            self.attempt("seek", os.lseek, fd, 0, os.SEEK_DATA)
        self.sync("kept", fd)
        self.close(fd)

    def run(self):
        a = self.open("a")
        self.write("a", a, 3 * BLOCK, noise(7 * BLOCK, "a1"))
        self.sync("a", a, os.fdatasync)
        b = self.open("b", os.O_RDWR | os.O_APPEND)
        self.append("b", b, noise(100, "b1"))
        self.sync("b", b)
        self.append("b", b, noise(BLOCK, "b2"))
        c = self.open("c", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.write("c", c, 0, noise(50_000, "c1"))
        self.sync("c", c)
        self.truncate("a", a, 300_000)
        self.sync("a", a)
        self.write("a", a, 500_000, noise(5000, "a2"))
        self.sync("a", a)
        # Bulk data where something was that has just been cut off.
        large = self.open("large")
        self.truncate("large", large, 100_000)
        self.write("large", large, 100_000, noise(1_500_000, "l1"))
        self.write("large", large, 50_000, noise(1000, "l2"))
        self.close(b)
        self.made("d", "dir", os.mkdir, self.path("d"))
        long = "d/" + LONG_NAME
        fd = self.open(long, os.O_RDWR | os.O_CREAT)
        self.write(long, fd, 0, noise(9000, "d1"))
        self.sync(long, fd, os.fdatasync)
        self.close(fd)
        self.renamed(long, "d/short")
        self.made("link", ("link", "t" * 3000), os.symlink, "t" * 3000, self.path("link"))
        self.attempt("readlink", os.readlink, self.path("link"))
        self.other_kinds()
        fd = self.open("new", os.O_RDWR | os.O_CREAT)
        self.write("new", fd, 0, noise(20_000, "n1"))
        self.sync("new", fd)
        self.close(fd)
        self.renamed("new", "b")
        fd = self.open("e", os.O_RDWR | os.O_CREAT)
        self.write("e", fd, 0, noise(1_500_000, "e1"))
        self.sync("e", fd)
        self.write("e", fd, 10_000, noise(700_000, "e2"))
        self.truncate("e", fd, 0)
        self.write("e", fd, 0, noise(30_000, "e3"))
        self.sync("e", fd)
        self.close(fd)
        self.removed("gone", os.unlink)
        self.removed("empty", os.rmdir)
        self.attempt("chmod", os.chmod, self.path("c"), 0o600)
        self.attempt("utime", os.utime, self.path("c"), (1, 1))
        self.write("c", c, 45_000, noise(20_000, "c2"))
        if a is not None:
            os.posix_fadvise(a, 0, 0, os.POSIX_FADV_DONTNEED)
            self.attempt("read", os.pread, a, 100_000, 0)
        self.attempt("list", os.listdir, self.top)
        self.close(c)
        self.close(a)
        self.close(large)


def start_of(top):
    """What the prepared volume holds."""
    return {
        "a": File(noise(600_000, "a")),
        "b": File(noise(10_000, "b")),
        "gone": File(noise(5000, "gone")),
        "empty": "dir",
        "large": File(noise(1_800_000, "large")),
        "kept": File(noise(450_000, "kept")),
        "swap": File(noise(3000, "swap")),
        LONG_DIR: "dir",
    }


def prepare(top):
    for name, what in start_of(top).items():
        path = os.path.join(top, name)
        if what == "dir":
            os.mkdir(path)
            continue
        with open(path, "wb") as f:
            f.write(what.contents[0])
            f.flush()
            os.fsync(f.fileno())


def verify(top, model):
    """What is wrong with the tree, a sentence each."""
    wrong = []
    for name, may in model.names.items():
        path = os.path.join(top, name)
        try:
            seen = look(path)
        except OSError as e:
            wrong.append(f"{name}: {errno.errorcode[e.errno]}")
            continue
        reasons = [differs(seen, m) for m in may]
        if all(reasons):
            wrong.append(f"{name}: {'; '.join(map(str, reasons))}")
    for (name, attribute), may in model.attributes.items():
        try:
            value = os.getxattr(os.path.join(top, name), attribute)
        except OSError as e:
            value = None if e.errno == errno.ENODATA else errno.errorcode[e.errno]
        if value not in may:
            wrong.append(f"{attribute} of {name}: {value}")
    for directory, dirs, files in os.walk(top, onerror=lambda e: wrong.append(f"{e.filename}: {e.strerror}")):
        for name in dirs + files:
            at = os.path.relpath(os.path.join(directory, name), top)
            if at not in model.names:
                wrong.append(f"{at} came from nowhere")
    return wrong


def look(path):
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(mode):
        return "dir"
    if stat.S_ISFIFO(mode):
        return "fifo"
    with open(path, "rb") as f:
        return f.read()


def differs(seen, may):
    if isinstance(may, File):
        return may.differs(seen) if isinstance(seen, bytes) else f"{seen!r:.40} in the place of a file"
    return None if seen == may else f"{seen!r:.40}, not {may!r:.40}"


def mounted(point):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == point for line in f)


class Volume:
    """A copy of the store, and its mounts."""

    def __init__(self, options, faults):
        self.cmekfs = os.path.join(os.environ["CMEK_BUILD"], "cmekfs") if "CMEK_BUILD" in os.environ else "cmekfs"
        self.good, self.faults, self.library = options.store, faults, os.path.abspath(options.library)
        self.store, self.point = os.path.join(options.disk, "try"), os.path.join(options.scratch, "mnt")
        self.log = os.path.join(options.scratch, "try.mount.log")
        self.process = None
        os.makedirs(self.point, exist_ok=True)

    def fresh(self):
        shutil.rmtree(self.store, ignore_errors=True)
        subprocess.run(["cp", "-a", self.good, self.store], check=True)

    def begin(self, with_faults, how):
        env = dict(os.environ)
        if with_faults:
            env.update(LD_PRELOAD=self.library, CMEK_FAULTS=self.faults.path)
        with open(self.log, "ab") as log:
            log.write(b"-- mount\n")
            log.flush()
            argv = [*how, self.cmekfs, self.store, self.point, "-f", "-o", "journal_size=8M"]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def mount(self, with_faults, how=()):
        """True when the mount is there, False when the program ended. how: a command that runs the program."""
        self.begin(with_faults, how)
        end = time.monotonic() + DEADLINE_S
        while not self.answers():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise AssertionError("the mount does not come")
            time.sleep(0.005)
        return True

    def answers(self):
        """A mount point alone is no mount yet: it is there before the volume is unlocked, and goes when that fails."""
        try:
            return os.stat(self.point).st_dev != os.stat(os.path.dirname(self.point)).st_dev
        except OSError:
            return False

    def unmount(self):
        """The exit code."""
        end = time.monotonic() + DEADLINE_S
        while mounted(self.point):
            subprocess.run(["umount", self.point], stderr=subprocess.DEVNULL, check=False)
            if time.monotonic() > end:
                raise AssertionError("can't be unmounted")
        return self.process.wait(DEADLINE_S)

    def descendants(self):
        found = [self.process.pid]
        for pid in found:
            try:
                with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                    found += map(int, f.read().split())
            except OSError:
                pass
        return found

    def kill(self):
        for pid in self.descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(DEADLINE_S)
        subprocess.run(["umount", "-l", self.point], stderr=subprocess.DEVNULL, check=False)
        end = time.monotonic() + DEADLINE_S
        while mounted(self.point) and time.monotonic() < end:
            time.sleep(0.01)

    def last_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join("    " + line for line in f.readlines()[-12:])


def prove_it_works(top):
    """Everything can be done again."""
    path = os.path.join(top, "proof")
    with open(path, "wb") as f:
        f.write(b"proof" * 1000)
        f.flush()
        os.fsync(f.fileno())
    os.unlink(path)


def verify_again(volume, model, when):
    """Mounts without faults; twice, for what a mount repairs must hold."""
    for again in range(2):
        if not volume.mount(False):
            raise AssertionError(f"{when}: can't be mounted")
        wrong = verify(volume.point, model)
        if wrong:
            volume.unmount()
            raise AssertionError(f"{when}: " + "\n    ".join(wrong))
        if again == 0:
            prove_it_works(volume.point)
        code = volume.unmount()
        if code != 0:
            raise AssertionError(f"{when}: exit code {code} without a fault")


class Cases:
    """One N: each method gives how many calls there were, and how many failed."""

    def __init__(self, volume, faults):
        self.volume, self.faults = volume, faults
        self.dev = os.stat(os.path.dirname(volume.store)).st_dev

    def work(self, kind, number, kill):
        """While the scenario runs and while it is unmounted; the latter is not for a daemon that is killed."""
        volume, model = self.volume, Model()
        for name, what in start_of(volume.point).items():
            model.sure(name, what)
        volume.fresh()
        if not volume.mount(True):
            raise AssertionError("can't be mounted before anything fails")
        self.faults.arm(self.dev, kind, number)
        scenario = Scenario(volume.point, model)
        scenario.run()
        if volume.process.poll() is not None:
            raise AssertionError("the file system died")
        if kill:
            volume.kill()
            self.faults.disarm()
        else:
            code = volume.unmount()
            self.faults.disarm()
            if code not in (0, 1):
                raise AssertionError(f"exit code {code} after the unmount")
        result = self.faults.read()
        verify_again(volume, model, "mounted again")
        return result

    def unmounted(self, kind, number):
        return self.work(kind, number, False)

    def killed(self, kind, number):
        return self.work(kind, number, True)

    def recovery(self, kind, number):
        """While a mount replays what a killed one left."""
        return self.mounted_again(kind, number, [])

    def searched(self, kind, number):
        """The same without the right to open files by their handles: they are looked for in the whole store."""
        return self.mounted_again(kind, number, ["setpriv", "--bounding-set=-dac_read_search"])

    def mounted_again(self, kind, number, how):
        volume, model = self.volume, Model()
        for name, what in start_of(volume.point).items():
            model.sure(name, what)
        volume.fresh()
        volume.mount(False)
        Scenario(volume.point, model).run()
        volume.kill()
        self.faults.arm(self.dev, kind, number)
        if volume.mount(True, how):
            wrong = verify_quietly(volume.point, model)
            volume.unmount()
            if wrong:
                raise AssertionError("after a replay with a fault: " + "\n    ".join(wrong))
        self.faults.disarm()
        result = self.faults.read()
        verify_again(volume, model, "mounted again")
        return result


def verify_quietly(top, model):
    """While faults go on, an error is no wrong data."""
    return [w for w in verify(top, model) if not w.endswith((": EIO", "error"))]


def run(cases, name, kind, number):
    signal.alarm(10 * DEADLINE_S)
    volume = cases.volume
    try:
        return getattr(cases, name)(kind, number)
    except Exception as e:  # pylint: disable=broad-except
        calls, failed, what = cases.faults.read()
        print(f"FAILED --only {name}:{kind}:{number} ({what}, {failed} of {calls}): {e}\n{volume.last_log()}")
        cases.faults.disarm()
        if volume.process and volume.process.poll() is None:
            volume.kill()
        return None
    finally:
        signal.alarm(0)


def main():
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2])
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--cases", default="unmounted,killed,recovery,searched")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("library")
    parser.add_argument("store")
    parser.add_argument("disk")
    parser.add_argument("scratch")
    options = parser.parse_args()
    faults = Faults(os.path.join(options.scratch, "faults"))
    cases = Cases(Volume(options, faults), faults)
    if options.only:
        name, kind, number = options.only.split(":")
        return 0 if run(cases, name, kind, int(number)) else 1
    rng, bad = random.Random(options.seed), 0
    for name in options.cases.split(","):
        for kind in options.kinds.split(","):
            # A replay looks at each 4 KiB of the journal.
            every = options.every * (4 if name in ("recovery", "searched") and options.every > 1 else 1)
            number, done, failures = 1 + rng.randrange(every), 0, 0
            while True:
                result = run(cases, name, kind, number)
                done += 1
                failures += result is None
                if result and result[1] == 0:
                    break
                number += every
            print(f"{name}, {kind}: {done} times, {failures} bad", flush=True)
            bad += failures
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
